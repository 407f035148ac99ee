"""What a connection writes to its wire, and whether the other end keeps up with it."""

from __future__ import annotations

from hmcore.stoq.events import Abort, Write
from hmcore.stoq.window import OVERHEAD
from hmcore.stoq.wire import Wire

HIGH_WATER = 4 * 1024 * 1024  # bytes that the other end has not acknowledged, from which on writers wait
MAX_UNTAKEN = 128 * 1024 * 1024  # bytes: answers do not wait, so from here on the other end is given up


class Outbox:
    """To look at the wire's backlog takes a look at every stream: only when what was written since the last look may matter."""

    def __init__(self, high_water: int) -> None:
        self._high_water = high_water
        self._wire: Wire | None = None
        self._at_most = 0  # bytes: no larger can the backlog be by now

    def start(self, wire: Wire) -> None:
        self._wire = wire

    def put(self, writes: list[Write | Abort]) -> None:
        wire = self._wire
        assert wire is not None
        for write in writes:
            match write:
                case Write(stream, data, end):
                    self._at_most += len(data) + OVERHEAD
                    wire.write(stream, data, end)
                case Abort(stream):
                    wire.abort(stream)

    @property
    def full(self) -> bool:
        """Whether writers must wait."""
        return self._reaches(self._high_water)

    @property
    def hopeless(self) -> str:
        """Why the other end is to be given up, if it is."""
        return f"over {MAX_UNTAKEN} bytes were asked for and not taken" if self._reaches(MAX_UNTAKEN) else ""

    def _reaches(self, mark: int) -> bool:
        if self._wire is None or self._at_most < mark:
            return False
        self._at_most = self._wire.backlog
        return self._at_most >= mark
