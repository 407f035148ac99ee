"""The systemd units (the agent's, the fence's, and the slice above our containers) and the command `hypermesh-agent`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from hmctl import layout
from hmctl.phases.base import Say, Target
from hmctl.phases.start import FENCE
from hmctl.remote.base import Remote, check, put

_MOST = 12

# Where Docker uses systemd's driver for cgroups, this is the parent of our containers: programs attached there last as long as it does.
SLICE = b"""# Written by `hmctl deploy`; changes made here are overwritten by the next one.
[Unit]
Description=HyperMesh containers
"""


@dataclass(frozen=True, slots=True)
class InstallUnits:
    title = "Install units"
    doing = "installing its unit"

    def plan(self, target: Target) -> tuple[str, ...]:
        agent, desired = target.facts.agent, target.desired
        steps = [*_changes(layout.UNIT_FILE, agent.unit_file, desired.unit), *_changes(layout.WRAPPER, agent.wrapper, desired.wrapper)]
        steps += _changes(layout.SLICE_FILE, agent.slice_file, SLICE)
        steps += _changes(layout.FENCE_FILE, agent.fence_file, desired.fence)
        if agent.unit_file == desired.unit and agent.unit.stale:
            steps.append("have systemd read the unit again")
        if not agent.unit.enabled:
            steps.append(f"enable {layout.UNIT}")
        return tuple(steps)

    async def run(self, target: Target, remote: Remote, say: Say) -> str | None:
        agent, desired = target.facts.agent, target.desired
        if agent.wrapper != desired.wrapper:
            await put(remote, desired.wrapper, layout.WRAPPER, mode=0o755)
        if agent.unit_file != desired.unit:
            await put(remote, desired.unit, layout.UNIT_FILE, mode=0o644)
        if agent.slice_file != SLICE:
            await put(remote, SLICE, layout.SLICE_FILE, mode=0o644)
        if agent.fence_file != desired.fence:
            await put(remote, desired.fence, layout.FENCE_FILE, mode=0o644)
        await check(remote, ["systemctl", "daemon-reload"], timeout=60.0)
        if not agent.unit.enabled:
            await check(remote, ["systemctl", "--quiet", "enable", layout.UNIT], timeout=60.0)
        if agent.fence_file not in (None, desired.fence):
            await check(remote, FENCE.argv(layout.FENCE), timeout=60.0)
        return None

    async def undo(self, target: Target, remote: Remote) -> None:
        """Written whole or not at all: there is nothing half done."""


def _changes(path: str, present: bytes | None, wanted: bytes) -> list[str]:
    if present == wanted:
        return []
    if present is None:
        return [f"write {path}"]
    before, after = present.decode(errors="replace").splitlines(), wanted.decode().splitlines()
    lines = [line for line in difflib.ndiff(before, after) if line[:2] in ("- ", "+ ")]
    name = path.rpartition("/")[2]
    if len(lines) > _MOST:
        return [f"change {name}: {len(lines)} lines differ"]
    return [f"change {name}: {line}" for line in lines]
