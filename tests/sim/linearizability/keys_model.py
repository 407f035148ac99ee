"""Our keys as one sequential object: put, get, delete, and each of the two writes only if the key was changed last at `expect`.

What a client is told of revisions counts as well: every change of a key has one of its own, larger than that of the change
before. Without that, `expect` would let a write pass that has not seen the latest value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from linearizability import UNKNOWN


@dataclass(frozen=True, slots=True)
class Put:
    """`expect`: 0: there must be no such key; None: whatever there is."""

    key: str
    value: bytes
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    key: str
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Get:
    key: str


Request = Put | Delete | Get


@dataclass(frozen=True, slots=True)
class Wrote:
    """The write changed the key, by this revision."""

    index: int


@dataclass(frozen=True, slots=True)
class Unchanged:
    """All was as wanted: the same value, put without `expect`, or nothing to delete."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The key was not as expected."""


@dataclass(frozen=True, slots=True)
class Found:
    value: bytes
    created: int
    changed: int


@dataclass(frozen=True, slots=True)
class Missing:
    pass


class Present(NamedTuple):
    """`created` and `changed`: None as long as only a write without an answer knows. `floor`: later changes have larger indexes."""

    value: bytes
    created: int | None
    changed: int | None
    floor: int


class Absent(NamedTuple):
    floor: int = 0


State = Present | Absent


class Keys:
    """One partition a key. Where an index is not known, what it could be is not narrowed down by refusals: that forgives too much, never
    too little."""

    def start(self) -> State:
        return Absent()

    def partition(self, request: Request) -> str:
        return request.key

    def is_read(self, request: Request, answer: Any) -> bool:
        return isinstance(request, Get) or isinstance(answer, Refused | Unchanged)

    def step(self, state: State, request: Request, answer: Any) -> State | None:
        return _found(state, answer) if isinstance(request, Get) else _written(state, request, answer)


def _found(state: State, answer: Any) -> State | None:
    match state, answer:
        case _, _ if answer is UNKNOWN:
            return state
        case Absent(), Missing():
            return state
        case Present(value=value), Found(value=found) if value == found:
            return _bound(state, answer)
    return None


def _bound(state: Present, found: Found) -> State | None:
    """What was found tells the indexes that were not known."""
    if found.created > found.changed or state.created not in (None, found.created):
        return None
    if state.changed is None:
        return Present(found.value, found.created, found.changed, found.changed) if found.changed > state.floor else None
    return state._replace(created=found.created) if state.changed == found.changed else None


def _written(state: State, request: Put | Delete, answer: Any) -> State | None:
    may_match, may_differ = _compare(state, request.expect)
    idle = state == Absent(state.floor) if isinstance(request, Delete) else _holds(state, request)
    match answer:
        case Refused():
            return state if may_differ else None
        case _ if not may_match:
            return None
        case Unchanged():
            return state if idle else None
        case Wrote(index) if not idle and index > max(state.floor, request.expect or 0):
            return _after(state, request, index, index)
        case _ if answer is UNKNOWN:
            return state if idle else _after(state, request, None, max(state.floor, request.expect or 0))
    return None


def _after(state: State, request: Put | Delete, index: int | None, floor: int) -> State:
    match request:
        case Delete():
            return Absent(floor)
        case Put(value=value):
            return Present(value, state.created if isinstance(state, Present) else index, index, floor)


def _holds(state: State, request: Put) -> bool:
    return isinstance(state, Present) and state.value == request.value and request.expect is None


def _compare(state: State, expect: int | None) -> tuple[bool, bool]:
    """Whether the key may be as expected, and whether it may not be."""
    match state:
        case _ if expect is None:
            return True, False
        case Absent():
            return expect == 0, expect != 0
        case Present(changed=None, floor=floor):
            return expect > floor, True
        case Present(changed=changed):
            return expect == changed, expect != changed
