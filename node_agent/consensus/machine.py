"""The replicated state and what each command (commands.py) does to it. Deterministic and pure: no clock, no randomness, no files.

Every node applies the same batches at the same log indexes and so holds the same state (`state_hash` shows it). A command that cannot
be carried out is refused in the result, never by an exception: an entry that raised would be applied again for ever.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import google_crc32c
import msgspec
from msgspec.structs import replace

from hmcore.records import Cluster, Event, Maintenance, Mute, Node, Registration
from node_agent.consensus.commands import (
    Applied,
    Command,
    ExpireInstances,
    FormCluster,
    MuteCheck,
    Noop,
    PutInstances,
    PutNode,
    Receipt,
    Refused,
    RemoveNode,
    Result,
    SetMaintenance,
    SetNodeState,
    decode,
    decode_batch,
    encode_result,
)
from node_agent.consensus.commands import Proposal as Proposal
from node_agent.consensus.commands import decode_result as decode_result
from node_agent.consensus.commands import encode as encode
from node_agent.consensus.commands import encode_batch as encode_batch

MAX_EVENTS = 200
MAX_INSTANCE_EVENTS = 10  # that one command makes
MAX_RECEIPTS = 4096  # retries are recognised among this many latest requests

T = TypeVar("T")

_SNAPSHOT = struct.Struct(">4sHI")  # magic, format, CRC32C of what follows
_MAGIC = b"HMST"
_FORMAT = 1

_deterministic = msgspec.msgpack.Encoder(order="deterministic")


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command stands in the log, when its proposer sent it, and for whom."""

    index: int
    unix_time: float = 0.0
    author: str = ""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the cluster agrees on, at log index `index`. Never changed in place: readers may keep it."""

    index: int = 0
    cluster: Cluster | None = None
    nodes: Mapping[str, Node] = {}
    registrations: Mapping[str, Registration] = {}  # by node
    maintenance: Mapping[str, Maintenance] = {}  # by target
    mutes: Mapping[str, Mute] = {}  # by their key
    events: tuple[Event, ...] = ()
    receipts: Mapping[str, Receipt] = {}


def apply_batch(state: State, batch: bytes, index: int) -> tuple[State, list[Receipt]]:
    """The state after the log entry at `index`, and one receipt per proposal of the batch, in order.

    A proposal whose id was applied before is not applied again; its receipt is the first one.
    """
    try:
        proposals = decode_batch(batch)
    except msgspec.DecodeError:
        return replace(state, index=index), []
    receipts = dict(state.receipts)
    answers: list[Receipt] = []
    for proposal in proposals:
        receipt = receipts.get(proposal.id)
        if receipt is None:
            state, result = apply(state, proposal.command, Entry(index, proposal.unix_time, proposal.author))
            receipt = receipts[proposal.id] = Receipt(index, result)
        answers.append(receipt)
    if len(receipts) > MAX_RECEIPTS:
        for forgotten in list(receipts)[: len(receipts) - MAX_RECEIPTS]:
            del receipts[forgotten]
    return replace(state, index=index, receipts=receipts), answers


def apply(state: State, command: bytes, entry: Entry) -> tuple[State, bytes]:
    """The state after one command, and the command's encoded Result."""
    try:
        decoded = decode(command)
    except msgspec.DecodeError as error:
        return state, encode_result(Refused(f"not a command that this release knows: {error}"))
    state, result = _carry_out(state, decoded, entry)
    return state, encode_result(result)


def _carry_out(state: State, command: Command, entry: Entry) -> tuple[State, Result]:
    match command:
        case FormCluster(id=id, bootstrap=bootstrap):
            wanted = Cluster(id=id, bootstrap=bootstrap)
            if state.cluster is None:
                formed = replace(state, cluster=wanted)
                return record(formed, entry, "cluster.formed", id, "the cluster was formed"), Applied()
            if (state.cluster.id, state.cluster.bootstrap) == (id, bootstrap):
                return state, Applied(changed=False)
            return state, Refused(f"this is cluster {state.cluster.id} already")
        case PutNode(node=node):
            return _put_node(state, node, entry)
        case SetNodeState():
            return _set_node_state(state, command, entry)
        case RemoveNode(name=name):
            return _remove_node(state, name, entry)
        case PutInstances():
            return _put_instances(state, command, entry)
        case ExpireInstances():
            return _expire_instances(state, command, entry)
        case SetMaintenance():
            return _set_maintenance(state, command, entry)
        case MuteCheck():
            return _mute_check(state, command, entry)
        case Noop():
            return state, Applied(changed=False)


def _put_node(state: State, node: Node, entry: Entry) -> tuple[State, Result]:
    before = state.nodes.get(node.name)
    if before == node:
        return state, Applied(changed=False)
    if before is not None and node.incarnation < before.incarnation:
        return state, Refused(f"{node.name} has started again since")
    after = replace(state, nodes={**state.nodes, node.name: node})
    if before is None:
        return record(after, entry, "node.joined", node.name, f"joined as {node.role.value} at {node.address}"), Applied()
    if before.state is not node.state:
        return record(after, entry, f"node.{node.state.value}", node.name, node.state_reason), Applied()
    return after, Applied()


def _set_node_state(state: State, command: SetNodeState, entry: Entry) -> tuple[State, Result]:
    before = state.nodes.get(command.name)
    if before is None:
        return state, Refused(f"there is no node {command.name}")
    if command.incarnation < before.incarnation:
        return state, Refused(f"{command.name} has started again since")
    after = replace(before, state=command.state, state_reason=command.reason, incarnation=command.incarnation)
    if after == before:
        return state, Applied(changed=False)
    changed = replace(state, nodes={**state.nodes, command.name: after})
    if before.state is command.state:
        return changed, Applied()
    return record(changed, entry, f"node.{command.state.value}", command.name, command.reason), Applied()


def _remove_node(state: State, name: str, entry: Entry) -> tuple[State, Result]:
    if name not in state.nodes:
        return state, Applied(changed=False)
    gone = replace(
        state,
        nodes=_without(state.nodes, name),
        registrations=_without(state.registrations, name),
        maintenance={target: kept for target, kept in state.maintenance.items() if target.partition("/")[0] != name},
        mutes={key: mute for key, mute in state.mutes.items() if mute.node != name},
    )
    return record(gone, entry, "node.removed", name, "the node was removed"), Applied()


def _put_instances(state: State, command: PutInstances, entry: Entry) -> tuple[State, Result]:
    if command.node not in state.nodes:
        return state, Refused(f"there is no node {command.node}")
    before = state.registrations.get(command.node)
    if before is not None and command.incarnation < before.incarnation:
        return state, Refused(f"{command.node} has started again since")
    after = Registration(revision=command.revision, incarnation=command.incarnation, instances=command.instances, index=entry.index)
    if before is not None and after == replace(before, index=entry.index):
        return state, Applied(changed=False)
    changed = replace(state, registrations={**state.registrations, command.node: after})
    known = {instance.id: instance.health for instance in before.instances} if before is not None else {}
    others = [instance for instance in command.instances if known.get(instance.id, instance.health) is not instance.health]
    if len(others) > MAX_INSTANCE_EVENTS:  # a node's hundred containers must not push all other events out
        return record(changed, entry, "registry.changed", command.node, f"{len(others)} instances changed their health"), Applied()
    for instance in others:
        changed = record(changed, entry, f"instance.{instance.health.value}", instance.id, instance.reason)
    return changed, Applied()


def _expire_instances(state: State, command: ExpireInstances, entry: Entry) -> tuple[State, Result]:
    before = state.registrations.get(command.node)
    if before is None or before.revision != command.revision:
        return state, Refused(f"{command.node} has registered other instances since")
    if before.expired == command.reason:
        return state, Applied(changed=False)
    after = replace(before, expired=command.reason, index=entry.index)
    changed = replace(state, registrations={**state.registrations, command.node: after})
    kind, message = ("registry.expired", command.reason) if command.reason else ("registry.renewed", "its instances are renewed again")
    return record(changed, entry, kind, command.node, message), Applied()


def _set_maintenance(state: State, command: SetMaintenance, entry: Entry) -> tuple[State, Result]:
    before = state.maintenance.get(command.target)
    if not command.on:
        if before is None:
            return state, Applied(changed=False)
        back = replace(state, maintenance=_without(state.maintenance, command.target))
        return record(back, entry, "maintenance.ended", command.target, command.reason), Applied()
    if before is not None and before.reason == command.reason:
        return state, Applied(changed=False)
    after = Maintenance(target=command.target, reason=command.reason, author=entry.author, index=entry.index)
    changed = replace(state, maintenance={**state.maintenance, command.target: after})
    return record(changed, entry, "maintenance.began", command.target, command.reason), Applied()


def _mute_check(state: State, command: MuteCheck, entry: Entry) -> tuple[State, Result]:
    after = Mute(check=command.check, node=command.node, reason=command.reason, author=entry.author, index=entry.index)
    key, before = after.key, state.mutes.get(after.key)
    if not command.on:
        if before is None:
            return state, Applied(changed=False)
        return record(replace(state, mutes=_without(state.mutes, key)), entry, "check.unmuted", key, command.reason), Applied()
    if before is not None and before.reason == command.reason:
        return state, Applied(changed=False)
    return record(replace(state, mutes={**state.mutes, key: after}), entry, "check.muted", key, command.reason), Applied()


def record(state: State, entry: Entry, kind: str, subject: str, message: str) -> State:
    event = Event(index=entry.index, kind=kind, subject=subject, message=message, author=entry.author, unix_time=entry.unix_time)
    return replace(state, events=(*state.events, event)[-MAX_EVENTS:])


def _without(mapping: Mapping[str, T], key: str) -> dict[str, T]:
    return {name: value for name, value in mapping.items() if name != key}


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
