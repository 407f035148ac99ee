"""What not all members would understand does not even reach the log: the leader's own node refuses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmcore.errors import LevelTooLow
from node_agent.consensus.layer import VoterLayer
from node_agent.consensus.statemachine.commands import FormCluster, MuteCheck, PutKey, encode
from node_agent.consensus.statemachine.machine import Entry, State, apply


class Config:
    data_dir = Path("/nonexistent")
    node = "node1"


class Raft:
    caught_up = True

    def __init__(self, level: int) -> None:
        self.state, _ = apply(State(), encode(FormCluster(id="hm-a", bootstrap="b1", level=level)), Entry(1))
        self.proposed: list[bytes] = []

    async def propose(self, command: bytes, **named: object) -> tuple[int, bytes]:
        self.proposed.append(command)
        return 2, b""


async def proposed(level: int, command: bytes) -> list[bytes]:
    raft = Raft(level)
    layer = VoterLayer(Config(), raft, lambda name: None, lambda: None)  # type: ignore[arg-type,return-value]
    await layer.propose(command, request_id="r1", timeout=1.0)
    return raft.proposed


async def test_a_command_above_the_level_is_refused_with_what_raises_it():
    with pytest.raises(LevelTooLow, match="put-key needs feature level 2, the cluster is at 1") as refused:
        await proposed(1, encode(PutKey(key="a", value=b"1")))
    assert refused.value.fix == "hmctl deploy"


@pytest.mark.parametrize(("level", "command"), [(2, PutKey(key="a", value=b"1")), (1, MuteCheck(check="disk"))])
async def test_what_all_understand_is_proposed(level, command):
    assert await proposed(level, encode(command)) == [encode(command)]
