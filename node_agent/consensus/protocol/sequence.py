"""Messages must arrive in the order they were sent, each at most once; a lost one is harmless (docs/adr/0025).

QUIC streams give that within one connection, but not across two: what still sits in the old connection when the new one is up would come
late. So each sender numbers its messages, and the receiver drops what is not new. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

_REMEMBERED = 8  # processes of a peer that are over


class Place(NamedTuple):
    """`incarnation` is the sending process (a random number), `epoch` counts its connections to us, `number` the messages on this one."""

    incarnation: int
    epoch: int
    number: int


class Outgoing:
    """The places of what we send to one peer."""

    def __init__(self, incarnation: int) -> None:
        self._last = Place(incarnation, 0, 0)

    def reconnected(self) -> None:
        self._last = Place(self._last.incarnation, self._last.epoch + 1, 0)

    def next(self) -> Place:
        self._last = self._last._replace(number=self._last.number + 1)
        return self._last


class Incoming:
    """Judges the places of what one peer sends."""

    def __init__(self) -> None:
        self._last: Place | None = None
        self._over: list[int] = []

    def accept(self, place: Place) -> bool:
        """Whether the message is newer than all that came before. One of a process that was already succeeded never is."""
        last = self._last
        if last is not None and place.incarnation == last.incarnation:
            if place <= last:
                return False
        elif place.incarnation in self._over:
            return False
        elif last is not None:
            self._over = [*self._over, last.incarnation][-_REMEMBERED:]
        self._last = place
        return True
