"""Take a voter's memory away, so that it gets the cluster's from its peers (docs/adr/0026): may it be done, and doing it.

Nothing is deleted: what the node held is set aside on the same disk. Until it has caught up the node does not vote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hmcore.errors import CommandFailed, HyperMeshError
from hmcore.records import ComponentState, NodeReport
from hmctl import layout
from hmctl.phases.base import Known, Say
from hmctl.phases.start import restart
from hmctl.remote.base import Remote, Script, check
from hmctl.text import listed

_TIMEOUT = 60.0  # seconds: stopping takes up to 15

# What cannot be moved (a file system of its own, mounted there) is left as it is, and the agent is started again by `undo`.
ASIDE = Script(
    "hm-aside",
    'set -e; systemctl stop "$1"; [ -d "$2" ] || exit 0; '
    'n=1; while [ -e "$2.aside-$n" ]; do n=$((n + 1)); done; mv -T -- "$2" "$2.aside-$n"; sync -f "$(dirname -- "$2")"; '
    'printf "%s\\n" "$2.aside-$n"',
)
VOTING = ("leader", "follower")


async def set_aside(name: str, remote: Remote) -> str | None:
    """Stops the agent and moves its log away, on the same disk; where it is now, None if there was none. Raises HyperMeshError."""
    try:
        said = await check(remote, ASIDE.argv(layout.UNIT, layout.JOURNAL), timeout=_TIMEOUT)
    except CommandFailed as error:
        reason = (error.stderr.strip().splitlines() or [error.message])[-1]
        raise HyperMeshError(f"{layout.JOURNAL} cannot be set aside: {reason}", host=name, fix=f"hmctl logs {name}") from None
    return said.decode(errors="replace").strip() or None


@dataclass(frozen=True, slots=True)
class Survey:
    """The voters, and which of the others are well: they follow or lead the same leader. `leader` may be the node itself."""

    voters: tuple[str, ...]
    well: tuple[str, ...]
    leader: str | None
    index: int  # of the latest log entry that one of the others has applied

    @property
    def needed(self) -> int:
        return len(self.voters) // 2 + 1


def survey(node: str, answers: Mapping[str, NodeReport | HyperMeshError]) -> Survey:
    """What the other control nodes say. Pure."""
    others = {name: said for name, said in answers.items() if isinstance(said, NodeReport) and name != node}
    sound = {name: said.raft for name, said in others.items() if said.raft.role in VOTING and said.raft.leader is not None}
    newest = max(sound.values(), key=lambda raft: (raft.term, raft.applied_index), default=None)
    if newest is None:
        return Survey((), (), None, 0)
    well = tuple(sorted(name for name, raft in sound.items() if raft.leader == newest.leader and name in newest.voters))
    return Survey(tuple(newest.voters), well, newest.leader, max(sound[name].applied_index for name in well) if well else 0)


def refusal(node: str, found: Survey, control: Sequence[str]) -> HyperMeshError | None:
    """Why the node must keep its memory: nobody else could give it back. Pure."""
    if node not in control:
        return HyperMeshError("it is no control node: it holds nothing of the log", host=node, fix="hmctl status")
    if list(control) == [node] or found.voters == (node,):
        fix = "restore a backup of its disk; or hmctl reset, and deploy a cluster that begins anew"
        return HyperMeshError("it is the only voter: nobody else holds what it knows", host=node, fix=fix)
    if found.leader is None:
        return HyperMeshError("no other voter has a leader: what this node holds may be needed", host=node, fix="hmctl status")
    if node not in found.voters:
        return HyperMeshError(f"it is none of the voters ({listed(list(found.voters))})", host=node, fix="hmctl status")
    if len(found.well) < found.needed:
        well = f"only {listed(list(found.well))}" if found.well else "none"
        message = f"without it there is no quorum: of {len(found.voters)} voters {well} would be left, {found.needed} are needed"
        return HyperMeshError(message, host=node, fix="bring back the other voters first: hmctl status")
    return None


def waits_for(node: str, found: Survey) -> list[str]:
    """Voters without whom it would not finish: every other one must say which term it knows (docs/adr/0026). Pure."""
    return [name for name in found.voters if name not in found.well and name != node]


def lacking(node: str, answers: Mapping[str, NodeReport | HyperMeshError], index: int) -> str | None:
    """What is still missing until the node votes again, with all that it must know; None when it does. Pure."""
    said = answers.get(node)
    if not isinstance(said, NodeReport):
        return said.message if isinstance(said, HyperMeshError) else "not asked"
    consensus = said.components.get("consensus")
    if said.raft.role not in VOTING:
        return (consensus.error if consensus is not None else None) or f"it is {said.raft.role}"
    if said.raft.leader is None:
        return "no leader yet"
    if said.raft.applied_index < index:
        return f"at log index {said.raft.applied_index} of {index}"
    if consensus is None or consensus.state is not ComponentState.RUNNING:
        return (consensus.error if consensus is not None else None) or "consensus is not running yet"
    return None


@dataclass(slots=True)
class SetAside:
    """`limit`: how long the agent may take for its start, in seconds. `moved`: where the old directory went, once it did."""

    limit: float
    title = "Re-seed"
    doing = "setting its memory aside"
    moved: str | None = None

    def plan(self, target: Known) -> tuple[str, ...]:
        return (
            f"stop {layout.UNIT}",
            f"set {layout.JOURNAL} aside (it stays on the disk, beside)",
            f"start {layout.UNIT}, which gets the state from its peers and votes again once it has it",
        )

    async def run(self, target: Known, remote: Remote, say: Say) -> str | None:
        self.moved = await set_aside(target.name, remote)
        say("starting the agent")
        await restart(target, remote, self.limit)
        return None

    async def undo(self, target: Known, remote: Remote) -> None:
        """Whatever was moved, the agent runs: with its old directory, or being re-seeded."""
        await restart(target, remote, self.limit)
