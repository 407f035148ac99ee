"""What containers wrote last that are there no more: Docker's logs go with them, and it is then that one wants to know. In memory, for a
while; what is kept is bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from node_agent.container.info import ContainerInfo
from node_agent.container.loglines import Entry

KEEP = 600.0  # seconds
MOST = 32  # containers, the latest
LINES = 100  # the latest of each
SIZE = 32 * 1024  # bytes of text of each


@dataclass(frozen=True, slots=True)
class Words:
    """`entries`: by time, the latest ones. `until`: by the clock of LastWords."""

    info: ContainerInfo
    entries: tuple[Entry, ...]
    until: float


class LastWords:
    """`clock`: seconds, and only forward."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: dict[str, Words] = {}

    def keep(self, info: ContainerInfo, entries: Iterable[Entry]) -> None:
        """Of a container that is about to be removed."""
        found = latest(entries)
        if found:
            self._kept.pop(info.id, None)
            self._kept[info.id] = Words(info, found, self._clock() + KEEP)
            for id in list(self._kept)[:-MOST]:
                del self._kept[id]

    def all(self) -> Mapping[str, Words]:
        """By the container's id."""
        now = self._clock()
        self._kept = {id: words for id, words in self._kept.items() if now < words.until}
        return self._kept


def latest(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """As many as are kept of one container."""
    found: list[Entry] = []
    size = 0
    for entry in reversed(list(entries)[-LINES:]):
        size += len(entry.text)
        if size > SIZE:
            break
        found.append(entry)
    return tuple(reversed(found))
