"""A node that was a voter and is a worker by now: what it held of the log is set aside, so that it is never taken for a memory."""

from __future__ import annotations

from dataclasses import dataclass

from hmcore.records import Role
from hmctl import layout
from hmctl.phases.base import Known, Say, Target
from hmctl.phases.reseed import set_aside
from hmctl.phases.start import restart
from hmctl.remote.base import Remote


def due(target: Known) -> bool:
    """Whether a worker holds a log. Pure. Only of targets that are known to have no vote: whoever votes is a control node to deploy."""
    return target.host.role is not Role.CONTROL and target.facts.agent.journal


@dataclass(frozen=True, slots=True)
class Retire:
    """`limit`: how long the agent may take for its start, in seconds."""

    limit: float
    title = "Set the log aside"
    doing = "setting its log aside"

    def plan(self, target: Target) -> tuple[str, ...]:
        if not due(target):
            return ()
        return (f"set {layout.JOURNAL} aside (it stays on the disk, beside), and start the agent as a worker",)

    async def run(self, target: Target, remote: Remote, say: Say) -> str | None:
        await set_aside(target.name, remote)
        say("starting the agent")
        await restart(target, remote, self.limit)
        return None

    async def undo(self, target: Target, remote: Remote) -> None:
        """Whatever was moved, the agent runs: as a worker it reads none of it."""
        await restart(target, remote, self.limit)
