"""What a node does with exclusive replicas as its lease comes and goes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from docker_model import IMAGE, Docker, done, labels_of, stopped, wanted
from fake_hands import FakeFiles, FakeHands, FakeImages
from msgspec import structs
from node_model import Node

from hmcore.apps.records import Phase
from hmcore.apps.spec import Restart
from hmcore.errors import HyperMeshError, LayerDown, NoLease
from node_agent.container.actions import Action, Kill, Remove, Run, Start
from node_agent.container.creation import Wanted
from node_agent.container.executor import Executor, Outcome
from node_agent.container.fencing.chain import Permit
from node_agent.container.wanted import permitted

DB = "shop/db.1.7"
GIVEN, OTHER = Permit(lease=41), Permit(lease=57)
HELD = Permit(held="not yet", lease=41)
NONE = Permit("no lease", "no lease")


def exclusive(*, restart: Restart | None = None) -> Wanted:
    made = wanted(DB, restart=restart)
    assert made.app is not None
    service = structs.replace(made.app.services["db"], exclusive=True)
    return replace(made, app=structs.replace(made.app, services={"db": service}))


class Here(Node):
    def under(self, permit: Permit) -> None:
        self.wanted = permitted(self.wanted, permit)

    def _may(self, action: Action) -> None:
        """Without a lease, what runs and is wanted is killed nevertheless."""
        if not self.wanted[action.allocation].barred:
            super()._may(action)


def node(*wants: Wanted) -> Here:
    here = Here(Docker(images={IMAGE}), {want.allocation.id: want for want in wants})
    here.under(GIVEN)
    return here


def phase(here: Node) -> tuple[Phase, str]:
    return here.statuses[DB].phase, here.statuses[DB].error


def test_only_what_is_exclusive_asks_for_the_lease() -> None:
    web = wanted("shop/web.1.1")
    assert permitted({"w": web, "d": exclusive()}, NONE) == {"w": web, "d": replace(exclusive(), barred="no lease", held="no lease")}


def test_it_is_started_under_the_lease_that_the_node_has() -> None:
    here = node(exclusive())
    (action,) = here.round().actions
    assert isinstance(action, Run)
    assert action.lease == 41
    here.settle()
    here.docker.end("c1", 1)
    here.settle()
    here.under(OTHER)
    here.docker.end("c1", 1)
    here.round()
    here.now = here.wake
    (action,) = here.decide().actions
    assert action == Start(DB, "c1", 57)


@pytest.mark.parametrize("permit", [HELD, NONE, Permit()])
def test_without_one_it_is_not_started_and_nothing_is_pulled_in_vain(permit: Permit) -> None:
    here = node(exclusive())
    here.docker.images.clear()
    here.under(permit)
    assert here.round().actions == ()
    assert phase(here) == (Phase.WAITING, permit.held or "nobody says whether this node has a lease")


def test_what_runs_is_left_alone_while_the_lease_lasts_though_nothing_may_be_started() -> None:
    here = node(exclusive())
    here.settle()
    here.under(HELD)
    assert here.round().actions == ()
    assert phase(here) == (Phase.RUNNING, "")
    here.docker.end("c1", 1)
    here.round()
    here.now += 60
    assert here.round().actions == ()
    assert phase(here) == (Phase.BACKOFF, "not yet")


def test_at_the_end_of_the_lease_it_is_killed_and_comes_back_with_the_next() -> None:
    here = node(exclusive())
    here.settle()
    here.under(NONE)
    assert here.round().actions == (Kill(DB, "c1"),)
    here.settle()
    assert phase(here) == (Phase.WAITING, "no lease")
    assert here.statuses[DB].restarts == 0, "that it ended is not its fault"
    here.under(OTHER)
    here.settle()
    assert phase(here) == (Phase.RUNNING, "")
    assert here.docker.containers["c1"].starts == 2


@pytest.mark.parametrize("restart", [Restart(condition="none"), Restart(condition="on-failure", attempts=1), Restart()])
def test_what_the_fence_killed_is_not_held_against_it(restart: Restart) -> None:
    here = node(exclusive(restart=restart))
    here.settle()
    for permit in (OTHER, replace(OTHER, lease=80), replace(OTHER, lease=90)):
        here.under(NONE)
        here.docker.end("c1", 137)
        here.settle()
        assert phase(here) == (Phase.WAITING, "no lease")
        here.under(permit)
        here.settle()
        assert phase(here) == (Phase.RUNNING, "")
    assert here.statuses[DB].restarts == 0


def test_what_is_done_or_given_up_stays_so() -> None:
    here = node(exclusive(restart=Restart(condition="none")))
    here.settle()
    here.docker.end("c1", 0)
    here.settle()
    here.under(NONE)
    here.settle()
    assert phase(here)[0] is Phase.DONE
    here.wanted = {DB: done(here.wanted[DB])}
    here.settle()
    assert phase(here)[0] is Phase.DONE


def test_what_is_to_end_ends_without_a_lease_too() -> None:
    here = node(exclusive())
    here.settle()
    here.wanted = {DB: stopped(here.wanted[DB])}
    here.under(NONE)
    here.settle()
    assert phase(here)[0] is Phase.DONE
    assert here.docker.containers == {}


class Fence:
    """Remembers what was asked of it, and how Docker's containers were then."""

    def __init__(self, docker: Docker) -> None:
        self.docker = docker
        self.told: list[tuple[str, str, int, list[str]]] = []
        self.refuses = ""

    def _tell(self, what: str, container: str, lease: int) -> None:
        self.told.append((what, container, lease, [made.state for made in self.docker.containers.values()]))
        if what == self.refuses:
            raise NoLease("not now")

    def open(self, allocation: str, lease: int) -> None:
        self._tell("open", "", lease)

    def enter(self, allocation: str, container: str, lease: int) -> None:
        self._tell("enter", container, lease)

    def leave(self, allocation: str, container: str) -> None:
        self._tell("leave", container, 0)


async def carry_out(hands: FakeHands, fence: Fence | None, *actions: Action) -> list[Outcome]:
    over: asyncio.Queue[Outcome] = asyncio.Queue()
    found = []
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        executor = Executor(tasks, lambda: hands, FakeImages(hands.docker), FakeFiles(), lambda _, came: over.put_nowait(came), fence)
        for action in actions:
            assert executor.offer([action])
            found.append(await over.get())
    return found


def run(lease: int) -> Run:
    return Run(DB, "db", {"Image": IMAGE, "Labels": labels_of(DB)}, lease=lease)


async def test_its_gate_is_open_before_it_is_made_and_lists_it_before_it_is_started() -> None:
    hands = FakeHands()
    fence = Fence(hands.docker)
    assert await carry_out(hands, fence, run(41), Start(DB, "c1", 41), Kill(DB, "c1"), Remove(DB, "c1")) == ["c1"] * 4
    made = [("open", "", 41, []), ("enter", "c1", 41, ["created"])]
    again = [("open", "", 41, ["running"]), ("enter", "c1", 41, ["running"])]
    assert fence.told == [*made, *again, ("leave", "c1", 0, [])]


@pytest.mark.parametrize(("step", "states"), [("open", []), ("enter", ["created"])])
async def test_where_the_lease_has_ended_on_the_way_it_is_not_started(step: str, states: list[str]) -> None:
    hands = FakeHands()
    fence = Fence(hands.docker)
    fence.refuses = step
    (outcome,) = await carry_out(hands, fence, run(41))
    assert isinstance(outcome, NoLease)
    assert [made.state for made in hands.docker.containers.values()] == states
    made = hands.docker.put("db", labels_of(DB), "exited")
    (outcome,) = await carry_out(hands, fence, Start(DB, made.id, 41))
    assert isinstance(outcome, NoLease)
    assert made.state == "exited"


async def test_an_agent_without_a_fence_starts_nothing_exclusive_and_all_else() -> None:
    hands = FakeHands()
    (outcome,) = await carry_out(hands, None, run(41))
    assert isinstance(outcome, HyperMeshError)
    assert not isinstance(outcome, LayerDown)
    assert await carry_out(hands, None, run(0)) == ["c1"]
