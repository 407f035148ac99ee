"""Carrying out: a few at once, one for an allocation, and nothing that hangs or fails holds anything else up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from docker_model import IMAGE, labels_of
from fake_hands import FakeFiles, FakeHands, FakeImages

from hmcore.errors import ContainerRefused, HyperMeshError, ImageGone, LayerDown, NameTaken, PartGone
from node_agent.container import executor as executor_module
from node_agent.container.actions import Action, Cancel, Kill, Pull, Remove, Run, Start, Stop
from node_agent.container.executor import HANDS, PULLS, AllFiles, Executor, Outcome


class Bench:
    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.hands = FakeHands()
        self.docker = self.hands.docker
        self.images = FakeImages(self.docker)
        self.files = FakeFiles()
        self.away = False
        self.over: list[tuple[Action, Outcome]] = []
        self.news = asyncio.Event()
        self.executor = Executor(
            tasks, lambda: None if self.away else self.hands, self.images, self.files, self.settled, going=self.hands.is_going
        )

    def settled(self, action: Action, outcome: Outcome) -> None:
        self.over.append((action, outcome))
        self.news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def outcome(self, action: Action) -> Outcome:
        before = len(self.over)
        assert self.executor.offer([action]) == [action]
        await self.until(lambda: len(self.over) > before)
        done, outcome = self.over[-1]
        assert done is action
        return outcome


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with asyncio.TaskGroup() as tasks:
        made = Bench(tasks)
        try:
            yield made
        finally:
            made.hands.gate.set()
            made.images.gate.set()


def run(id: str = "shop/web.1.1", **more: tuple[str, ...]) -> Run:
    return Run(id, id.replace("/", "-"), {"Image": IMAGE, "Labels": labels_of(id)}, **more)


async def test_what_a_docker_that_goes_refuses_is_not_held_against_the_container() -> None:
    async with bench() as b:
        b.docker.broken = ContainerRefused("context canceled")
        b.hands.going = True
        assert isinstance(await b.outcome(run()), LayerDown)
        assert isinstance(await b.outcome(Start("shop/web.1.1", "c1")), LayerDown)
        b.hands.going = False
        assert isinstance(await b.outcome(Start("shop/web.1.1", "c1")), ContainerRefused)


async def test_one_life() -> None:
    async with bench() as b:
        assert await b.outcome(Pull("a", "sha256:2")) == "sha256:2"
        assert await b.outcome(run()) == "c1"
        assert (b.docker.containers["c1"].state, b.files.ready) == ("running", {"shop/web.1.1"})
        assert await b.outcome(Stop("shop/web.1.1", "c1", 10.0)) == "c1"
        assert await b.outcome(Start("shop/web.1.1", "c1")) == "c1"
        assert b.docker.containers["c1"].starts == 2
        assert await b.outcome(Kill("shop/web.1.1", "c1")) == "c1"
        assert await b.outcome(Remove("shop/web.1.1", "c1")) == "c1"
        assert (b.docker.containers, b.files.ready) == ({}, set())


async def test_what_fails_is_told_as_what_it_is() -> None:
    async with bench() as b:
        await b.outcome(run())
        assert isinstance(await b.outcome(run()), NameTaken)
        b.docker.images.clear()
        assert isinstance(await b.outcome(run("shop/web.2.2")), ImageGone)
        assert isinstance(await b.outcome(run("shop/web.2.2", needs=("shared",))), PartGone)
        b.hands.fault = lambda action: "after"
        assert isinstance(await b.outcome(Kill("shop/web.1.1", "c1")), LayerDown)
        b.away = True
        assert isinstance(await b.outcome(Start("shop/web.1.1", "c1")), LayerDown)


async def test_without_its_secrets_nothing_is_started() -> None:
    async with bench() as b:
        b.files.refuses = HyperMeshError("the secret key is not on this node")
        assert await b.outcome(run()) is b.files.refuses
        assert await b.outcome(Start("shop/web.1.1", "c1")) is b.files.refuses
        assert b.docker.calls == []


async def test_secrets_that_never_come_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "FILES_TIMEOUT", 0.01)

    async def never(allocation: str) -> None:
        await asyncio.Event().wait()

    async with bench() as b:
        monkeypatch.setattr(b.files, "lay_ready", never)
        assert "took longer" in str(await b.outcome(run()))


async def test_a_docker_that_hangs_holds_up_a_bounded_number_and_nothing_else() -> None:
    async with bench() as b:
        b.hands.gate.clear()
        offered = [run(f"shop/web.{n}.{n}") for n in range(HANDS + 5)]
        assert b.executor.offer(offered) == offered[:HANDS]
        while b.hands.inside < HANDS:  # noqa: ASYNC110 -- threads change it
            await asyncio.sleep(0.005)
        assert b.executor.offer(offered) == []  # those under way, and those there is no room for
        assert await b.outcome(Pull("other", "sha256:2")) == "sha256:2"
        b.hands.gate.set()
        await b.until(lambda: len(b.over) == HANDS + 1)
        assert b.hands.most == HANDS
        assert b.executor.offer(offered[HANDS:]) == offered[HANDS:]
        await b.until(lambda: len(b.over) == HANDS + 6)
    assert len(b.docker.containers) == HANDS + 5


async def test_of_one_allocation_one_action_at_a_time() -> None:
    async with bench() as b:
        b.hands.gate.clear()
        first = run()
        assert b.executor.offer([first, Kill("shop/web.1.1", "c1"), run("shop/web.2.2")])[0] is first
        assert b.executor.offer([Kill("shop/web.1.1", "c1")]) == []
        b.hands.gate.set()
        await b.until(lambda: len(b.over) == 2)


async def test_pulls_are_bounded_and_can_be_let_go_of() -> None:
    async with bench() as b:
        b.images.gate.clear()
        pulls = [Pull(f"a{n}", f"sha256:{n}") for n in range(PULLS + 1)]
        assert b.executor.offer(pulls) == pulls[:PULLS]
        assert b.executor.offer([Cancel("a0")]) == []
        await b.until(lambda: len(b.over) == 1)
        assert b.over == [(pulls[0], None)]
        assert b.executor.offer([pulls[PULLS]]) == [pulls[PULLS]]


async def test_a_pull_that_is_let_go_of_before_it_has_begun_is_over_too() -> None:
    async with bench() as b:
        b.images.gate.clear()
        pull = Pull("a", "sha256:2")
        assert b.executor.offer([pull, Cancel("a")]) == [pull]
        await b.until(lambda: bool(b.over))
        assert b.over == [(pull, None)]


async def test_only_pulls_are_let_go_of() -> None:
    async with bench() as b:
        b.hands.gate.clear()
        b.executor.offer([run()])
        b.executor.offer([Cancel("shop/web.1.1"), Cancel("nobody")])
        b.hands.gate.set()
        await b.until(lambda: bool(b.over))
        assert b.over[0][1] == "c1"


async def hanging(tasks: asyncio.TaskGroup) -> Bench:
    b = Bench(tasks)
    b.hands.gate.clear()
    b.executor.offer([run()])
    while not b.hands.inside:  # noqa: ASYNC110 -- a thread changes it
        await asyncio.sleep(0.005)
    return b


async def test_who_stops_does_not_wait_for_a_docker_that_hangs() -> None:
    made: list[Bench] = []

    async def stopped() -> None:
        async with asyncio.TaskGroup() as tasks:
            made.append(await hanging(tasks))
            raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        await stopped()
    assert made[0].hands.inside == 1
    assert {thread.daemon for thread in threading.enumerate() if thread.name == "docker hand"} == {True}
    assert [outcome for _, outcome in made[0].over] == [None]
    made[0].hands.gate.set()


async def test_what_nobody_expects_ends_the_group() -> None:
    made: list[Bench] = []

    def fault(action: Action) -> str:
        raise ZeroDivisionError

    async def broken() -> None:
        async with bench() as b:
            made.append(b)
            b.hands.fault = fault
            b.executor.offer([run()])
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        await broken()
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
    assert made[0].over == []


async def test_files_of_several_sorts_are_all_laid_or_none_is_started() -> None:
    secrets, names = FakeFiles(), FakeFiles()
    both = AllFiles(secrets, names)
    await both.lay_ready("shop/web.1.1")
    assert secrets.ready == names.ready == {"shop/web.1.1"}
    await both.take_away("shop/web.1.1")
    assert secrets.ready == names.ready == set()
    names.refuses = LayerDown("not now")
    with pytest.raises(LayerDown):
        await both.lay_ready("shop/web.1.1")


async def test_before_a_container_is_removed_somebody_may_read_it() -> None:
    async with asyncio.TaskGroup() as tasks:
        hands, over = FakeHands(), asyncio.Queue[Outcome]()
        seen: list[tuple[str, bool]] = []

        async def read(container: str) -> None:
            seen.append((container, container in hands.docker.containers))

        made = Executor(tasks, lambda: hands, FakeImages(hands.docker), FakeFiles(), lambda _, came: over.put_nowait(came), None, read)
        for action in (run(), Kill("shop/web.1.1", "c1"), Remove("shop/web.1.1", "c1")):
            made.offer([action])
            async with asyncio.timeout(20):
                await over.get()
        hands.gate.set()
    assert seen == [("c1", True)]
    assert not hands.docker.containers
