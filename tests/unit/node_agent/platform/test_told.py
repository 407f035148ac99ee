"""What a node tells of itself is written down where the leader is, each thing once."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hmcore.api import InstancesReply
from hmcore.apps.calls import TellRequest
from hmcore.apps.records import AllocationStatus, Machine, Phase
from hmcore.errors import InvalidRequest, NoQuorum, NotLeader
from hmcore.records import Instance, Node, Role
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.appcommands import PutStatuses
from node_agent.consensus.statemachine.commands import FormCluster, PutInstances, PutNode, decode, encode
from node_agent.consensus.statemachine.machine import Proposal, apply_batch, encode_batch
from node_agent.consensus.statemachine.state import State
from node_agent.orchestration.candidates import homes
from node_agent.platform.told import Told

RUNS = AllocationStatus(id="shop/web.1.1", phase=Phase.RUNNING)


class Log:
    """Takes what is proposed into its state; `fails`: nothing."""

    def __init__(self) -> None:
        self.state = State()
        self.is_leader, self.leader = True, "node1"
        self.fails: Exception | None = None
        self.proposed: list[tuple[str, object]] = []
        for command in (
            FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST),
            PutNode(node=Node(name="node2", address="198.18.0.9", port=7443, role=Role.WORKER, release="r1")),
        ):
            self._apply(encode(command), command.__class__.__name__)
        self.told = Told(self, lambda: self.state, timeout=1.0, request_prefix=lambda: "node1-7")  # type: ignore[arg-type]

    def _apply(self, command: bytes, request: str) -> tuple[int, bytes]:
        index = self.state.index + 1
        self.state, receipts, _ = apply_batch(self.state, encode_batch([Proposal(request, command)]), index)
        return index, receipts[0].result

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        if self.fails is not None:
            raise self.fails
        self.proposed.append((request_id, decode(command)))
        return self._apply(command, request_id)


def request(*, incarnation: int = 3, revision: int | None = None, machine: Machine | None = None) -> TellRequest:
    made = Instance(id="node2/web", service="shop/web", node="node2", address="10.1.0.9")
    instances = None if revision is None else InstancesReply(revision=revision, incarnation=incarnation, instances=[made])
    return TellRequest(incarnation=incarnation, allocations=(RUNS,), machine=machine, instances=instances)


async def test_all_of_it_is_recorded_at_once():
    log = Log()
    reply = await log.told.tell(request(revision=5, machine=Machine(node="node2", cpus=1000)), "node2")
    assert (reply.changed, reply.index) == (True, log.state.index)
    assert log.state.statuses["node2/"].allocations == (RUNS,)
    assert log.state.machines["node2"].cpus == 1000
    assert (log.state.registrations["node2"].revision, len(log.state.registrations["node2"].instances)) == (5, 1)


async def test_what_a_node_has_is_not_forgotten_while_its_docker_does_not_answer():
    """Else a volume would have no home while its node boots, and begin anew elsewhere."""
    log = Log()
    has = Machine(node="node2", cpus=1000, engine=True, volumes=("shop_data",))
    await log.told.tell(request(machine=has), "node2")
    await log.told.tell(request(incarnation=4, machine=Machine(node="node2", apps=False)), "node2")
    known = log.state.machines["node2"]
    assert known == replace(has, engine=False, apps=False, index=known.index)
    assert homes(log.state) == {"shop_data": "node2"}
    await log.told.tell(request(incarnation=4, machine=Machine(node="node2", engine=True)), "node2")
    assert homes(log.state) == {}


async def test_instances_that_are_known_already_are_not_written_again():
    """Heartbeats bring them, too: whoever comes first."""
    log = Log()
    await log.told.tell(request(revision=5), "node2")
    log.proposed.clear()
    reply = await log.told.tell(request(revision=5), "node2")
    assert [type(command) for _, command in log.proposed] == [PutStatuses]
    assert not reply.changed
    await log.told.tell(request(revision=6), "node2")
    assert [type(command) for _, command in log.proposed[1:]] == [PutStatuses, PutInstances]


async def test_every_telling_is_a_request_of_its_own():
    """Or the log would take the second for the first, carried out already."""
    log = Log()
    for revision in (5, 6):
        await log.told.tell(request(revision=revision), "node2")
    ids = [id for id, _ in log.proposed]
    assert len(set(ids)) == len(ids) == 4
    assert all(id.startswith("node1-7-") for id in ids)


async def test_only_the_leader_writes_and_names_who_leads():
    log = Log()
    log.is_leader, log.leader = False, "node3"
    with pytest.raises(NotLeader) as caught:
        await log.told.tell(request(), "node2")
    assert (caught.value.leader, log.proposed) == ("node3", [])


async def test_who_is_no_member_is_told_so():
    log = Log()
    with pytest.raises(InvalidRequest, match="no node node9"):
        await log.told.tell(request(), "node9")
    assert log.proposed == []


async def test_an_earlier_start_of_the_agent_is_told_that_it_is_one():
    log = Log()
    await log.told.tell(request(incarnation=4), "node2")
    with pytest.raises(InvalidRequest, match="has started again since"):
        await log.told.tell(request(incarnation=3), "node2")


async def test_that_nothing_can_be_decided_is_told_to_whoever_told_us():
    log = Log()
    log.fails = NoQuorum("no quorum")
    with pytest.raises(NoQuorum):
        await log.told.tell(request(), "node2")
