"""The commands that change the replicated state (those about apps and secrets in files of their own), what becomes of them, and how both
are written. What they do is in machine.py.

Every node decodes what another one encoded, maybe with a neighbouring release: fields are added with a default, never changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hmcore.records import Instance, Node, NodeState
from node_agent.consensus import codec
from node_agent.consensus.statemachine.appcommands import (
    AdmitNode,
    HoldImage,
    PlanApp,
    PutApp,
    PutImage,
    PutStatuses,
    PutSubnet,
    RemoveImage,
    RestartApp,
    ScaleApp,
    StopApp,
)
from node_agent.consensus.statemachine.secretcommands import PutKeeper, PutSecret, RemoveSecret, TurnKey


class FormCluster(msgspec.Struct, frozen=True, kw_only=True, tag="form-cluster"):
    """The first command of a cluster's life, proposed by the first leader. Repeated with the same ids, it changes nothing."""

    id: str
    bootstrap: str
    level: int = 1  # to begin with: all voters must know it


class PutNode(msgspec.Struct, frozen=True, kw_only=True, tag="put-node"):
    """Add a node or replace its record. Refused if we know of a later start of its agent."""

    node: Node


class SetNodeState(msgspec.Struct, frozen=True, kw_only=True, tag="set-node-state"):
    """What the leader found out about a node. `incarnation` is the start of its agent that this is about; an older one is refused."""

    name: str
    state: NodeState
    reason: str = ""
    incarnation: int = 0


class RemoveNode(msgspec.Struct, frozen=True, kw_only=True, tag="remove-node"):
    name: str


class Noop(msgspec.Struct, frozen=True, kw_only=True, tag="noop"):
    """Changes nothing; its acknowledgement shows that a quorum works."""


class PutInstances(msgspec.Struct, frozen=True, kw_only=True, tag="put-instances"):
    """All instances of a node, replacing those known. Refused if we know of a later start of its agent."""

    node: str
    incarnation: int
    revision: int
    instances: tuple[Instance, ...]


class ExpireInstances(msgspec.Struct, frozen=True, kw_only=True, tag="expire-instances"):
    """Nobody has renewed a node's instances for too long: they count as unknown until they are put again or renewed.

    `reason` empty takes that back. Refused if the instances are others by now.
    """

    node: str
    revision: int
    reason: str


class SetMaintenance(msgspec.Struct, frozen=True, kw_only=True, tag="set-maintenance"):
    target: str
    on: bool
    reason: str = ""


class MuteCheck(msgspec.Struct, frozen=True, kw_only=True, tag="mute-check"):
    check: str
    node: str = ""
    on: bool = True
    reason: str = ""


class RaiseFeatureLevel(msgspec.Struct, frozen=True, kw_only=True, tag="raise-feature-level"):
    """From here on commands up to `level` are understood by all (levels.py). It never sinks."""

    level: int


class ChangeVoters(msgspec.Struct, frozen=True, kw_only=True, tag="change-voters"):
    """The whole configuration. It holds from where it stands in the log on, committed or not. Only a configuration entry may carry it."""

    voters: tuple[str, ...]
    learners: tuple[str, ...] = ()


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """Do it only while `lock` is held with `token`."""

    lock: str
    token: int


class PutKey(msgspec.Struct, frozen=True, kw_only=True, tag="put-key"):
    """`expect`: the revision of the key's last change as its caller knows it, 0 if there must be no such key; None: whatever there is."""

    key: str
    value: bytes
    expect: int | None = None
    fence: Fence | None = None


class DeleteKey(msgspec.Struct, frozen=True, kw_only=True, tag="delete-key"):
    key: str
    expect: int | None = None
    fence: Fence | None = None


class AcquireLock(msgspec.Struct, frozen=True, kw_only=True, tag="acquire-lock"):
    """Refused while another holds it. `ttl` in seconds. Its holder gets a new token, and the one before is worth nothing any more."""

    name: str
    holder: str
    ttl: float
    note: str = ""


class ReleaseLock(msgspec.Struct, frozen=True, kw_only=True, tag="release-lock"):
    """By its holder, or by an operator who knows better. Refused if another holds it by now."""

    name: str
    token: int
    reason: str = ""


class ExpireLock(msgspec.Struct, frozen=True, kw_only=True, tag="expire-lock"):
    """The leader has not heard of the holder for the lock's whole term."""

    name: str
    token: int


class NoteDivergence(msgspec.Struct, frozen=True, kw_only=True, tag="note-divergence"):
    """The leader has found that a node's state is not that of the others: an event, and nothing else."""

    node: str
    index: int
    others: tuple[str, ...]


Command = (
    FormCluster
    | PutNode
    | SetNodeState
    | RemoveNode
    | PutInstances
    | ExpireInstances
    | SetMaintenance
    | MuteCheck
    | Noop
    | RaiseFeatureLevel
    | ChangeVoters
    | PutKey
    | DeleteKey
    | AcquireLock
    | ReleaseLock
    | ExpireLock
    | NoteDivergence
    | PutApp
    | ScaleApp
    | RestartApp
    | StopApp
    | PlanApp
    | PutStatuses
    | PutSubnet
    | PutImage
    | RemoveImage
    | HoldImage
    | PutKeeper
    | TurnKey
    | PutSecret
    | RemoveSecret
    | AdmitNode
)


class Applied(msgspec.Struct, frozen=True, tag="applied", omit_defaults=True):
    """Carried out. `changed` is False when everything was as wanted already. `token`: of the lock that was asked for.
    `revision`: of the key's latest change, this one or, where nothing had to be changed, the one before; 0: there is no such key. Of an
    app, its generation."""

    changed: bool = True
    token: int = 0
    revision: int = 0


class Refused(msgspec.Struct, frozen=True, tag="refused", omit_defaults=True):
    """`revision`: of the key's latest change (0: there is no such key), where it was refused because another was expected."""

    reason: str
    revision: int | None = None


Result = Applied | Refused


class Receipt(msgspec.Struct, frozen=True, array_like=True):
    """What became of a request: a retry under the same id gets this answer instead of a second application."""

    index: int
    result: bytes


class Proposal(msgspec.Struct, frozen=True, array_like=True):
    """A command and the id of the request that asks for it. One log entry carries a batch of these.

    `unix_time` (the proposer's wall clock) and `author` are for the events that come of it: nothing is decided by them.
    """

    id: str
    command: bytes
    unix_time: float = 0.0
    author: str = ""


def session_of(request: str) -> tuple[str, int] | None:
    """(session, number) of a request id that ends in a colon and a number, as in `deploy-4f2a:17`; None for any other.

    A session's requests follow one another, each with a larger number: only the latest one's receipt must be kept.
    """
    name, colon, number = request.rpartition(":")
    return (name, int(number)) if colon and name and number.isascii() and number.isdigit() and len(number) < 16 else None


_deterministic = msgspec.msgpack.Encoder(order="deterministic")
_commands: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_results: msgspec.msgpack.Decoder[Result] = msgspec.msgpack.Decoder(Result)
_batches: msgspec.msgpack.Decoder[list[Proposal]] = msgspec.msgpack.Decoder(list[Proposal])


def encode(command: Command) -> bytes:
    return _deterministic.encode(command)


def decode(command: bytes) -> Command:
    """Raises msgspec.DecodeError or msgspec.ValidationError (a subclass) for anything that is no command."""
    return codec.read(_commands, command)


def encode_result(result: Result) -> bytes:
    return _deterministic.encode(result)


def decode_result(result: bytes) -> Result:
    """Raises msgspec.DecodeError."""
    return codec.read(_results, result)


def encode_batch(proposals: Sequence[Proposal]) -> bytes:
    return _deterministic.encode(proposals)


def decode_batch(batch: bytes) -> list[Proposal]:
    """Raises msgspec.DecodeError."""
    return codec.read(_batches, batch)
