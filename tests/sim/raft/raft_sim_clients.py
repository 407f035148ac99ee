"""Clients of the simulated cluster that keep to a few keys and write down what they asked and were told, for the linearizability checker.

Each has one call under way. A write is tried again under its id; who gets no answer at all goes on with something else, not knowing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from keys_model import Delete, Found, Get, Keys, Missing, Put, Refused, Unchanged, Wrote
from linearizability import Verdict, check
from recorded_history import History

from hmcore.errors import HyperMeshError
from hmcore.records import KeyValue
from node_agent.consensus.member import Member
from node_agent.consensus.statemachine import commands, levels
from node_agent.consensus.statemachine.commands import Proposal, Receipt
from node_agent.consensus.statemachine.state import State

if TYPE_CHECKING:
    from raft_sim_machine import Machine
    from raft_sim_world import World

KEYS = ("r0", "r1")
PATIENCE = 1.5  # seconds without an answer, after which a client tries elsewhere
TRIES = 4
PAUSES = (0.01, 0.05, 0.3)


class Clients:
    """Randomness of its own: the rest of the run draws the same with them as without."""

    def __init__(self, world: World, seed: int, count: int) -> None:
        self._world = world
        self._rnd = random.Random(seed)
        self._history = History()
        self._calls = 0
        self._changed = dict.fromkeys(KEYS, 0)  # as told to anyone last
        self.names = [f"client{number}" for number in range(count)]

    def start(self) -> None:
        for name in self.names:
            self._world.after(self._rnd.choice(PAUSES), lambda name=name: self._next(name))  # type: ignore[misc]

    def read_all(self, state: State) -> None:
        """Of the state that all members have in the end."""
        for key in KEYS:
            self._history.call(f"end-{key}", "end", Get(key), self._world.now)
            self._history.answer(f"end-{key}", found(state.keys.get(key)), self._world.now)

    def verdict(self) -> Verdict:
        """Of all that was said so far."""
        return check(Keys(), self._history.operations())

    @property
    def answered(self) -> int:
        return sum(operation.returned < float("inf") for operation in self._history.operations())

    def _next(self, client: str) -> None:
        if not self._world.faulty:
            return
        if not any(machine.member and machine.member.replica.state.level >= levels.TRUSTED for machine in self._world.machines.values()):
            self._world.after(0.1, lambda: self._next(client))  # before that, keys are refused
            return
        self._calls += 1
        request = self._request()
        self._history.call(f"k{self._calls}", client, request, self._world.now)
        self._try(client, f"k{self._calls}", request, 1)

    def _request(self) -> Put | Delete | Get:
        key, kind = self._rnd.choice(KEYS), self._rnd.random()
        expect = self._rnd.choice((self._changed[key], self._changed[key], 0))
        value = b"%d" % self._calls
        if kind < 0.45:
            return Get(key)
        if kind < 0.7:
            return Put(key, value)
        if kind < 0.9:
            return Put(key, value, expect)
        return Delete(key, self._rnd.choice((None, expect)))

    def _try(self, client: str, id: str, request: Put | Delete | Get, number: int) -> None:
        settled = False

        def settle(again: bool) -> None:
            nonlocal settled
            if settled:
                return
            settled = True
            pause = self._rnd.choice(PAUSES)
            if again and number < TRIES and not isinstance(request, Get):
                self._world.after(pause, lambda: self._try(client, id, request, number + 1))
            else:
                self._world.after(pause, lambda: self._next(client))

        def answer(answer: Found | Missing | Wrote | Unchanged | Refused) -> None:
            if not settled or not isinstance(request, Get):
                self._history.answer(id, answer, self._world.now)
                self._learn(request.key, answer)
            settle(again=False)

        machine = self._target()
        self._world.after(PATIENCE, lambda: settle(again=True))
        if machine is not None:
            ask = self._read if isinstance(request, Get) else self._write
            machine.step(lambda member: ask(member, machine, id, request, answer, lambda: settle(again=True)))

    def _write(
        self, member: Member, machine: Machine, id: str, request: Put | Delete, answer: Callable[..., None], failed: Callable[[], None]
    ) -> None:
        def done(outcome: Receipt | HyperMeshError) -> None:
            if isinstance(outcome, Receipt):
                self._world.checks.acknowledge(id, outcome)
                answer(_told(outcome))
            else:
                failed()

        match request:
            case Put(key, value, expect):
                command: commands.Command = commands.PutKey(key=key, value=value, expect=expect)
            case Delete(key, expect):
                command = commands.DeleteKey(key=key, expect=expect)
        member.propose(Proposal(id, commands.encode(command)), done)

    def _read(
        self, member: Member, machine: Machine, id: str, request: Get, answer: Callable[..., None], failed: Callable[[], None]
    ) -> None:
        def done(outcome: int | HyperMeshError) -> None:
            if isinstance(outcome, int):
                answer(found(member.replica.state.keys.get(request.key)))
            else:
                failed()

        member.barrier(done, timeout=PATIENCE)

    def _target(self) -> Machine | None:
        live = [machine for machine in self._world.machines.values() if machine.alive and machine.responsive]
        leaders = [machine for machine in live if machine.leads]
        if leaders and self._rnd.random() < 0.9:
            return self._rnd.choice(leaders)
        return self._rnd.choice(live) if live else None

    def _learn(self, key: str, answer: object) -> None:
        match answer:
            case Wrote(index) | Found(changed=index):
                self._changed[key] = index
            case Missing():
                self._changed[key] = 0


def _told(receipt: Receipt) -> Wrote | Unchanged | Refused:
    match commands.decode_result(receipt.result):
        case commands.Applied(changed=True, revision=revision):
            return Wrote(revision)
        case commands.Applied():
            return Unchanged()
        case commands.Refused():
            return Refused()


def found(item: KeyValue | None) -> Found | Missing:
    return Missing() if item is None else Found(item.value, item.created, item.changed)
