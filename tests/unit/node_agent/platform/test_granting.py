"""Leases for exclusive replicas, where the leader grants them: what is noted, confirmed and written, and in which order."""

from __future__ import annotations

import pytest

from hmcore.apps.calls import LeaseReply, LeaseRequest
from hmcore.errors import InvalidRequest, NoQuorum, NotLeader
from node_agent.consensus.statemachine.appcommands import AdmitNode
from node_agent.consensus.statemachine.commands import Applied, Refused, Result, decode, encode_result
from node_agent.platform.granting import Granter, latest


class Log:
    def __init__(self) -> None:
        self.nodes = {"node2": object()}
        self.leader: str | None = "node1"
        self.leads_in: int | None = 3
        self.told: list[object] = []
        self.result: Result = Applied()
        self.now = 50.0
        self.deposed = False
        self.granter = Granter(
            self, barrier=self.barrier, lease=6.5, timeout=4.0, request_prefix=lambda: "node1-77", clock=lambda: self.now
        )

    async def barrier(self) -> int:
        self._ask("barrier")
        return 8

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        self._ask((decode(command), request_id))
        return 9, encode_result(self.result)

    def _ask(self, what: object) -> None:
        self.told.append((what, dict(self.granter.asked)))
        if self.deposed:
            self.leads_in, self.leader = None, "node3"


async def test_a_renewal_is_noted_first_and_then_confirmed_by_a_majority():
    log = Log()
    assert await log.granter.grant(LeaseRequest(), "node2") == LeaseReply(index=8, seconds=6.5)
    assert log.told == [("barrier", {"node2": 50.0})]


async def test_who_has_no_lease_is_admitted_by_the_log():
    log = Log()
    assert await log.granter.grant(LeaseRequest(anew=True), "node2") == LeaseReply(index=9, seconds=6.5)
    assert log.told == [((AdmitNode(node="node2"), "node1-77-admit-node2:1"), {"node2": 50.0})]


@pytest.mark.parametrize("anew", [True, False])
async def test_a_leader_that_was_replaced_meanwhile_grants_nothing(anew):
    log = Log()
    log.deposed = True
    with pytest.raises(NotLeader) as refused:
        await log.granter.grant(LeaseRequest(anew=anew), "node2")
    assert refused.value.leader == "node3"


async def test_who_does_not_lead_and_who_is_no_member_is_refused():
    log = Log()
    with pytest.raises(InvalidRequest, match="there is no node node9"):
        await log.granter.grant(LeaseRequest(), "node9")
    log.result = Refused("there is no node node2")
    with pytest.raises(InvalidRequest, match="node2"):
        await log.granter.grant(LeaseRequest(anew=True), "node2")
    log.leads_in = None
    with pytest.raises(NotLeader):
        await log.granter.grant(LeaseRequest(), "node2")
    assert list(log.granter.asked) == ["node2"]


async def test_without_a_quorum_nothing_is_granted():
    log = Log()

    async def unheard() -> int:
        raise NoQuorum("nobody confirms it")

    log.granter = Granter(log, barrier=unheard, lease=6.5, timeout=4.0, request_prefix=str, clock=lambda: 1.0)
    with pytest.raises(NoQuorum):
        await log.granter.grant(LeaseRequest(), "node2")


def test_a_node_is_silent_from_its_last_word_on_whichever_that_was():
    assert latest({"a": 1.0, "b": 5.0}, {"b": 4.0, "c": 3.0, "a": 2.0}) == {"a": 2.0, "b": 5.0, "c": 3.0}
