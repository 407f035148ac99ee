"""What one connection may make us keep: so many streams, so many bytes, and for so long a frame that does not get complete. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from hmcore.errors import FrameError

MAX_HELD = 128 * 1024 * 1024  # bytes of incomplete frames and unanswered calls that one connection may make us keep
MAX_STREAMS = 1024  # opened by the other end and not finished
STALL = 30.0  # seconds without a further byte after which an incomplete frame ends the connection


@dataclass(slots=True)
class Quota:
    """What is used of it. What would exceed it raises FrameError: the connection is then over."""

    streams: int = 0
    held: int = 0  # bytes
    growing: dict[int, float] = field(default_factory=dict)  # stream -> when its incomplete frame last grew; oldest first

    def open_stream(self) -> None:
        if self.streams >= MAX_STREAMS:
            raise FrameError(f"over {MAX_STREAMS} streams at once")
        self.streams += 1

    def close_stream(self) -> None:
        self.streams -= 1

    def hold(self, size: int) -> None:
        self.held += size
        if self.held > MAX_HELD:
            raise FrameError(f"over {MAX_HELD} bytes of incomplete frames and unanswered calls")

    def let_go(self, size: int) -> None:
        self.held -= size

    def read(self, stream: int, before: int, after: int, now: float) -> None:
        """Of a stream's incomplete frame, `before` bytes were held, and now `after`."""
        self.growing.pop(stream, None)
        if after:
            self.growing[stream] = now
        self.hold(after - before)

    def forget(self, stream: int, pending: int) -> None:
        """The stream is over; `pending` bytes of it were held."""
        self.held -= pending
        self.growing.pop(stream, None)

    @property
    def deadline(self) -> float | None:
        """When the frame that has not grown for longest will have been incomplete for too long."""
        return next(iter(self.growing.values())) + STALL if self.growing else None

    def expire(self, now: float) -> None:
        if (deadline := self.deadline) is not None and now >= deadline:
            raise FrameError(f"a frame stayed incomplete for {STALL:g} s")
