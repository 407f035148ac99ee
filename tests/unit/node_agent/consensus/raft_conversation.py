"""One voter, n0, and the words of the others: whole exchanges without a network, on a clock that only the test moves."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TypeVar

from node_agent.consensus import codec
from node_agent.consensus.limits import Limits
from node_agent.consensus.log import entries
from node_agent.consensus.log.disk import Directory
from node_agent.consensus.log.entries import Entry
from node_agent.consensus.member import Member
from node_agent.consensus.protocol import messages
from node_agent.consensus.protocol.append_guard import Append
from node_agent.consensus.protocol.messages import Envelope, Message
from node_agent.consensus.rules import ALL, Protections
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.machine import Proposal

VOTERS = ("n0", "n1", "n2")
M = TypeVar("M", bound=Message)


class Timing:
    heartbeat = 0.1
    election_min = 0.5
    election_max = 1.0


class Conversation:
    """`say` puts words into another voter's mouth; `heard` is what n0 said to it since the last look."""

    def __init__(
        self, directory: Path, *, rules: Protections = ALL, limits: Limits | None = None, voters: tuple[str, ...] = VOTERS
    ) -> None:
        self.now = 100.0
        self.number = 0
        self.outbox: list[tuple[str, Envelope]] = []
        self.full = False
        self.member = Member(
            name="n0",
            voters=voters,
            disk=Directory(directory),
            timing=Timing(),
            links=self,
            clock=self.clock,
            rng=random.Random(1),
            wake=lambda: None,
            on_applied=lambda state: None,
            limits=limits or Limits(),
            protections=rules,
        )

    def clock(self) -> float:
        self.now += 1e-5
        return self.now

    def send(self, peer: str, payload: bytes) -> bool:
        if self.full:
            return False
        self.outbox.append((peer, messages.decode(payload)))
        return True

    # --- the test's moves

    def open(self, *, permitted: bool = True, connected: tuple[str, ...] = ("n1", "n2")) -> Conversation:
        self.member.open()
        for peer in connected:
            self.member.peer_up(peer)
        if permitted:
            self.member.permit("b1")
        return self

    def say(self, peer: str, message: Message, *, term: int = 0) -> None:
        self.number += 1
        self.member.receive(peer, messages.encode(Envelope(messages.VERSION, hash(peer) & 0xFFFF, 1, self.number, term, message)))

    def heard(self, kind: type[M], peer: str | None = None) -> list[M]:
        return [envelope.message for to, envelope in self.taken() if isinstance(envelope.message, kind) and peer in (None, to)]

    def taken(self) -> list[tuple[str, Envelope]]:
        taken, self.outbox = self.outbox, []
        return taken

    def pass_time(self, seconds: float) -> None:
        """Tick as often as the member wants to."""
        end = self.now + seconds
        while self.now < end:
            self.now = max(self.now, min(end, self.member.next_tick() + 0.001))
            self.member.tick()

    def lead(self) -> int:
        """Let n0 be elected; the term in which it leads."""
        for _ in range(50):
            if self.engine.leads:
                self.member.tick()  # its no-op to the disk
                self.taken()
                return self.engine.term
            self.pass_time(0.1)
            for peer, envelope in self.taken():
                match envelope.message:
                    case messages.PreVote(term=term):
                        self.say(peer, messages.PreVoteGranted(term))
                    case messages.RequestVote(term=term):
                        self.say(peer, messages.Vote(term), term=term)
        raise AssertionError("n0 was not elected")

    @property
    def engine(self):  # type: ignore[no-untyped-def]
        assert self.member.engine is not None
        return self.member.engine

    @property
    def log(self) -> list[tuple[int, int]]:
        return [(entry.index, entry.term) for entry in self.member.journal.entries]


def entry(index: int, term: int, *, word: str = "") -> Entry:
    """A batch with one no-op command, told apart by `word`."""
    batch = machine.encode_batch([Proposal(f"{index}-{term}-{word}", machine.encode(machine.Noop()))])
    return Entry(codec.REGULAR + codec.dumps((0, (batch,))), index, term)


def configuring(index: int, term: int, voters: tuple[str, ...], learners: tuple[str, ...] = ()) -> Entry:
    """A configuration entry."""
    change = machine.encode(machine.ChangeVoters(voters=voters, learners=learners))
    return Entry(entries.command(entries.RECONFIGURE, machine.encode_batch([Proposal(f"c{index}-{term}", change)])), index, term)


def append(term: int, previous: tuple[int, int], *entries: Entry, commit: int = 1) -> Append:
    return Append(term, commit, *previous, entries)
