"""A network in virtual time: one connection a pair, a FIFO stream each way. A blocked direction stalls, a broken connection loses what
is in flight, and the two ends notice at different times."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

Pair = tuple[str, str]


class Host(Protocol):
    """A member as the network sees it."""

    name: str
    incarnation: int  # counts its processes
    connections: dict[str, int]  # peer -> epoch of the connection that this end believes in

    @property
    def alive(self) -> bool: ...
    @property
    def responsive(self) -> bool: ...
    def peer_up(self, peer: str) -> None: ...
    def peer_down(self, peer: str) -> None: ...
    def receive(self, peer: str, payload: bytes) -> None: ...


class Scheduler(Protocol):
    now: float

    def after(self, delay: float, action: Callable[[], None]) -> None: ...


@dataclass(frozen=True)
class Habits:
    """`disorder`: some messages are delayed past others or doubled, also past the end of their connection, which STOQ never does."""

    delays: tuple[float, ...] = (0.001, 0.002, 0.005, 0.02)
    slow: float = 0.03  # share of messages that take up to 0.4 s
    congested: int = 60  # messages in flight from which on send refuses
    disorder: bool = False


@dataclass
class Network:
    world: Scheduler
    rnd: random.Random
    habits: Habits
    hosts: dict[str, Host] = field(default_factory=dict)
    blocked: set[Pair] = field(default_factory=set)
    epoch: int = 0
    _streams: dict[tuple[str, str, int], deque[tuple[float, bytes]]] = field(default_factory=dict)

    # --- messages

    def send(self, sender: str, receiver: str, payload: bytes, later: float = 0.0) -> bool:
        """`later`: seconds until the sender comes to it, busy as it is."""
        epoch = self.hosts[sender].connections.get(receiver)
        if epoch is None or not self.hosts[sender].alive:
            return False
        key = (sender, receiver, epoch)
        delay = self.rnd.choice(self.habits.delays) if self.rnd.random() >= self.habits.slow else self.rnd.uniform(0.05, 0.4)
        delay += later
        if self.habits.disorder:
            process = self.hosts[receiver].incarnation
            for _ in range(1 if self.rnd.random() > 0.05 else 2):
                late = delay + (self.rnd.uniform(0, 1.0) if self.rnd.random() < 0.1 else 0.0)
                self.world.after(late, lambda: self._deliver(sender, receiver, process, payload))
            return True
        stream = self._streams.setdefault(key, deque())
        if len(stream) >= self.habits.congested:
            return False
        stream.append((max(self.world.now + delay, stream[-1][0] if stream else 0.0), payload))
        if len(stream) == 1:
            self.world.after(stream[0][0] - self.world.now, lambda: self._pump(*key))
        return True

    def _pump(self, sender: str, receiver: str, epoch: int) -> None:
        stream = self._streams[sender, receiver, epoch]
        host = self.hosts[receiver]
        if not host.alive or host.connections.get(sender) != epoch:
            del self._streams[sender, receiver, epoch]
            return
        if (sender, receiver) in self.blocked or not host.responsive:
            self.world.after(0.03, lambda: self._pump(sender, receiver, epoch))
            return
        _, payload = stream.popleft()
        if stream:
            self.world.after(max(0.0, stream[0][0] - self.world.now), lambda: self._pump(sender, receiver, epoch))
        host.receive(sender, payload)

    def _deliver(self, sender: str, receiver: str, process: int, payload: bytes) -> None:
        """In disorder: whatever became of the connection, or of the sender. But no process hears what was sent to the one before it."""
        host = self.hosts[receiver]
        if host.alive and host.incarnation == process and (sender, receiver) not in self.blocked and host.responsive:
            host.receive(sender, payload)

    # --- connections

    def connect(self) -> None:
        """Every so often some of the pairs that are not connected get connected."""
        live = [host for host in self.hosts.values() if host.alive and host.responsive]
        for position, one in enumerate(live):
            for other in live[position + 1 :]:
                pair = (one.name, other.name)
                if pair in self.blocked or pair[::-1] in self.blocked or self.rnd.random() >= 0.4:
                    continue
                if not (other.name in one.connections and one.name in other.connections):
                    self._join(one, other)
        self.world.after(0.1, self.connect)

    def _join(self, one: Host, other: Host) -> None:
        self.epoch += 1
        for host, peer in ((one, other.name), (other, one.name)):
            if peer in host.connections:
                self._lose(host, peer, host.connections[peer])
        for host, peer in ((one, other.name), (other, one.name)):
            host.connections[peer] = self.epoch
        for host, peer in ((one, other.name), (other, one.name)):
            host.peer_up(peer)

    def sever(self, one: str, other: str, lag: float = 0.3) -> None:
        """Break the connection; either end notices within `lag` seconds."""
        for host, peer in ((self.hosts[one], other), (self.hosts[other], one)):
            epoch = host.connections.get(peer)
            if epoch is not None:
                self.world.after(self.rnd.uniform(0, lag), lambda host=host, peer=peer, epoch=epoch: self._lose(host, peer, epoch))  # type: ignore[misc]

    def _lose(self, host: Host, peer: str, epoch: int) -> None:
        if host.alive and host.connections.get(peer) == epoch:
            del host.connections[peer]
            host.peer_down(peer)

    def block(self, pairs: Iterable[Pair], seconds: float) -> None:
        cut = set(pairs)
        self.blocked |= cut
        self.world.after(seconds, lambda: self.blocked.difference_update(cut))
