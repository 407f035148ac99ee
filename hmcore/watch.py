"""Following the replicated state: its changes from a log index on, at any control node, and the state to begin with.

A watch is a long poll (docs/adr/0073): the node answers when there is something behind `since`, and keeps nothing for whoever asks. The
answer tells up to which log index its reader knows everything, and that is where the next question begins, at this node or another:
indexes are the cluster's. Whoever comes too late for the node's history takes the tables anew, all of one log index, and goes on there.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from hmcore.api import Method
from hmcore.errors import FrameError

LONGEST_WATCH = 20.0  # seconds that a question may be held back: less than what a caller's connection bears
PORTION = 1 << 20  # bytes of records in one answer (one entry may exceed it): nothing else waits long behind it


class Change(msgspec.Struct, frozen=True, array_like=True):
    """What became of one record: its encoding (msgpack), or None when it is gone."""

    table: str
    key: str
    record: bytes | None


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What the log entry at `index` changed, of what was asked for."""

    index: int
    changes: tuple[Change, ...]


class WatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Changes behind the log index `since`, which the caller has; -1: from now on, which is answered at once.

    `tables`: only these, all when it is empty; `prefix`: of their keys only those that begin so. `wait`: seconds to hold the question back
    while there are none; a node that has not come as far as `since` or `reach` is waited for as well. `reach`: answer as soon as the node
    has come so far, whatever has changed. `leader`: answer as soon as another leads (empty: none is known; None: it does not matter).
    `digests`: tell them, too.
    """

    since: int = -1
    tables: tuple[str, ...] = ()
    prefix: str = ""
    wait: float = 0.0
    reach: int = 0
    leader: str | None = None
    digests: bool = False


class WatchReply(msgspec.Struct, frozen=True, kw_only=True):
    """`entries`, in order, are all that changed behind `since` up to `index`. An `index` before `since`: the node has not come as far.

    `oldest`: not all of it is known any more, so nothing is told; the history reaches back to that index. `digests`: of the tables that
    were asked for, at `index`; empty while more is to be told and for a prefix, and never of keys, which are many. `waited`: seconds for
    which the question was held back.
    """

    index: int
    entries: list[Entry] = []
    oldest: int | None = None
    leader: str | None = None
    term: int = 0
    digests: dict[str, bytes] = {}
    waited: float = 0.0


class TablesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Records of tables as they are now. For the portions after the first: `index` is what the first one told, `offset` counts the records
    that came already."""

    tables: tuple[str, ...] = ()
    prefix: str = ""
    index: int = -1
    offset: int = 0


class TablesReply(msgspec.Struct, frozen=True, kw_only=True):
    """Of log index `index`, in no particular order. `gone`: that state is not kept any more, begin again."""

    index: int
    records: list[Change] = []
    more: bool = False
    gone: bool = False


WATCH: Method[WatchRequest, WatchReply] = Method("cluster.watch", WatchRequest, WatchReply)
TABLES: Method[TablesRequest, TablesReply] = Method("cluster.tables", TablesRequest, TablesReply)


@dataclass(frozen=True, slots=True)
class Step:
    """What an answer means for its reader: the entries that are new to it. `behind`: the node knows less than we do, ask another.
    `oldest`: some changes are lost to us; the tables must be taken anew."""

    entries: tuple[Entry, ...] = ()
    behind: bool = False
    oldest: int | None = None


@dataclass(slots=True)
class Position:
    """How far a follower has come: it has every change up to the log index `index`, none beyond. Pure."""

    index: int

    def take(self, since: int, reply: WatchReply) -> Step:
        """An answer to the question for what is behind `since`. Nothing is ever told twice, whatever node says it, and however late.

        Raises FrameError for an answer that is none: out of order, or beyond what it claims to tell.
        """
        if since > self.index:
            raise FrameError(f"an answer about what is behind {since}, but only {self.index} is known")
        if reply.oldest is not None:
            return Step(oldest=reply.oldest) if since == self.index else Step()
        last = since
        for entry in reply.entries:
            if not last < entry.index <= reply.index:
                raise FrameError(f"changes of log index {entry.index} after those of {last}, in an answer up to {reply.index}")
            last = entry.index
        if reply.index < since:
            return Step(behind=True)
        fresh = tuple(entry for entry in reply.entries if entry.index > self.index)
        self.index = max(self.index, reply.index)
        return Step(entries=fresh)
