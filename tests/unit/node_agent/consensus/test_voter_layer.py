"""What a control node's layer lets into the log, with a log that is only remembered."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from hmcore.apps.records import Allocation
from hmcore.config.agent import AgentConfig, Voter
from hmcore.config.presets import settings_for
from hmcore.errors import LevelTooLow, NoQuorum, NotLeader, StorageFull
from hmcore.records import Cluster, Node, Role
from node_agent.consensus.layer import VoterLayer
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.commands import Noop, PutKey, encode
from node_agent.consensus.statemachine.state import State

PUT = encode(PutKey(key="k", value=b"1"))


def at(level: int) -> State:
    return State(cluster=Cluster(id="hm-a", bootstrap="b1", feature_level=level))


class Raft:
    """Leads, and has carried out nothing yet; with the barrier comes `then`, or what is raised."""

    def __init__(self, then: State | Exception) -> None:
        self.state, self.caught_up = State(), False
        self.then = then
        self.proposed: list[bytes] = []
        self.barriers = 0

    async def barrier(self, timeout: float) -> int:
        self.barriers += 1
        if isinstance(self.then, Exception):
            raise self.then
        self.state, self.caught_up = self.then, True
        return 7

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str) -> tuple[int, bytes]:
        self.proposed.append(command)
        if isinstance(self.then, Exception):
            raise self.then
        return 8, b""


def layer(raft: Raft) -> VoterLayer:
    config = AgentConfig(
        cluster_id="hm-abc123defg",
        cluster_name="test",
        bootstrap="b1",
        node="n1",
        role=Role.CONTROL,
        address="198.18.0.1",
        port=7443,
        voters=(Voter(name="n1", address="198.18.0.1", port=7443),),
        preset="balanced",
        settings=settings_for("balanced"),
        data_dir=Path("/nonexistent"),
    )
    return VoterLayer(config, raft, lambda name: None, lambda: None)  # type: ignore[arg-type, return-value]


async def propose(raft: Raft, command: bytes = PUT) -> None:
    await layer(raft).propose(command, request_id="r", timeout=1.0)


async def test_a_leader_that_has_just_started_asks_what_the_level_is_before_it_says_that_it_is_too_low():
    raft = Raft(at(levels.TRUSTED))
    await propose(raft)
    assert (raft.proposed, raft.barriers) == ([PUT], 1)


async def test_a_level_that_is_too_low_is_told_and_nothing_reaches_the_log():
    raft = Raft(at(levels.BASE))
    for _ in range(2):
        with pytest.raises(LevelTooLow):
            await propose(raft)
    assert (raft.proposed, raft.barriers) == ([], 1), "once caught up, it knows"


async def test_who_does_not_lead_any_more_says_that_rather_than_that_the_level_is_too_low():
    raft = Raft(NotLeader("n2 does", leader="n2"))
    with pytest.raises(NotLeader):
        await propose(raft)
    assert raft.proposed == []


async def test_what_every_level_knows_waits_for_nobody():
    raft = Raft(at(levels.BASE))
    await propose(raft, encode(Noop()))
    assert (len(raft.proposed), raft.barriers) == (1, 0)


async def test_whoever_asks_a_leader_whose_disk_is_full_shall_ask_again_for_another_will_lead():
    raft = Raft(StorageFull("no room to write journal", fix="make room"))
    with pytest.raises(NoQuorum, match="n1 has stepped down: no room to write journal") as caught:
        await propose(raft, encode(Noop()))
    assert (caught.value.host, caught.value.fix) == ("n1", "make room")
    with pytest.raises(NoQuorum):
        await layer(raft).barrier(1.0)


class Held(Raft):
    """Opens, and has what its disk had; `settled`: that is what the cluster agreed on."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.state, self.settled = state, False

    async def open(self) -> None:
        return None

    async def stop(self) -> None:
        return None


def allocated() -> State:
    nodes = {name: Node(name=name, address="198.18.0.1", port=7443, role=Role.CONTROL, release="r1") for name in ("n1", "n10")}
    made = [
        Allocation(id=f"shop/web.{slot}.{slot}", app="shop", service="web", slot=slot, node=node, generation=1, revision="r1")
        for slot, node in ((1, "n1"), (2, "n10"))
    ]
    return State(cluster=Cluster(id="hm-a", bootstrap="b1"), nodes=nodes, allocations={each.key: each for each in made})


async def test_what_shall_run_here_is_not_known_before_all_is_that_was_known_before():
    raft = Held(allocated())
    voter = layer(raft)
    assert voter.allocations is None
    await voter.initialize()
    assert voter.allocations is None, "what was stopped long ago must not begin again"
    raft.settled = True
    known = voter.allocations
    assert known is not None
    assert list(known) == ["shop/web.1.1"], "only its own"
    raft.settled = False
    assert voter.allocations == known, "a node that has lost its leader knows all the same what shall run here"
    await voter.stop()
    assert voter.allocations is None
    await voter.initialize()
    assert voter.allocations is None, "it was down: others may have gone on"


async def test_a_node_that_begins_with_an_empty_disk_knows_nothing():
    raft = Held(allocated())
    voter = layer(raft)
    await voter.initialize()
    raft.settled = True
    assert voter.allocations
    await voter.reseed(5)
    raft.settled = False
    assert voter.allocations is None


async def test_who_is_no_member_takes_nothing_for_unwanted():
    raft = Held(replace(allocated(), nodes={}))
    voter = layer(raft)
    await voter.initialize()
    raft.settled = True
    assert voter.allocations is None
