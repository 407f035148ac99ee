"""Start the agent where it does not run, and know where it must be started again: only where something that it read has changed since."""

from __future__ import annotations

from dataclasses import dataclass

from hmcore.errors import CommandFailed, InitializationFailed
from hmctl import layout
from hmctl.facts.agent import checksum
from hmctl.phases.base import Known, Say, Target
from hmctl.phases.packages import FOR_BPF
from hmctl.remote.base import Remote, Script, check

# A start that failed says why in the journal, not on systemctl's stderr: systemd's verdict first, for an agent that said nothing.
START = Script(
    "hm-start",
    'systemctl reset-failed "$1" 2>/dev/null; began=$(date +%s); systemctl restart "$1" && exit 0; '
    'result=$(systemctl show -P Result "$1" 2>/dev/null); [ -z "$result" ] || echo "systemd calls it: $result" >&2; '
    'journalctl -u "$1" --since "@$began" -n 60 -o cat --no-pager 2>/dev/null | grep -v "^$" | tail -n 30 >&2; exit 1',
)
# From the release that is current by now. What it guards is in files: while it is away, for a moment, nothing is lost.
FENCE = Script("hm-fence", 'systemctl cat "$1" >/dev/null 2>&1 || exit 0; systemctl restart "$1"')
_NO_REASON = (
    f"{layout.UNIT}:",
    "Starting ",
    "Started ",
    "Stopping ",
    "Stopped ",
    "Failed to start ",
    "Job for ",
    "See ",
    "leaving in ",
)
_MARGIN = 45.0  # seconds beyond the agent's own limit; systemd's lies between


def stale(target: Target) -> tuple[str, ...]:
    """What the running agent was started with and is no longer so; empty when nothing is, or no agent runs. Pure."""
    agent, desired = target.facts.agent, target.desired
    if not agent.unit.running:
        return ()
    wanted = {layout.CONFIG: desired.config, layout.CA: desired.ca, layout.UNIT_FILE: desired.unit}
    words = {layout.CONFIG: "configuration", layout.CA: "CA", layout.UNIT_FILE: "unit", layout.CERTIFICATE: "certificate"}
    reasons = [words[path] for path, content in wanted.items() if agent.started.get(path) != checksum(content)]
    certificate = agent.certificate
    if desired.certificate is not None or certificate is None or agent.started.get(layout.CERTIFICATE) != checksum(certificate):
        reasons.append(words[layout.CERTIFICATE])
    if agent.started_release != desired.release.digest:
        reasons.append("release")
    if FOR_BPF & set(desired.packages):
        reasons.append("packages")  # the security layer tries again by itself, but at the end of a pause that has grown
    return tuple(reasons)


async def restart(target: Known, remote: Remote, limit: float) -> None:
    """(Re)starts the agent and waits until systemd calls it up. `limit` is the agent's own for its start, in seconds."""
    await check(remote, FENCE.argv(layout.FENCE), timeout=_MARGIN)
    try:
        await check(remote, START.argv(layout.UNIT), timeout=limit + _MARGIN)
    except CommandFailed as error:
        said = reason(error.stderr)
        raise InitializationFailed(
            f"the agent does not start{': ' + said if said else ''}", host=target.name, fix=f"hmctl logs {target.name}"
        ) from None


def reason(journal: str) -> str:
    """The last line of a journal that is neither systemd's own account of the same failure nor the agent's farewell. Pure."""
    lines = journal.strip().splitlines()
    own = [line for line in lines if not line.startswith(_NO_REASON)]
    return (own or lines or [""])[-1]


@dataclass(frozen=True, slots=True)
class StartAgent:
    """`limit`: how long an agent may take for its start, in seconds."""

    limit: float
    title = "Start agents"
    doing = "starting the agent"

    def plan(self, target: Target) -> tuple[str, ...]:
        unit = target.facts.agent.unit
        if unit.running:
            return ()
        return (f"start {layout.UNIT}{f' (it is {unit.active})' if unit.active not in ('inactive', 'failed') else ''}",)

    async def run(self, target: Target, remote: Remote, say: Say) -> str | None:
        await restart(target, remote, self.limit)
        return None

    async def undo(self, target: Target, remote: Remote) -> None:
        """An agent that does not come up is left to systemd, which tries again: its journal says why."""
