"""Who votes, who shall by the roles in the inventory, and why not (docs/adr/0078). Pure.

What the voters are is for the cluster's log to say, never for a file. A change is made only where the log was asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from hmcore.errors import HyperMeshError
from hmcore.records import Role
from hmcore.voters import RaftStatus, may_fail
from hmctl.phases.base import Step
from hmctl.phases.validate import Check
from hmctl.text import listed, plural

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory
    from hmctl.state import Place

LEVEL = 2  # the feature level from which on the voters can be changed
TITLE = "Change voters"
NAME = "control nodes"  # the check's


@dataclass(frozen=True, slots=True)
class Electorate:
    """As the leader tells it. `learners` are on their way to a vote."""

    voters: tuple[str, ...]
    learners: tuple[str, ...]
    leader: str
    level: int

    @property
    def members(self) -> tuple[str, ...]:
        return (*self.voters, *self.learners)


def told(answers: Mapping[str, RaftStatus | HyperMeshError]) -> Electorate | None:
    """By the word of the newest leader; None where nobody leads, or tells."""
    leads = [said for said in answers.values() if isinstance(said, RaftStatus) and said.role == "leader"]
    newest = max(leads, key=lambda said: said.term, default=None)
    return None if newest is None else Electorate(tuple(newest.voters), tuple(newest.learners), newest.name, newest.level)


@dataclass(frozen=True, slots=True)
class Shift:
    """What is to be done, in this order. `before`: who votes now, and who is being caught up. `keeping`: who keeps its vote though it is to
    be a worker, and until when."""

    voters: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    joining: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    keeping: Mapping[str, str] = field(default_factory=dict)
    leader: str = ""

    @property
    def due(self) -> bool:
        return bool(self.joining or self.leaving)

    @property
    def after(self) -> tuple[str, ...]:
        return tuple(sorted({*self.before, *self.joining} - {*self.leaving}))


def shift(now: Electorate, control: Sequence[str], able: Collection[str]) -> Shift:
    """From who votes to `control`. `able`: the hosts that can be worked on. Additions first: a vote is taken only once all that shall vote
    do, so that the cluster never stands with fewer than before and after; the leader's last, for it moves the leadership."""
    wanting = [name for name in control if name not in now.voters]
    going = sorted((name for name in now.members if name not in control), key=lambda name: (name == now.leader, name))
    late = [name for name in wanting if name not in able]
    keeping = {name: f"until {listed(late)} can be reached, and votes" for name in going if late}
    keeping |= {name: f"until it can be reached; if it is gone for good: hmctl raft rm {name}" for name in going if name not in able}
    return Shift(
        voters=now.voters,
        before=now.members,
        joining=tuple(name for name in wanting if name in able),
        leaving=tuple(name for name in going if name not in keeping),
        keeping=keeping,
        leader=now.leader,
    )


def steps(change: Shift) -> list[Step]:
    found, voters = [], set(change.voters)
    for name in change.joining:
        voters.add(name)
        found.append(Step(None, TITLE, f"{name} becomes a voter, once it has caught up: {quorum(len(voters))}"))
    for name in change.leaving:
        voters.discard(name)
        leads = " (it leads, and hands over first)" if name == change.leader else ""
        found.append(Step(None, TITLE, f"{name} is no voter any more{leads}: {quorum(len(voters))}"))
    return found


def quorum(voters: int) -> str:
    """`5 voters: 2 may fail`."""
    return f"{plural(voters, 'voter')}: {may_fail(voters) or 'none'} may fail"


def with_votes(inventory: Inventory, names: Iterable[str]) -> Inventory:
    """`inventory`, in which these are control nodes, whatever they shall be: whoever votes is one."""
    voting = frozenset(names)
    hosts = tuple(dataclasses.replace(host, role=Role.CONTROL) if host.name in voting else host for host in inventory.hosts)
    return msgspec.structs.replace(inventory, hosts=hosts)


def examine(inventory: Inventory, now: Electorate | None, change: Shift, before: Collection[str]) -> Iterator[Check]:
    """What forbids to go on with a formed cluster. `before`: its control nodes as far as files tell; empty where none does."""
    control = [host.name for host in inventory.control_hosts]
    if now is None:
        if before and set(before) != set(control):
            message = f"they were {listed(sorted(before))}, and shall be {listed(sorted(control))}; but nobody leads who could change that"
            fix = "put the roles back as they were, then: hmctl deploy; change them once hmctl status is healthy"
            yield Check(None, NAME, "error", message, fix)
        return
    if absent := [name for name in now.members if name not in {host.name for host in inventory.hosts}]:
        fix = f"list it with role: worker, then hmctl deploy; or, if its machine is gone for good: hmctl raft rm {absent[0]}"
        yield Check(None, NAME, "error", f"{listed(absent)}, which the inventory does not list, still has a vote in this cluster", fix)
    if change.due and now.level < LEVEL:
        message = f"they can be changed from feature level {LEVEL} on; the cluster is at {now.level}"
        yield Check(None, NAME, "error", message, "put the roles back as they were, then hmctl deploy, which raises it; then change them")


def moved(inventory: Inventory, places: Iterable[Place]) -> Iterator[Check]:
    """Control nodes that are to be reached elsewhere than those who talk to them know."""
    for place in dict.fromkeys(places):
        host = next((host for host in inventory.control_hosts if host.name == place.name), None)
        if host is not None and (host.address, host.port) != (place.address, place.port):
            message = f"{place.name} is at {place.address}:{place.port}; a voter cannot move to {host.address}:{host.port}"
            fix = f"put that back; or take its vote first: give {place.name} the role worker, hmctl deploy, and then change both"
            yield Check(None, NAME, "error", message, fix)
