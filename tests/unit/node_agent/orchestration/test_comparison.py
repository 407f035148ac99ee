"""What a control node does with the hashes that it hears: sleeps while all agree, tells who does not, and cures itself step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest

from hmcore.errors import NoQuorum
from hmcore.records import Divergence, RaftReport
from node_agent.consensus.divergence.selfcure import ROUNDS
from node_agent.consensus.statemachine.checkpoints import Claim
from node_agent.consensus.statemachine.commands import Applied, NoteDivergence, decode, encode_result
from node_agent.orchestration.comparison import Comparison

BEAT = 0.5
MINE = "node3"
ODD = Divergence(node="node3", index=9, hash="!", agreed="y", others=["node1", "node2"])


class Voter:
    def __init__(self, hash_: str = "!", leader: str = "node1") -> None:
        self.told: dict[int, str] = {9: hash_}
        self.leader = leader
        self.since: float | None = None
        self.done: list[object] = []
        self.quorum = True

    hashes: Mapping[int, str] = property(lambda self: self.told)  # type: ignore[assignment]
    claims: tuple[Claim, ...] = property(lambda self: tuple(self.told.items())[-1:])  # type: ignore[assignment]
    is_leader: bool = property(lambda self: self.leader == MINE)  # type: ignore[assignment]
    since_reseeding: float | None = property(lambda self: self.since)  # type: ignore[assignment]

    def report(self) -> RaftReport:
        return RaftReport(role="follower", leader=self.leader, voters=["node1", "node2", "node3"], level=2)

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        if not self.quorum:
            raise NoQuorum("no quorum")
        self.done.append((request_id, decode(command)))
        return 10, encode_result(Applied())

    async def hand_over(self) -> None:
        self.done.append("handed over")
        self.leader = "node1"

    async def reseed(self, index: int) -> None:
        self.done.append(("re-seeded", index))
        self.told = {}


Hear = Callable[..., None]


@pytest.fixture
def play(virtual) -> Callable[..., None]:
    def run(voter: Voter, scenario: Callable[[Comparison, Hear], Awaitable[None]]) -> None:
        async def whole() -> None:
            loop = asyncio.get_running_loop()
            found = Comparison(MINE, voter, heartbeat=BEAT, silent_after=2.0, timeout=1.0, clock=loop.time)

            async def hear(rounds: int, **said: str) -> None:
                for _ in range(rounds):
                    for name, hash_ in said.items():
                        found.hear(name, ((9, hash_),), reseeding=False)
                    await asyncio.sleep(BEAT)

            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(found.run(), name="comparison")
                await scenario(found, hear)
                running.cancel()

        virtual(whole())

    return run


def test_an_odd_node_takes_the_others_state_after_some_heartbeats(play):
    voter = Voter()

    async def scenario(found: Comparison, hear: Hear) -> None:
        await hear(1, node1="y", node2="y", node3="!")
        assert (found.divergences, voter.done) == ([ODD], [])
        await hear(ROUNDS, node1="y", node2="y", node3="!")
        assert voter.done == [("re-seeded", 9)]
        await hear(3, node1="y", node2="y")
        assert found.divergences == [ODD], "not mended before its new state is told"
        voter.told = {9: "y"}
        await hear(2, node1="y", node2="y", node3="y")
        assert (found.divergences, len(voter.done)) == ([], 1)

    play(voter, scenario)


def test_a_leader_tells_it_once_hands_over_and_then_takes_the_others_state(play):
    voter = Voter(leader=MINE)

    async def scenario(found: Comparison, hear: Hear) -> None:
        await hear(ROUNDS + 2, node1="y", node2="y", node3="!")
        command = NoteDivergence(node="node3", index=9, others=("node1", "node2"))
        assert voter.done == [("diverged-node3-9", command), "handed over", ("re-seeded", 9)]

    play(voter, scenario)


def test_an_event_that_cannot_be_written_is_tried_again(play):
    voter = Voter(hash_="y", leader=MINE)
    voter.quorum = False

    async def scenario(found: Comparison, hear: Hear) -> None:
        await hear(2, node1="y", node2="!")
        voter.quorum = True
        await hear(4, node1="y", node2="!")
        assert [request for request, _ in voter.done] == ["diverged-node2-9"]

    play(voter, scenario)


def test_it_waits_for_who_cannot_be_heard_and_says_so(play):
    voter = Voter()

    async def scenario(found: Comparison, hear: Hear) -> None:
        await hear(1, node1="y", node2="y", node3="!")
        await asyncio.sleep(2.0)
        await hear(8, node1="y", node3="!")
        assert voter.done == []
        assert "node2 cannot be heard" in found.divergences[0].waits

    play(voter, scenario)


def test_what_comes_back_soon_after_is_left_to_people(play):
    voter = Voter()
    voter.since = 30.0

    async def scenario(found: Comparison, hear: Hear) -> None:
        await hear(ROUNDS + 3, node1="y", node2="y", node3="!")
        assert voter.done == []
        assert "only lately" in found.divergences[0].waits

    play(voter, scenario)


def test_a_split_is_told_only_if_it_lasts_and_nobody_is_cured(play):
    voter = Voter(hash_="z")

    async def scenario(found: Comparison, hear: Hear) -> None:
        await hear(1, node1="y")
        assert found.divergences == []
        await hear(ROUNDS, node1="y", node2="x", node3="z")
        assert [(said.node, said.waits) for said in found.divergences] == [("", "node2: x; node1: y; node3: z")]
        assert voter.done == []

    play(voter, scenario)


def test_while_all_agree_it_sleeps(play):
    voter = Voter(hash_="y")
    asked: list[int] = []
    report = voter.report
    voter.report = lambda: asked.append(1) or report()  # type: ignore[method-assign,func-returns-value]

    async def scenario(found: Comparison, hear: Hear) -> None:
        await hear(3, node1="y", node2="y", node3="y")
        before = len(asked)
        await hear(20, node1="y", node2="y", node3="y")
        assert len(asked) == before

    play(voter, scenario)
