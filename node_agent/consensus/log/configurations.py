"""Which configuration is in force: the latest in the log, committed or not (Ongaro 2014, section 4.1). Pure.

Beside the log there is a base: what the snapshot holds, what the cluster was formed with, or what a member told us. It is committed, so
that entries up to its index say nothing any more; it may be ahead of the log.
"""

from __future__ import annotations

from collections.abc import Sequence

from hmcore.records import Configuration
from node_agent.consensus.log import entries
from node_agent.consensus.log.entries import Entry

NOBODY = Configuration(voters=())


def of(entry: Entry) -> Configuration | None:
    """The configuration that a log entry makes; None for any other entry."""
    change = entries.configuration(entry.command)
    if change is None:
        return None
    return Configuration(voters=tuple(sorted(change.voters)), learners=tuple(sorted(change.learners)), index=entry.index)


class Configurations:
    """Follows the log as it grows and is cut. `founders`: whom the cluster is to be formed with, until anything else is known."""

    def __init__(self, founders: Sequence[str] = ()) -> None:
        self._founders = Configuration(voters=tuple(sorted(founders)))
        self._base = NOBODY
        self._known = 0  # the base was still in force at this log index
        self._entries: list[Configuration] = []  # those of the log, in order
        self._first: int | None = None  # index of the log's first entry
        self.latest = self._founders

    @property
    def base(self) -> Configuration:
        return self._base if self._base.voters else self._founders

    def base_on(self, configuration: Configuration, known: int = 0) -> None:
        """This configuration is committed, and was in force at log index `known`."""
        if configuration.voters and (not self._base.voters or configuration.index >= self._base.index):
            self._known = max(known, self._known if configuration.index == self._base.index else 0, configuration.index)
            self._base = configuration
        self._decide()

    def add(self, entry: Entry) -> None:
        if self._first is None:
            self._first = entry.index
        configuration = of(entry)
        if configuration is not None:
            self._entries.append(configuration)
            self._decide()

    def cut_from(self, index: int) -> None:
        while self._entries and self._entries[-1].index >= index:
            self._entries.pop()
        self._decide()

    def cut_to(self, index: int) -> None:
        """The log begins at `index` now: what stood before is committed."""
        self._first = index
        gone = [entry for entry in self._entries if entry.index < index]
        if gone:
            live = self._live()
            self._entries = self._entries[len(gone) :]
            if gone[-1] in live:
                self._base, self._known = gone[-1], gone[-1].index
        self._decide()

    def clear(self) -> None:
        """The log is empty: a snapshot takes its place."""
        self._entries.clear()
        self._first = None
        self._decide()

    def at(self, index: int) -> Configuration:
        """As of log index `index`; the base, where that is ahead of it."""
        return next((entry for entry in reversed(self._live()) if entry.index <= index), self.base)

    def _live(self) -> list[Configuration]:
        """The log's entries that count: behind the base, in a log that does not contradict it."""
        base = self.base
        if base.index and self._first is not None and self._first <= base.index and base not in self._entries:
            return []  # the log holds another entry there, or does not reach so far: what follows is void
        return [entry for entry in self._entries if entry.index > max(base.index, self._known)]

    def _decide(self) -> None:
        live = self._live()
        self.latest = live[-1] if live else self.base
