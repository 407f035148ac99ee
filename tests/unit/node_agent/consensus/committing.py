"""Commands, committed one after the other: what the state is then. For tests of what commands do."""

from __future__ import annotations

from hmcore.records import Node, Role
from node_agent.consensus.statemachine.commands import Command, Proposal, PutNode, Refused, Result, decode_result, encode, encode_batch
from node_agent.consensus.statemachine.machine import apply_batch, restore, snapshot
from node_agent.consensus.statemachine.state import State, digest

AUTHOR = "operator/ann"
WHEN = 1.5  # seconds since 1970, by the proposer's clock


def run(state: State, *commands: Command) -> tuple[State, Result]:
    """The state after the commands, one log entry each, and what came of the last."""
    result: Result = Refused("nothing was asked")
    for command in commands:
        index = state.index + 1
        state, receipts, _ = apply_batch(state, encode_batch([Proposal(f"r{index}", encode(command), WHEN, AUTHOR)]), index)
        result = decode_result(receipts[0].result)
        assert not state.digest or state.digest == digest(state)
        assert restore(snapshot(state)) == state
    return state, result


def node(name: str, role: Role = Role.CONTROL) -> PutNode:
    return PutNode(node=Node(name=name, address="198.18.0.9", port=7443, role=role, release="r1"))
