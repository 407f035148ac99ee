"""Linearizable answers from any node: ask the leader, catch up, answer; or say why not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from hmcore.errors import CallRefused, CallTimeout, HyperMeshError, NoQuorum, NotLeader, TransferFailed
from node_agent.consensus.leading.handover import Handed
from node_agent.platform.consistency import HAND_OVER, Consistency


class View:
    def __init__(self, leader: str | None, index: int = 5) -> None:
        self.leader = leader
        self.index = index
        self.no_quorum: NoQuorum | None = None


class Voice:
    """A control node that leads, or says who does."""

    def __init__(self, said: int | HyperMeshError, handed: Handed | HyperMeshError | None = None) -> None:
        self.said = said
        self.handed = handed
        self.is_leader = isinstance(said, int)
        self.asked: list[object] = []

    async def barrier(self, timeout: float) -> int:
        if isinstance(self.said, HyperMeshError):
            raise self.said
        return self.said

    async def transfer(self, to: str | None, timeout: float) -> Handed:
        self.asked.append((to, timeout))
        if isinstance(self.handed, Handed):
            return self.handed
        raise self.handed or AssertionError("nobody hands over")


class Others:
    """What the other nodes answer, in turn."""

    def __init__(self, *answers: int | HyperMeshError) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def ask(self, name: str, timeout: float) -> int:
        self.asked.append(name)
        answer = self.answers.pop(0)
        if isinstance(answer, HyperMeshError):
            raise answer
        return answer


def made(view: View, voice: Voice | None = None, others: Others | None = None, *, timeout: float = 5.0) -> Consistency:
    return Consistency("n1", view, voice, (others or Others()).ask, timeout=timeout)  # type: ignore[arg-type]


async def test_the_leader_asks_itself():
    consistency = made(View("n1"), Voice(5))
    await consistency.wait()
    assert await consistency.barrier() == 5


async def test_a_follower_asks_the_leader_and_waits_until_its_own_copy_is_as_far():
    view, others = View("n2"), Others(7)
    consistency = made(view, Voice(NotLeader("n1 does not lead")), others)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(consistency.wait())
        for index in (5, 6):
            view.index = index
            consistency.state_changed()
            await turns(5)
            assert not waiting.done()
        view.index = 7
        consistency.state_changed()
    assert others.asked == ["n2"]


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_worker_asks_too_and_is_never_asked():
    view, others = View("n2", index=9), Others(9)
    consistency = made(view, None, others)
    await consistency.wait()
    for call in (consistency.barrier(), consistency.transfer("")):
        with pytest.raises(NotLeader) as caught:
            await call
        assert caught.value.leader == "n2"


async def test_who_does_not_lead_any_more_may_name_another_who_is_asked_once():
    others = Others(NotLeader("n3 does", leader="n3"), 5)
    await made(View("n2"), None, others).wait()
    assert others.asked == ["n2", "n3"]
    others = Others(NotLeader("n3 does", leader="n3"), NotLeader("n2 does", leader="n2"), 5)
    with pytest.raises(NoQuorum, match="no leader at the moment"):
        await made(View("n2"), None, others).wait()
    assert others.asked == ["n2", "n3"]


async def test_a_follower_that_is_named_itself_asks_itself():
    others = Others(NotLeader("n1 does", leader="n1"))
    await made(View("n2"), Voice(5), others).wait()
    assert others.asked == ["n2"]


@pytest.mark.parametrize(
    ("view", "others", "words"),
    [
        (lambda: View(None), Others(), "no leader at the moment"),
        (lambda: lasting(View(None)), Others(), "no quorum: 1 of 3 voters reachable"),
        (lambda: View("n2"), Others(NoQuorum("no quorum: 1 of 3 voters reachable")), "no quorum: 1 of 3 voters reachable"),
        (lambda: View("n2"), Others(CallTimeout("no answer within 4 s")), "n2, who led last, does not answer: no answer within 4 s"),
        (lambda: View("n2"), Others(NotLeader("nobody is known to", leader=None)), "no leader at the moment"),
    ],
)
async def test_nobody_answers_from_what_may_be_old(view: Callable[[], View], others, words):
    with pytest.raises(NoQuorum, match=words):
        await made(view(), None, others).wait()


def lasting(view: View) -> View:
    view.no_quorum = NoQuorum("no quorum: 1 of 3 voters reachable")
    return view


async def test_a_copy_that_does_not_catch_up_is_no_answer():
    with pytest.raises(CallRefused, match="has the log up to 5 only; what is true now needs 9"):
        await made(View("n2"), None, Others(9), timeout=0.05).wait()


async def test_before_a_stop_the_leader_hands_over_and_a_follower_does_nothing(caplog):
    caplog.set_level(logging.INFO)
    voice = Voice(5, Handed("n2", 4, 0.12))
    await made(View("n1"), voice).hand_over()
    assert voice.asked == [(None, HAND_OVER)]
    assert "n2 leads now, in term 4; handed over in 0.12 s" in caplog.text
    voice = Voice(NotLeader("n2 leads"))
    await made(View("n2"), voice).hand_over()
    await made(View("n2"), None).hand_over()
    assert voice.asked == []


async def test_a_stop_goes_on_when_nobody_takes_over(caplog):
    voice = Voice(5, TransferFailed("n2 did not take over within 0.9 s; n1 goes on leading"))
    await made(View("n1"), voice).hand_over()
    assert "stopping though nobody has taken over: n2 did not take over" in caplog.text


async def test_a_worker_has_itself_told_what_it_would_hear_of_later():
    view = View("n2")

    async def reach(index: int, timeout: float) -> None:
        assert timeout > 0
        view.index = index

    await Consistency("n1", view, None, Others(9).ask, timeout=0.05, reach=reach).wait()  # type: ignore[arg-type]
    assert view.index == 9
