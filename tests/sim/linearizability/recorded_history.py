"""What clients asked and were told, while it happens. One request under one id is one operation, however often it is tried."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, nextafter
from typing import Any

from linearizability import Operation


@dataclass
class _Call:
    client: str
    request: Any
    called: float
    answers: list[tuple[float, Any]] = field(default_factory=list)  # none or one


class History:
    """`now` never runs backwards. What is recorded later is later, even if the clock stands still in between."""

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}
        self._latest = -inf

    def call(self, id: str, client: str, request: Any, now: float) -> None:
        """Before it is sent for the first time; retries under the same id belong to it."""
        called = self._moment(now)
        known = self._calls.setdefault(id, _Call(client, request, called))
        if known.request != request:
            raise ValueError(f"{id} asks for {known.request!r} and for {request!r}")

    def answer(self, id: str, answer: Any, now: float) -> None:
        """When it is known what became of it. An error that leaves that open is no answer. Of several answers the first one counts."""
        returned, call = self._moment(now), self._calls[id]
        if not call.answers:
            call.answers.append((returned, answer))
        elif call.answers[0][1] != answer:
            raise ValueError(f"{id} was answered {call.answers[0][1]!r} and {answer!r}")

    def operations(self) -> list[Operation]:
        return [
            Operation(call.request, call.called, call.answers[0][1], call.answers[0][0], call.client)
            if call.answers
            else Operation(call.request, call.called, client=call.client)
            for call in self._calls.values()
        ]

    def _moment(self, now: float) -> float:
        self._latest = max(now, nextafter(self._latest, inf))
        return self._latest
