"""The replicated state as data: its tables, its digest, and its bytes in a snapshot. What changes it is in machine.py. Pure.

A state is never changed in place: readers may keep it. While a log entry is applied there is a Draft of the next one, which notes every
change of a table: for those who watch, and for the digest, which is kept up by what changes and costs nothing to read.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, get_args

import google_crc32c
import msgspec
from msgspec.structs import replace
from rpds import HashTrieMap

from hmcore.apps.records import Allocation, App, Generation, Image, Machine, NodeStatuses, Subnet
from hmcore.apps.secrets import Keeper, Secret, Vault
from hmcore.errors import ReleaseTooOld
from hmcore.records import Cluster, Configuration, Event, KeyValue, Lock, Maintenance, Mute, Node, Registration
from hmcore.watch import Change as Change
from node_agent.consensus import codec
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.commands import Receipt

MAX_EVENTS = 200

Table = Literal[
    "nodes",
    "registrations",
    "maintenance",
    "mutes",
    "keys",
    "locks",
    "apps",
    "generations",
    "allocations",
    "statuses",
    "machines",
    "subnets",
    "images",
    "keepers",
    "vault",
    "secrets",
]
TABLES: tuple[Table, ...] = get_args(Table)
Record = (
    Node
    | Registration
    | Maintenance
    | Mute
    | KeyValue
    | Lock
    | App
    | Generation
    | Allocation
    | NodeStatuses
    | Machine
    | Subnet
    | Image
    | Keeper
    | Vault
    | Secret
)
RECORDS: Mapping[str, type[Record]] = {
    "nodes": Node,
    "registrations": Registration,
    "maintenance": Maintenance,
    "mutes": Mute,
    "keys": KeyValue,
    "locks": Lock,
    "apps": App,
    "generations": Generation,
    "allocations": Allocation,
    "statuses": NodeStatuses,
    "machines": Machine,
    "subnets": Subnet,
    "images": Image,
    "keepers": Keeper,
    "vault": Vault,
    "secrets": Secret,
}
PRIVATE: frozenset[Table] = frozenset({"vault", "secrets"})  # ciphertext that nobody follows: it is not told outside the log

_SNAPSHOT = struct.Struct(">4sHI")  # magic, format, CRC32C of what follows
_MAGIC = b"HMST"
_FORMAT = 1
_DIGEST = 16  # bytes
_PIECE = 64  # records
NOTHING: HashTrieMap[str, Any] = HashTrieMap()  # the one empty table: what is left out of a snapshot is recognised by identity
PERSISTENT = (
    "keys",
    "secrets",
    "sessions",
    "older_sessions",
    "requests",
    "older_requests",
)  # tables that may be large: a change copies none of the rest


def _as_dict(table: object) -> dict[str, Any]:
    """For msgspec, which does not know the persistent maps."""
    if isinstance(table, HashTrieMap):
        return dict(table.items())
    raise NotImplementedError(f"no encoding for {type(table).__name__}")


_deterministic = msgspec.msgpack.Encoder(order="deterministic", enc_hook=_as_dict)
_plain = msgspec.msgpack.Encoder(enc_hook=_as_dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command stands in the log, when its proposer sent it, and for whom."""

    index: int
    unix_time: float = 0.0
    author: str = ""


class Session(msgspec.Struct, frozen=True, array_like=True):
    """The latest request of a session, and what came of it."""

    number: int
    receipt: Receipt


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything the cluster agrees on, at log index `index`.

    Fields below a line belong to a level, TRUSTED and then APPS: before it they stay as they are here, and so leave no trace in a snapshot
    that a release reads which does not know them. `digest` is of all tables, `history` of all that was ever answered and recorded, in
    order.
    """

    index: int = 0
    cluster: Cluster | None = None
    nodes: Mapping[str, Node] = {}
    registrations: Mapping[str, Registration] = {}  # by node
    maintenance: Mapping[str, Maintenance] = {}  # by target
    mutes: Mapping[str, Mute] = {}  # by their key
    events: tuple[Event, ...] = ()
    receipts: Mapping[str, Receipt] = {}  # by request; the oldest first
    # ---
    configuration: Configuration | None = None
    keys: Mapping[str, KeyValue] = NOTHING
    keys_size: int = 0  # bytes of all keys and values
    revision: int = 0  # changes of keys so far
    locks: Mapping[str, Lock] = {}
    tokens: int = 0  # of locks, given out so far
    sessions: Mapping[str, Session] = NOTHING
    older_sessions: Mapping[str, Session] = NOTHING
    requests: Mapping[str, Receipt] = NOTHING  # without a session
    older_requests: Mapping[str, Receipt] = NOTHING
    digest: bytes = b""
    history: bytes = b""
    # ---
    apps: Mapping[str, App] = {}
    generations: Mapping[str, Generation] = {}  # by app@number
    allocations: Mapping[str, Allocation] = {}  # by node/id
    statuses: Mapping[str, NodeStatuses] = {}  # by node/
    machines: Mapping[str, Machine] = {}  # by node
    subnets: Mapping[str, Subnet] = {}  # by node
    images: Mapping[str, Image] = {}  # by name; by id where they have none
    keepers: Mapping[str, Keeper] = {}  # by node
    vault: Mapping[str, Vault] = {}  # one at most
    secrets: Mapping[str, Secret] = NOTHING  # by sort:name#digest

    @property
    def level(self) -> int:
        """The feature level in force."""
        return levels.BASE if self.cluster is None else self.cluster.feature_level


class Draft:
    """The state that a log entry leads to, in the making. `changes` are those of its tables, in order.

    `latest`: the highest feature level that whoever applies the entry knows.
    """

    def __init__(self, state: State, latest: int = levels.LATEST) -> None:
        self.state = state
        self.latest = latest
        self.changes: list[Change] = []
        self._events = len(state.events)
        self._tables: dict[Table, dict[str, Any]] = {}  # small ones, copied at their first change
        self._digest = int.from_bytes(state.digest, "big") if state.digest else None

    def replace(self, **fields: Any) -> None:
        """Set fields of the state that are no tables."""
        self.state = replace(self.state, **fields)

    def table(self, table: Table) -> Mapping[str, Any]:
        changed = self._tables.get(table)
        if changed is not None:
            return changed
        found: Mapping[str, Any] = getattr(self.state, table)
        return found

    def put(self, table: Table, key: str, record: Record) -> None:
        encoded = _deterministic.encode(record)
        self._move(table, key, encoded)
        if table in PERSISTENT:
            self.replace(**{table: getattr(self.state, table).insert(key, record)})
        else:
            self._own(table)[key] = record

    def remove(self, table: Table, key: str) -> None:
        """There must be such a record."""
        self._move(table, key, None)
        if table in PERSISTENT:
            self.replace(**{table: getattr(self.state, table).remove(key) or NOTHING})
        else:
            del self._own(table)[key]

    def record(self, entry: Entry, kind: str, subject: str, message: str) -> None:
        """Note an event."""
        event = Event(index=entry.index, kind=kind, subject=subject, message=message, author=entry.author, unix_time=entry.unix_time)
        self.replace(events=(*self.state.events, event)[-MAX_EVENTS:])
        if self._digest is not None:
            self.remember(_deterministic.encode(event))

    def remember(self, what: bytes) -> None:
        """Add to the history."""
        self.replace(history=hashlib.blake2b(self.state.history + what, digest_size=_DIGEST).digest())

    def begin_digest(self) -> None:
        """From here on there is one: the level has been reached at which every node keeps it."""
        self._digest = int.from_bytes(digest(self.finish(self.state.index)), "big")

    def finish(self, index: int) -> State:
        digest = b"" if self._digest is None else self._digest.to_bytes(_DIGEST, "big")
        return replace(self.state, index=index, digest=digest, **self._tables)

    def _own(self, table: Table) -> dict[str, Any]:
        if table not in self._tables:
            self._tables[table] = dict(getattr(self.state, table))
        return self._tables[table]

    def _move(self, table: Table, key: str, encoded: bytes | None) -> None:
        if self._digest is not None:
            before = self.table(table).get(key)
            if before is not None:
                self._digest -= share(table, key, _deterministic.encode(before))
            if encoded is not None:
                self._digest += share(table, key, encoded)
            self._digest %= 1 << (8 * _DIGEST)
        self.changes.append(Change(table, key, encoded))


def encode(record: Record) -> bytes:
    """A record as it is hashed, and told to followers."""
    return _deterministic.encode(record)


def share(table: str, key: str, encoded: bytes) -> int:
    """What a record adds to the digest. A sum does not depend on the order in which the records came."""
    name = f"{table}\0{key}\0".encode()
    return int.from_bytes(hashlib.blake2b(name + encoded, digest_size=_DIGEST).digest(), "big")


def digest(state: State) -> bytes:
    """The digest of a state's tables, worked out from all of them."""
    total = 0
    for table in TABLES:
        for key, record in getattr(state, table).items():
            total += share(table, key, _deterministic.encode(record))
    return (total % (1 << (8 * _DIGEST))).to_bytes(_DIGEST, "big")


def state_hash(state: State) -> str:
    """Equal on all nodes at equal index, or somebody's state has diverged. Cheap from level TRUSTED on."""
    if state.digest:
        rest = _deterministic.encode((state.index, state.cluster, state.configuration, state.keys_size, state.revision, state.tokens))
        return hashlib.blake2b(state.digest + state.history + rest, digest_size=_DIGEST).hexdigest()
    return hashlib.sha256(_deterministic.encode(state)).hexdigest()


def snapshot(state: State) -> bytes:
    """The state as bytes that `restore` accepts: magic, format, checksum, msgpack."""
    body = list(pieces(state))
    return b"".join([seal(body), *body])


def seal(body: Iterable[bytes]) -> bytes:
    """What stands before a state's `pieces` in a snapshot."""
    crc = 0
    for piece in body:
        crc = google_crc32c.extend(crc, piece)
    return _SNAPSHOT.pack(_MAGIC, _FORMAT, crc)


def pieces(state: State) -> Iterator[bytes]:
    """The state as msgpack, in pieces that are encoded one by one: the large tables some records at a time, behind all the rest."""
    rest = _plain.encode(replace(state, **dict.fromkeys(PERSISTENT, NOTHING)))  # receipts keep their order: the oldest is forgotten first
    tables = [(name, getattr(state, name)) for name in PERSISTENT if getattr(state, name)]
    count, fields = (rest[0] & 0x0F, rest[1:]) if rest[0] & 0xF0 == 0x80 else (int.from_bytes(rest[1:3], "big"), rest[3:])
    yield _map_of(count + len(tables)) + fields
    for name, table in tables:
        yield _plain.encode(name) + _map_of(len(table))
        items = iter(table.items())
        while some := dict(islice(items, _PIECE)):
            yield _plain.encode(some).removeprefix(_map_of(len(some)))


def _map_of(count: int) -> bytes:
    """How msgpack begins a map."""
    if count < 16:
        return bytes([0x80 | count])
    return b"\xde" + count.to_bytes(2, "big") if count < 1 << 16 else b"\xdf" + count.to_bytes(4, "big")


_states: msgspec.msgpack.Decoder[State] = msgspec.msgpack.Decoder(State)


def restore(data: bytes, latest: int = levels.LATEST) -> State:
    """The state in a snapshot. Raises ValueError, saying what is wrong with it, and ReleaseTooOld if it is of a level above `latest`."""
    if len(data) < _SNAPSHOT.size:
        raise ValueError("the snapshot ends early")
    magic, version, checksum = _SNAPSHOT.unpack_from(data)
    body = data[_SNAPSHOT.size :]
    if magic != _MAGIC or version != _FORMAT:
        raise ValueError(f"not a snapshot of format {_FORMAT}")
    if google_crc32c.value(body) != checksum:
        raise ValueError("the snapshot's checksum does not hold")
    try:
        state = codec.read(_states, body)
    except msgspec.DecodeError as error:
        raise ValueError(f"the snapshot cannot be read: {error}") from error
    state = replace(state, **{table: HashTrieMap(getattr(state, table)) or NOTHING for table in PERSISTENT})
    if state.level > latest:
        raise ReleaseTooOld(state.level, latest)
    if state.digest and state.digest != digest(state):
        raise ValueError("the snapshot's digest is of another state")
    return state
