"""The calls that we make on one connection: who waits for which answer, and who waits until the other end takes one more."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from hmcore.stoq.frames import Fault, Reply
from hmcore.stoq.session import Session


@dataclass(slots=True, eq=False)
class Call:
    """`answer` becomes None when there will be none."""

    method: str
    body: bytes
    answer: asyncio.Future[Reply | Fault | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    id: int | None = None  # once it is sent


class Calls:
    """What is sent leaves with the session's writes: see to those after `begin` and `advance`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sent: dict[int, Call] = {}
        self._queue: deque[Call] = deque()

    def __len__(self) -> int:
        return len(self._sent) + len(self._queue)

    def begin(self, method: str, body: bytes) -> Call:
        """Send it, or let it wait for its turn. Raises FrameError for a body over 16 MiB."""
        call = Call(method, body)
        if self._session.may_call(method, body):
            self._send(call)
        else:
            self._queue.append(call)
        return call

    def advance(self) -> bool:
        """Send those whose turn has come: whether there were any."""
        sent = False
        while self._queue and self._session.may_call(self._queue[0].method, self._queue[0].body):
            call = self._queue.popleft()
            if not call.answer.done():  # cancelled in this very moment
                self._send(call)
                sent = True
        return sent

    def answered(self, id: int, answer: Reply | Fault | None) -> None:
        if (call := self._sent.pop(id, None)) is not None and not call.answer.done():
            call.answer.set_result(answer)

    def forget(self, call: Call) -> bool:
        """Nobody waits for it any more: whether the other end must be told."""
        if call.id is not None:
            return self._sent.pop(call.id, None) is not None
        if call in self._queue:
            self._queue.remove(call)
        return False

    def lose(self) -> None:
        """There will be no answers."""
        calls = [*self._sent.values(), *self._queue]
        self._sent.clear()
        self._queue.clear()
        for call in calls:
            if not call.answer.done():
                call.answer.set_result(None)

    def _send(self, call: Call) -> None:
        call.id = self._session.call(call.method, call.body)
        self._sent[call.id] = call
