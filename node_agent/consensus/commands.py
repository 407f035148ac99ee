"""The commands that change the replicated state, what becomes of them, and how both are written. What they do is in machine.py.

Every node decodes what another one encoded, maybe with a neighbouring release: fields are added with a default, never changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hmcore.records import Instance, Node, NodeState


class FormCluster(msgspec.Struct, frozen=True, kw_only=True, tag="form-cluster"):
    """The first command of a cluster's life, proposed by the first leader. Repeated with the same ids, it changes nothing."""

    id: str
    bootstrap: str


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


Command = FormCluster | PutNode | SetNodeState | RemoveNode | PutInstances | ExpireInstances | SetMaintenance | MuteCheck | Noop


class Applied(msgspec.Struct, frozen=True, tag="applied"):
    """Carried out. `changed` is False when everything was as wanted already."""

    changed: bool = True


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    reason: str


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


_deterministic = msgspec.msgpack.Encoder(order="deterministic")
_commands: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_results: msgspec.msgpack.Decoder[Result] = msgspec.msgpack.Decoder(Result)


def encode(command: Command) -> bytes:
    return _deterministic.encode(command)


def decode(command: bytes) -> Command:
    """Raises msgspec.DecodeError or msgspec.ValidationError (a subclass) for anything that is no command."""
    return _commands.decode(command)


def encode_result(result: Result) -> bytes:
    return _deterministic.encode(result)


def decode_result(result: bytes) -> Result:
    return _results.decode(result)


def encode_batch(proposals: Sequence[Proposal]) -> bytes:
    return _deterministic.encode(proposals)


def decode_batch(batch: bytes) -> list[Proposal]:
    return msgspec.msgpack.decode(batch, type=list[Proposal])
