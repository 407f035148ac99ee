"""This node's heartbeat: one way, to every control node, so that whoever leads knows that we live and how we are."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from hmcore.api import Heartbeat
from hmcore.records import Node, Role

KIND = "heartbeat"  # the pool's kind of messages

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Myself:
    """What does not change while the agent runs."""

    name: str
    address: str
    port: int
    role: Role
    release: str
    labels: Mapping[str, str]
    level: int  # the highest feature level that our release knows


@dataclass(frozen=True, slots=True)
class Holds:
    """Of the replicated state: hashes by log index, and whether it is being taken from the others."""

    hashes: tuple[tuple[int, str], ...] = ()
    reseeding: bool = False


class Condition(Protocol):
    """What node_agent.platform.health.Health has."""

    @property
    def score(self) -> float: ...
    @property
    def reasons(self) -> tuple[str, ...]: ...


class Incarnation:
    """A number that grows with every start of this agent: its wall clock in microseconds, but never less than what was used before."""

    def __init__(self, file: Path, wall_clock: Callable[[], float]) -> None:
        self._file = file
        self._clock = wall_clock
        self.value = 0

    def begin(self) -> None:
        """A new start."""
        try:
            before = int(self._file.read_text())
        except (OSError, ValueError):  # the first start, or a file that a crash left empty: the clock alone must do
            before = 0
        self._keep(max(int(self._clock() * 1e6), before + 1))

    def outgrow(self, known: int) -> None:
        """The cluster knows of a later start of ours than this: the clock was set back. Go on above it, or we would not be believed."""
        if known > self.value:
            log.warning("the cluster has heard from this node with a later clock; is the time right?")
            self._keep(known + 1)

    def _keep(self, value: int) -> None:
        self.value = value
        beside = self._file.with_suffix(".new")
        try:
            beside.write_text(str(value))
            os.replace(beside, self._file)
        except OSError as error:  # it matters only if the clock is set back before the next start
            log.warning("%s cannot be written: %s", self._file, error.strerror)


class Pulse:
    """Makes and sends heartbeats; encodes only what has changed."""

    def __init__(
        self,
        me: Myself,
        incarnation: Incarnation,
        condition: Callable[[], Condition],
        send: Callable[[str, str, bytes], bool],
        renewal: Callable[[], int | None] = lambda: None,
        holds: Callable[[], Holds] = lambda: Holds(),
    ) -> None:
        """`renewal`: the revision of our instances when the next heartbeat is to renew them. `holds`: what to tell of our state."""
        self._holds = holds
        self._me = me
        self._incarnation = incarnation
        self._condition = condition
        self._send = send
        self._renewal = renewal
        self._last: Heartbeat | None = None
        self._payload = b""

    def beat(self, control_nodes: Iterable[str], record: Node | None, *, leaving: bool = False) -> Heartbeat:
        """Send a heartbeat to all `control_nodes` but ourselves. `record` is what the cluster knows of us."""
        if record is not None:
            self._incarnation.outgrow(record.incarnation)
        condition, holds = self._condition(), self._holds()
        beat = Heartbeat(
            address=self._me.address,
            port=self._me.port,
            role=self._me.role,
            release=self._me.release,
            incarnation=self._incarnation.value,
            health_score=condition.score,
            reasons=list(condition.reasons),
            labels=dict(self._me.labels),
            leaving=leaving,
            level=self._me.level,
            hashes=holds.hashes,
            reseeding=holds.reseeding,
            registry=None if leaving else self._renewal(),
        )
        if beat != self._last:
            self._last, self._payload = beat, msgspec.msgpack.encode(beat)
        for name in control_nodes:
            if name != self._me.name:
                self._send(name, KIND, self._payload)
        return beat
