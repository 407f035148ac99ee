"""The node's configuration file. The plan says which values change, not merely that some do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hmcore.config import yaml12
from hmcore.errors import ConfigError
from hmctl import layout
from hmctl.phases.base import Say, Target
from hmctl.remote.base import Remote, Script, check, put

KEEP = Script("hm-keep", 'set -e; cp -p -- "$1" "$2.hm-new"; mv -f -T -- "$2.hm-new" "$2"')
_MOST = 12  # differences that are spelled out; past that a person reads the file


def differences(old: bytes, new: bytes) -> list[str]:
    """`settings.raft.heartbeat 0.2 -> 0.1`, one for each value that differs. Empty when only the text does."""
    try:
        before, after = _flat(yaml12.load(old, "old").value), _flat(yaml12.load(new, "new").value)
    except ConfigError:
        return ["what is there cannot be read"]
    changes = []
    for key in dict.fromkeys([*before, *after]):
        if key not in after:
            changes.append(f"{key} removed")
        elif key not in before:
            changes.append(f"{key} = {spelled(after[key])}")
        elif before[key] != after[key]:
            changes.append(f"{key} {spelled(before[key])} -> {spelled(after[key])}")
    return changes


def spelled(value: object) -> str:
    """A value of a configuration for people: the same from whichever document and command it comes."""
    match value:
        case None:
            return "(none)"
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case _:
            return str(value)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    match value:
        case dict():
            parts = [(f"{path}.{key}" if path else str(key), part) for key, part in value.items()]
        case list():
            parts = [(f"{path}[{index}]", part) for index, part in enumerate(value)]
        case _:
            return {path: value}
    flat: dict[str, Any] = {}
    for name, part in parts:
        flat |= _flat(part, name)
    return flat or {path: "none"}


async def write(remote: Remote, config: bytes, *, present: bytes | None) -> None:
    """Writes the node's configuration; what it replaces stays beside it, for whoever must take it back by hand."""
    if present is not None:
        await check(remote, KEEP.argv(layout.CONFIG, layout.PREVIOUS), timeout=30.0)
    await put(remote, config, layout.CONFIG, mode=0o644)


@dataclass(frozen=True, slots=True)
class WriteConfiguration:
    title = "Write configuration"
    doing = "writing its configuration"

    def plan(self, target: Target) -> tuple[str, ...]:
        present, wanted = target.facts.agent.config, target.desired.config
        if present == wanted:
            return ()
        if present is None:
            return (f"write {layout.CONFIG}",)
        changes = differences(present, wanted) or ["its comments"]
        shown = changes[:_MOST] + ([f"and {len(changes) - _MOST} more"] if len(changes) > _MOST else [])
        return tuple(f"change {layout.CONFIG}: {change}" for change in shown)

    async def run(self, target: Target, remote: Remote, say: Say) -> str | None:
        await write(remote, target.desired.config, present=target.facts.agent.config)
        return None

    async def undo(self, target: Target, remote: Remote) -> None:
        """Written whole or not at all: there is nothing half done."""
