"""The replicated state and the commands that change it. Deterministic and pure: no clock, no randomness, no files.

Every node applies the same batches at the same log indexes and so holds the same state (`state_hash` shows it). A command that cannot
be carried out is refused in the result, never by an exception: an entry that raised would be applied again for ever.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

import google_crc32c
import msgspec

from hmcore.records import Cluster, Event, Node, NodeState

MAX_EVENTS = 200
MAX_RECEIPTS = 4096  # retries are recognised among this many latest requests

_SNAPSHOT = struct.Struct(">4sHI")  # magic, format, CRC32C of what follows
_MAGIC = b"HMST"
_FORMAT = 1


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


Command = FormCluster | PutNode | SetNodeState | RemoveNode | Noop


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
    """A command and the id of the request that asks for it. One log entry carries a batch of these."""

    id: str
    command: bytes


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the cluster agrees on, at log index `index`. Never changed in place: readers may keep it."""

    index: int = 0
    cluster: Cluster | None = None
    nodes: Mapping[str, Node] = {}
    events: tuple[Event, ...] = ()
    receipts: Mapping[str, Receipt] = {}


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


def apply_batch(state: State, batch: bytes, index: int) -> tuple[State, list[Receipt]]:
    """The state after the log entry at `index`, and one receipt per proposal of the batch, in order.

    A proposal whose id was applied before is not applied again; its receipt is the first one.
    """
    try:
        proposals = decode_batch(batch)
    except msgspec.DecodeError:
        return msgspec.structs.replace(state, index=index), []
    receipts = dict(state.receipts)
    answers: list[Receipt] = []
    for proposal in proposals:
        receipt = receipts.get(proposal.id)
        if receipt is None:
            state, result = apply(state, proposal.command, index)
            receipt = receipts[proposal.id] = Receipt(index, result)
        answers.append(receipt)
    if len(receipts) > MAX_RECEIPTS:
        for forgotten in list(receipts)[: len(receipts) - MAX_RECEIPTS]:
            del receipts[forgotten]
    return msgspec.structs.replace(state, index=index, receipts=receipts), answers


def apply(state: State, command: bytes, index: int) -> tuple[State, bytes]:
    """The state after one command, and the command's encoded Result."""
    try:
        decoded = decode(command)
    except msgspec.DecodeError as error:
        return state, encode_result(Refused(f"not a command that this release knows: {error}"))
    state, result = _carry_out(state, decoded, index)
    return state, encode_result(result)


def _carry_out(state: State, command: Command, index: int) -> tuple[State, Result]:
    match command:
        case FormCluster(id=id, bootstrap=bootstrap):
            wanted = Cluster(id=id, bootstrap=bootstrap)
            if state.cluster is None:
                formed = msgspec.structs.replace(state, cluster=wanted)
                return _record(formed, index, "cluster.formed", id, "the cluster was formed"), Applied()
            if (state.cluster.id, state.cluster.bootstrap) == (id, bootstrap):
                return state, Applied(changed=False)
            return state, Refused(f"this is cluster {state.cluster.id} already")
        case PutNode(node=node):
            return _put_node(state, node, index)
        case SetNodeState():
            return _set_node_state(state, command, index)
        case RemoveNode(name=name):
            if name not in state.nodes:
                return state, Applied(changed=False)
            rest = {key: node for key, node in state.nodes.items() if key != name}
            return _record(msgspec.structs.replace(state, nodes=rest), index, "node.removed", name, "the node was removed"), Applied()
        case Noop():
            return state, Applied(changed=False)


def _put_node(state: State, node: Node, index: int) -> tuple[State, Result]:
    before = state.nodes.get(node.name)
    if before == node:
        return state, Applied(changed=False)
    if before is not None and node.incarnation < before.incarnation:
        return state, Refused(f"{node.name} has started again since")
    after = msgspec.structs.replace(state, nodes={**state.nodes, node.name: node})
    if before is None:
        return _record(after, index, "node.joined", node.name, f"joined as {node.role.value} at {node.address}"), Applied()
    if before.state is not node.state:
        return _record(after, index, f"node.{node.state.value}", node.name, node.state_reason), Applied()
    return after, Applied()


def _set_node_state(state: State, command: SetNodeState, index: int) -> tuple[State, Result]:
    before = state.nodes.get(command.name)
    if before is None:
        return state, Refused(f"there is no node {command.name}")
    if command.incarnation < before.incarnation:
        return state, Refused(f"{command.name} has started again since")
    after = msgspec.structs.replace(before, state=command.state, state_reason=command.reason, incarnation=command.incarnation)
    if after == before:
        return state, Applied(changed=False)
    changed = msgspec.structs.replace(state, nodes={**state.nodes, command.name: after})
    if before.state is command.state:
        return changed, Applied()
    return _record(changed, index, f"node.{command.state.value}", command.name, command.reason), Applied()


def _record(state: State, index: int, kind: str, subject: str, message: str) -> State:
    event = Event(index=index, kind=kind, subject=subject, message=message)
    return msgspec.structs.replace(state, events=(*state.events, event)[-MAX_EVENTS:])


def state_hash(state: State) -> str:
    """Equal on all nodes at equal index, or somebody's state has diverged."""
    return hashlib.sha256(_deterministic.encode(state)).hexdigest()


def snapshot(state: State) -> bytes:
    """The state as bytes that `restore` accepts: magic, format, checksum, msgpack."""
    body = msgspec.msgpack.encode(state)  # receipts keep their order: it decides which is forgotten first
    return _SNAPSHOT.pack(_MAGIC, _FORMAT, google_crc32c.value(body)) + body


def restore(data: bytes) -> State:
    """The state in a snapshot. Raises ValueError, saying what is wrong with it."""
    if len(data) < _SNAPSHOT.size:
        raise ValueError("the snapshot ends early")
    magic, version, checksum = _SNAPSHOT.unpack_from(data)
    body = data[_SNAPSHOT.size :]
    if magic != _MAGIC or version != _FORMAT:
        raise ValueError(f"not a snapshot of format {_FORMAT}")
    if google_crc32c.value(body) != checksum:
        raise ValueError("the snapshot's checksum does not hold")
    try:
        return msgspec.msgpack.decode(body, type=State)
    except msgspec.DecodeError as error:
        raise ValueError(f"the snapshot cannot be read: {error}") from error
