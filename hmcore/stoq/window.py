"""Flow control of one stream of messages, as both its ends keep account of it. Pure.

Whoever takes messages grants credit for them, so that a slow reader stops the writer instead of filling memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from hmcore.errors import FrameError

WINDOW = 4 * 1024 * 1024  # bytes of messages a stream may have under way that its reader has not taken (a last one may exceed it)
OVERHEAD = 32  # what a message costs of the window beside its payload, so that empty ones are not free


@dataclass(slots=True)
class Window:
    """One end's account, in what messages cost."""

    sent: int = 0  # and not yet credited
    untaken: int = 0  # received and not yet taken
    uncredited: int = 0  # taken and not yet credited

    @property
    def open(self) -> bool:
        """Whether one more message may be sent."""
        return self.sent < WINDOW

    def send(self, payload: bytes) -> None:
        self.sent += len(payload) + OVERHEAD

    def receive(self, payload: bytes) -> None:
        """Raises FrameError when the writer did not wait for credit."""
        if self.untaken >= WINDOW:
            raise FrameError("more messages than there was credit for")
        self.untaken += len(payload) + OVERHEAD

    def take(self, payload: bytes) -> int:
        """The credit that is to be granted now: nothing, or half a window at least, rather than a frame for each message."""
        cost = len(payload) + OVERHEAD
        self.untaken -= cost
        self.uncredited += cost
        if self.uncredited < WINDOW // 2:
            return 0
        credit, self.uncredited = self.uncredited, 0
        return credit

    def credit(self, size: int) -> bool:
        """What the reader grants: whether this opens a window that was used up. Raises FrameError for what was never sent."""
        if not 0 < size <= self.sent:
            raise FrameError("credit for messages that were never sent")
        was_open = self.open
        self.sent -= size
        return self.open and not was_open
