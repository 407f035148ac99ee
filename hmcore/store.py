"""Calls of the cluster's store: keys and their values. Beside hmcore/api.py, which has all other calls.

A change goes to the leader (others answer NotLeader and name it) and carries an id: asked again under the same id, it is carried out once.
Whoever sends many uses ids of one session, `NAME:NUMBER` with growing numbers, one request at a time: then the cluster remembers the
latest of them whatever else is written.
"""

from __future__ import annotations

import re

import msgspec

from hmcore.api import ChangeReply, Method
from hmcore.records import KeyValue

MOST_KEY = 512  # characters of a key, which are bytes, too
MOST_VALUE = 512 << 10  # bytes of a value
_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.:@+=,-]+"  # neither . nor ..: they mean something else in a path
KEY = re.compile(rf"(?=.{{1,{MOST_KEY}}}\Z){_SEGMENT}(?:/{_SEGMENT})*")
KEY_RULE = f"1 to {MOST_KEY} letters, digits and _ . : @ + = , - /, and between the / neither nothing nor . or .."
MOST_KEYS = 1000  # in one answer
MOST_BYTES = 4 << 20  # of values in one answer


class PutKeyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`expect`: the revision of the key's last change as the caller knows it, 0 if there must be no such key; None: whatever there is.

    `lock` and `token`: only while the lock is held with this token (fencing).
    """

    id: str
    key: str
    value: bytes
    expect: int | None = None
    lock: str = ""
    token: int = 0


class DeleteKeyRequest(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    key: str
    expect: int | None = None
    lock: str = ""
    token: int = 0


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`consistent`: linearizable, at the cost of a round between the control nodes; else what the asked node knows."""

    key: str
    consistent: bool = False


class KeyReply(msgspec.Struct, frozen=True, kw_only=True):
    """As of log index `index`. None: there is no such key."""

    index: int
    item: KeyValue | None


class KeysRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that begin with `prefix`, in their order, those behind `after`. `values` False: of the values only the sizes are wanted."""

    prefix: str = ""
    after: str = ""
    limit: int = MOST_KEYS
    values: bool = False
    consistent: bool = False


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    created: int
    changed: int
    size: int
    value: bytes = b""


class KeysReply(msgspec.Struct, frozen=True, kw_only=True):
    """`more`: there are others behind the last of these."""

    index: int
    items: list[KeyEntry]
    more: bool = False


PUT_KEY: Method[PutKeyRequest, ChangeReply] = Method("keys.put", PutKeyRequest, ChangeReply)
DELETE_KEY: Method[DeleteKeyRequest, ChangeReply] = Method("keys.delete", DeleteKeyRequest, ChangeReply)
GET_KEY: Method[KeyRequest, KeyReply] = Method("keys.get", KeyRequest, KeyReply)
LIST_KEYS: Method[KeysRequest, KeysReply] = Method("keys.list", KeysRequest, KeysReply)


def why_no_key(key: str) -> str | None:
    """Why `key` cannot be one; None: it can."""
    return None if KEY.fullmatch(key) else f"{key[:100]!r} is no key: {KEY_RULE}"
