"""Histories that others recorded of real stores, and their models: what we find in them is held against porcupine's verdicts."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linearizability import UNKNOWN, Operation

HISTORIES = Path(__file__).parent / "histories"

# --- porcupine's test_data/kv: strings under keys


@dataclass(frozen=True, slots=True)
class Get:
    key: str


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Append:
    key: str
    value: str


class Strings:
    """One string a key, empty at first. Apart: as porcupine's kvModel does it, one partition a key."""

    def start(self) -> str:
        return ""

    def partition(self, request: Get | Put | Append) -> str:
        return request.key

    def is_read(self, request: Get | Put | Append, answer: Any) -> bool:
        return isinstance(request, Get)

    def step(self, state: str, request: Get | Put | Append, answer: Any) -> str | None:
        match request:
            case Get():
                return state if answer in (state, UNKNOWN) else None
            case Put(_, value):
                return value
            case Append(_, value):
                return state + value


class StringsTogether:
    """The same as one object: what partitions must not change."""

    def start(self) -> frozenset[tuple[str, str]]:
        return frozenset()

    def partition(self, request: Get | Put | Append) -> None:
        return None

    def is_read(self, request: Get | Put | Append, answer: Any) -> bool:
        return isinstance(request, Get)

    def step(self, state: frozenset[tuple[str, str]], request: Get | Put | Append, answer: Any) -> frozenset[tuple[str, str]] | None:
        strings = dict(state)
        after = Strings().step(strings.get(request.key, ""), request, answer)
        return None if after is None else frozenset({**strings, request.key: after}.items())


_STRINGS = re.compile(r'\{:process (\d+), :type :(invoke|ok), :f :(get|put|append), :key "(.*)", :value (?:nil|"(.*)")\}')


def strings(name: str) -> list[Operation]:
    """One of porcupine's key-value histories, as `c10-bad`."""
    recorder = _Recorder()
    for line in gzip.decompress((HISTORIES / f"{name}.txt.gz").read_bytes()).decode().splitlines():
        words = _STRINGS.fullmatch(line)
        if words is None:
            raise ValueError(f"{name}: {line!r}")
        client, kind, function, key, value = words.groups()
        if kind == "ok":
            recorder.answer(client, value if function == "get" else None)
        else:
            recorder.call(client, Get(key) if function == "get" else {"put": Put, "append": Append}[function](key, value))
    return recorder.operations()


# --- Jepsen's logs of etcd 2, read without a quorum: one register


@dataclass(frozen=True, slots=True)
class Read:
    pass


@dataclass(frozen=True, slots=True)
class Write:
    value: int


@dataclass(frozen=True, slots=True)
class Swap:
    """Compare and set."""

    old: int
    new: int


class Register:
    """Of numbers; -1 is none yet."""

    NOTHING = -1

    def start(self) -> int:
        return self.NOTHING

    def partition(self, request: Read | Write | Swap) -> None:
        return None

    def is_read(self, request: Read | Write | Swap, answer: Any) -> bool:
        return isinstance(request, Read) or answer is False

    def step(self, state: int, request: Read | Write | Swap, answer: Any) -> int | None:
        match request:
            case Read():
                return state if answer in (state, UNKNOWN) else None
            case Write(value):
                return value
            case Swap(old, new) if answer is UNKNOWN or answer == (old == state):
                return new if old == state else state
        return None


_JEPSEN = re.compile(r"INFO\s+jepsen\.util\s+-\s+(\d+)\s+:(invoke|ok|fail|info)\s+:(read|write|cas)\s+(.*)")


def jepsen(log: str) -> list[Operation]:
    """A log of Jepsen's test of etcd. `:info` and `:timed-out`: nobody knows."""
    recorder = _Recorder()
    for line in log.splitlines():
        words = _JEPSEN.fullmatch(line)
        if words is None:
            continue  # what the test itself has to say
        client, kind, function, text = words.groups()
        numbers = [int(number) for number in re.findall(r"\d+", text)]
        match kind, function:
            case "invoke", "read":
                recorder.call(client, Read())
            case "invoke", "write":
                recorder.call(client, Write(*numbers))
            case "invoke", "cas":
                recorder.call(client, Swap(*numbers))
            case _, _ if text.strip() == ":timed-out":
                recorder.lose(client)
            case "ok", "read":
                recorder.answer(client, numbers[0] if numbers else Register.NOTHING)
            case "ok", "write":
                recorder.answer(client, None)
            case "ok" | "fail", "cas":
                recorder.answer(client, kind == "ok")
            case _:
                raise ValueError(line)
    return recorder.operations()


class _Recorder:
    """Lines in their order stand for time. A client has one call under way, and none after one that was never answered."""

    def __init__(self) -> None:
        self._line = 0
        self._under_way: dict[str, tuple[int, Any]] = {}
        self._done: list[Operation] = []

    def call(self, client: str, request: Any) -> None:
        self._line += 1
        if client in self._under_way:
            raise ValueError(f"{client} calls again before it has an answer")
        self._under_way[client] = (self._line, request)

    def answer(self, client: str, answer: Any) -> None:
        self._line += 1
        called, request = self._under_way.pop(client)
        self._done.append(Operation(request, called, answer, self._line, client))

    def lose(self, client: str) -> None:
        self._line += 1
        called, request = self._under_way.pop(client)
        self._done.append(Operation(request, called, client=client))

    def operations(self) -> list[Operation]:
        return [*self._done, *(Operation(request, called, client=client) for client, (called, request) in self._under_way.items())]
