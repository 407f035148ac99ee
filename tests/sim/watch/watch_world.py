"""Control nodes that carry out one log, each at its own pace, with histories that hold next to nothing; and those who follow them.

Nodes crash and come back from a snapshot of long ago, or install a newer one; questions and answers get lost, or come late. In virtual
time; all chance comes from the seed.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from hmcore.errors import ConnectionLost, HyperMeshError
from hmcore.records import Instance, Node, NodeState, Role
from hmcore.watch import Change, TablesReply, TablesRequest, WatchReply, WatchRequest
from node_agent.consensus.statemachine.commands import (
    Command,
    DeleteKey,
    FormCluster,
    MuteCheck,
    Noop,
    Proposal,
    PutInstances,
    PutKey,
    PutNode,
    RemoveNode,
    SetMaintenance,
    SetNodeState,
    encode,
    encode_batch,
)
from node_agent.consensus.statemachine.history import History
from node_agent.consensus.statemachine.machine import apply_batch
from node_agent.consensus.statemachine.state import State
from node_agent.platform.watches import Watches

T = TypeVar("T")

FORM = encode_batch([Proposal("form", encode(FormCluster(id="hm-sim", bootstrap="b1", level=2)))])


class Violation(AssertionError):
    pass


class Log:
    """The truth: the state at each index, and what the entry there changed."""

    def __init__(self) -> None:
        self.states: dict[int, State] = {0: State()}
        self.changes: dict[int, list[Change]] = {}
        self.batches: dict[int, bytes] = {}
        self.last = 0

    def append(self, batch: bytes, gap: int = 1) -> None:
        before, self.last = self.states[self.last], self.last + gap
        outcome = apply_batch(before, batch, self.last)
        self.states[self.last], self.changes[self.last], self.batches[self.last] = outcome.state, outcome.changes, batch

    def after(self, index: int) -> int | None:
        return next((each for each in self.batches if each > index), None)

    def at(self, index: int) -> State:
        """As of an index, which need not be that of an entry of ours."""
        return self.states[max(each for each in self.states if each <= index)]


class Control:
    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.state = State()
        self.history = world.history()
        self.leader: str | None = "n0"
        self.watches = Watches(
            name, state=lambda: (self.state, self.history), leader=lambda: (self.leader, 1), clock=world.clock, portion=world.portion
        )

    def step(self) -> None:
        """Carry out the next entry, if there is one."""
        index = self.world.log.after(self.state.index)
        if index is not None:
            outcome = apply_batch(self.state, self.world.log.batches[index], index)
            self.state = outcome.state
            self.history.add(index, outcome.changes)
            self.watches.applied()

    def install(self, index: int) -> None:
        self.state = self.world.log.states[index]
        self.history.restart(index)
        self.watches.applied()

    def restart(self) -> None:
        """From a snapshot of some time ago, whose followers' questions died with it."""
        self.history = self.world.history()
        self.install(self.world.rnd.choice([index for index in self.world.log.states if index <= self.state.index]))


class World:
    def __init__(self, seed: int, *, seconds: float = 25.0) -> None:
        self.rnd = random.Random(seed)
        self.seconds = seconds
        self.log = Log()
        self.log.append(FORM)
        self.most, self.size = self.rnd.choice([(4, 1 << 20), (12, 1 << 20), (40, 1 << 20), (1000, 3000)])
        self.portion = self.rnd.choice([1, 200, 1 << 20])
        self.seen: Counter[str] = Counter()
        self.nodes = {name: Control(self, name) for name in ("n0", "n1", "n2")}
        self.faulty = True
        self._count = 0

    def history(self) -> History:
        return History(changes=self.most, size=self.size)

    def clock(self) -> float:
        return asyncio.get_running_loop().time()

    # --- what happens

    async def live(self) -> None:
        """Write, apply and go wrong for a while; then without faults, until everybody has everything."""
        end = self.clock() + self.seconds
        while self.clock() < end:
            await asyncio.sleep(self.rnd.choice((0.001, 0.01, 0.05, 0.4)))
            for _ in range(self.rnd.choice((0, 1, 1, 2, 15))):
                self.log.append(self.batch(), self.rnd.choice((1, 1, 1, 3)))
            for node in self.nodes.values():
                for _ in range(self.rnd.choice((0, 1, 3, 20))):
                    node.step()
            if self.rnd.random() < 0.05:
                self.fault(self.rnd.choice(list(self.nodes.values())))
        self.faulty = False
        for node in self.nodes.values():
            node.alive, node.leader = True, "n0"
            node.watches.leader_changed()
            while self.log.after(node.state.index) is not None:
                node.step()

    def fault(self, node: Control) -> None:
        match self.rnd.randint(0, 4):
            case 0:
                node.alive = not node.alive
            case 1:
                node.restart()
            case 2:
                node.install(self.rnd.choice([index for index in self.log.states if index >= node.state.index]))
            case 3:
                self.log.append(encode_batch([Proposal("noop", encode(Noop()))]))
            case 4:
                node.leader = self.rnd.choice(("n0", "n1", None))
                node.watches.leader_changed()

    def batch(self) -> bytes:
        commands = [self.command() for _ in range(self.rnd.choice((1, 1, 3)))]
        return encode_batch([Proposal(f"c{self._next()}", encode(command)) for command in commands])

    def _next(self) -> int:
        self._count += 1
        return self._count

    def command(self) -> Command:
        rnd, number = self.rnd, self._next()
        name, key = f"w{rnd.randint(0, 2)}", f"{rnd.choice(('app', 'sys'))}/{rnd.randint(0, 3)}"
        match rnd.randint(0, 9):
            case 0 | 1:
                return PutNode(node=Node(name=name, address="198.18.0.9", port=7443, role=Role.WORKER, release=f"r{number}"))
            case 2:
                return SetNodeState(name=name, state=rnd.choice((NodeState.READY, NodeState.DOWN)), reason=f"{number}")
            case 3:
                return RemoveNode(name=name)
            case 4:
                made = Instance(id=f"{name}/web", service="web", node=name, address="198.18.0.9", version=f"{number}")
                return PutInstances(node=name, incarnation=0, revision=number, instances=(made,))
            case 5:
                return SetMaintenance(target=f"{name}/", on=rnd.random() < 0.5, reason=f"{number}")
            case 6:
                return MuteCheck(check="disk", node=name, on=rnd.random() < 0.5, reason=f"{number}")
            case 7:
                return DeleteKey(key=key)
            case _:
                return PutKey(key=key, value=b"%d" % number)

    # --- what followers do

    async def watch(self, name: str, request: WatchRequest) -> WatchReply:
        return await self._ask(name, lambda node: node.watches.watch(request))

    async def tables(self, name: str, request: TablesRequest) -> TablesReply:
        return await self._ask(name, lambda node: node.watches.tables(request))

    async def anybody_watched(self, request: WatchRequest, names: Sequence[str]) -> WatchReply:
        return await self.watch(self.rnd.choice(list(self.nodes)), request)

    async def anybodys_tables(self, request: TablesRequest, names: Sequence[str]) -> TablesReply:
        sticks = [name for name, node in self.nodes.items() if request.index >= 0 and node.watches._held]
        return await self.tables(self.rnd.choice(sticks or list(self.nodes)), request)

    async def _ask(self, name: str, answer: Any) -> Any:
        node = self.nodes[name]
        await asyncio.sleep(self.rnd.choice((0.0002, 0.002, 0.05)))
        if not node.alive:
            raise ConnectionLost("it is down", host=name)
        reply = await answer(node)
        await asyncio.sleep(self.rnd.choice((0.0002, 0.002, 0.5 if self.faulty else 0.002)))
        if self.faulty and (not node.alive or self.rnd.random() < 0.05):
            self.seen["answer lost"] += 1
            raise ConnectionLost("the answer was lost", host=name)
        return reply


def records(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {table: dict(each) for table, each in tables.items()}


async def patiently(question: Any, seen: Counter[str]) -> Any:
    """What came of it; None when it failed as questions may."""
    try:
        return await question
    except HyperMeshError as error:
        seen[type(error).__name__] += 1
        await asyncio.sleep(0.05)
        return None
