"""A replicated log that accepts everything at once: enough of the cluster for calls about images."""

from __future__ import annotations

from hmcore.errors import NoQuorum
from hmcore.records import Node, Role
from node_agent.consensus.statemachine import levels, receipts
from node_agent.consensus.statemachine.commands import FormCluster, Proposal, PutNode, Receipt, encode, encode_batch
from node_agent.consensus.statemachine.machine import apply_batch
from node_agent.consensus.statemachine.state import State


class Log:
    """`state` is what it comes to; node1 leads."""

    def __init__(self) -> None:
        self.state = State()
        self.is_leader = self.caught_up = True
        self.leader = "node1"
        self.no_quorum = None
        self.put(encode(FormCluster(id="hm-a", bootstrap="b1", level=levels.APPS)), "form")
        self.put(encode(PutNode(node=Node(name="node1", address="198.18.0.9", port=7443, role=Role.CONTROL, release="r1"))), "node")

    def put(self, command: bytes, request_id: str, author: str = "") -> Receipt:
        proposal = Proposal(request_id, command, 1.0, author)
        self.state, (receipt,), _ = apply_batch(self.state, encode_batch([proposal]), self.state.index + 1)
        return receipt

    def receipt(self, request_id: str) -> Receipt | None:
        return receipts.find(self.state, request_id)

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        receipt = self.put(command, request_id, author)
        return receipt.index, receipt.result

    async def barrier(self) -> None:
        if not self.is_leader:
            raise NoQuorum("no quorum: 1 of 3 voters reachable")
