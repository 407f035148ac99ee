"""One control node, as it is in the product: what is put is applied at once, and whoever watches it is told. For tests of who follows."""

from __future__ import annotations

import asyncio

from node_agent.consensus.statemachine.commands import Command, Proposal, encode, encode_batch
from node_agent.consensus.statemachine.history import History
from node_agent.consensus.statemachine.machine import apply_batch
from node_agent.consensus.statemachine.state import State
from node_agent.platform.watches import Watches


class ControlNode:
    """`leader`: whom it tells as such."""

    def __init__(self) -> None:
        self.state = State()
        self.history = History()
        self.leader: str | None = "node1"
        self.watches = Watches(
            "node1",
            state=lambda: (self.state, self.history),
            leader=lambda: (self.leader, 1),
            clock=lambda: asyncio.get_running_loop().time(),
        )

    def put(self, *commands: Command) -> int:
        """The log index of the last one."""
        for command in commands:
            index = self.state.index + 1
            outcome = apply_batch(self.state, encode_batch([Proposal(f"c{index}", encode(command))]), index)
            self.state = outcome.state
            self.history.add(index, outcome.changes)
            self.watches.applied()
        return self.state.index
