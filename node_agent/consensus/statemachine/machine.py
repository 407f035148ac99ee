"""What a log entry does to the replicated state. Deterministic and pure: no clock, no randomness, no files.

Every node applies the same batches at the same log indexes and so holds the same state (`state_hash` shows it). A command that cannot
be carried out is refused in the result, never by an exception: an entry that raised would be applied again for ever. There is one
exception: who does not know the feature level that an entry brings can only stop (ReleaseTooOld), or it would diverge.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from node_agent.consensus.statemachine import levels
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
from node_agent.consensus.statemachine.commands import (
    AcquireLock,
    Applied,
    ChangeVoters,
    Command,
    DeleteKey,
    ExpireInstances,
    ExpireLock,
    FormCluster,
    MuteCheck,
    Noop,
    NoteDivergence,
    PutInstances,
    PutKey,
    PutNode,
    RaiseFeatureLevel,
    Receipt,
    Refused,
    ReleaseLock,
    RemoveNode,
    Result,
    SetMaintenance,
    SetNodeState,
    decode,
    decode_batch,
    encode_result,
)
from node_agent.consensus.statemachine.commands import Proposal as Proposal
from node_agent.consensus.statemachine.commands import decode_result as decode_result
from node_agent.consensus.statemachine.commands import encode as encode
from node_agent.consensus.statemachine.commands import encode_batch as encode_batch
from node_agent.consensus.statemachine.effects import apps, images, keys, locks, members, registry, secrets, statuses
from node_agent.consensus.statemachine.receipts import Receipts
from node_agent.consensus.statemachine.secretcommands import PutKeeper, PutSecret, RemoveSecret, TurnKey
from node_agent.consensus.statemachine.state import Change, Draft, Entry, State
from node_agent.consensus.statemachine.state import restore as restore
from node_agent.consensus.statemachine.state import snapshot as snapshot
from node_agent.consensus.statemachine.state import state_hash as state_hash


class Outcome(NamedTuple):
    """The state after a log entry, a receipt for each proposal of its batch in order, and what changed in the tables."""

    state: State
    receipts: list[Receipt]
    changes: list[Change]


def apply_batch(state: State, batch: bytes, index: int, *, configures: bool = False, latest: int = levels.LATEST) -> Outcome:
    """Carry out the log entry at `index`. A proposal whose id was applied before is not applied again; its receipt is the first one.

    `configures`: it is a configuration entry, the only kind that may change the voters. `latest`: the highest feature level that we know.
    Raises ReleaseTooOld.
    """
    draft = Draft(state, latest)
    try:
        proposals = decode_batch(batch)
    except msgspec.DecodeError:
        return Outcome(draft.finish(index), [], [])
    receipts = Receipts(draft)
    answers: list[Receipt] = []
    for proposal in proposals:
        receipt = None if configures else receipts.known(proposal.id, index)  # a configuration holds since it was logged, come what may
        if receipt is None:
            entry = Entry(index, proposal.unix_time, proposal.author)
            receipt = Receipt(index, encode_result(carry_out(draft, proposal.command, entry, configures=configures)))
            receipts.keep(proposal.id, receipt)
        answers.append(receipt)
    receipts.finish()
    if draft.state.level >= levels.TRUSTED:
        draft.remember(msgspec.msgpack.encode(answers))
    return Outcome(draft.finish(index), answers, draft.changes)


def apply(state: State, command: bytes, entry: Entry) -> tuple[State, bytes]:
    """The state after one command, and the command's encoded Result."""
    draft = Draft(state)
    result = carry_out(draft, command, entry)
    return draft.finish(state.index), encode_result(result)


def carry_out(draft: Draft, command: bytes, entry: Entry, *, configures: bool = False) -> Result:
    try:
        decoded = decode(command)
        if levels.needed(decoded) > draft.latest:
            raise msgspec.ValidationError("it belongs to a later release")
    except msgspec.DecodeError as error:
        reason = "not a command that this release knows"  # the same on every node: how msgspec puts it depends on its release, too
        return Refused(reason if draft.state.level >= levels.TRUSTED else f"{reason}: {error}")
    if (refused := too_new(draft.state, decoded)) is not None:
        return refused
    if isinstance(decoded, ChangeVoters) is not configures:
        return Refused("voters are changed by a configuration entry of their own, and nothing else is")
    return _effect(draft, decoded, entry)


def too_new(state: State, command: Command) -> Refused | None:
    """Why a command cannot be carried out at the feature level in force, if so."""
    wanted = levels.needed(command)
    if wanted <= state.level:
        return None
    kind = type(command).__struct_config__.tag
    return Refused(f"{kind} needs feature level {wanted}, the cluster is at {state.level} until all its nodes run a release that knows it")


def _effect(draft: Draft, command: Command, entry: Entry) -> Result:
    match command:
        case PutKey():
            return keys.put_key(draft, command)
        case DeleteKey():
            return keys.delete_key(draft, command)
        case FormCluster():
            return members.form_cluster(draft, command, entry)
        case RaiseFeatureLevel():
            return members.raise_level(draft, command, entry)
        case ChangeVoters():
            return members.change_voters(draft, command, entry)
        case PutNode(node=node):
            return members.put_node(draft, node, entry)
        case SetNodeState():
            return members.set_node_state(draft, command, entry)
        case RemoveNode(name=name):
            return members.remove_node(draft, name, entry)
        case PutInstances():
            return registry.put_instances(draft, command, entry)
        case ExpireInstances():
            return registry.expire_instances(draft, command, entry)
        case SetMaintenance():
            return registry.set_maintenance(draft, command, entry)
        case MuteCheck():
            return registry.mute_check(draft, command, entry)
        case AcquireLock():
            return locks.acquire_lock(draft, command, entry)
        case ReleaseLock() | ExpireLock():
            return locks.release_lock(draft, command, entry)
        case NoteDivergence():
            return members.note_divergence(draft, command, entry)
        case PutApp():
            return apps.put_app(draft, command, entry)
        case ScaleApp():
            return apps.scale_app(draft, command, entry)
        case RestartApp():
            return apps.restart_app(draft, command, entry)
        case StopApp():
            return apps.stop_app(draft, command, entry)
        case PlanApp():
            return apps.plan_app(draft, command, entry)
        case PutStatuses():
            return statuses.put_statuses(draft, command, entry)
        case PutSubnet():
            return apps.put_subnet(draft, command, entry)
        case PutImage():
            return images.put_image(draft, command, entry)
        case RemoveImage():
            return images.remove_image(draft, command, entry)
        case HoldImage():
            return images.hold_image(draft, command, entry)
        case PutKeeper():
            return secrets.put_keeper(draft, command, entry)
        case TurnKey():
            return secrets.turn_key(draft, command, entry)
        case PutSecret():
            return secrets.put_secret(draft, command, entry)
        case RemoveSecret():
            return secrets.remove_secret(draft, command, entry)
        case AdmitNode():
            return apps.admit_node(draft, command, entry)
        case Noop():
            return Applied(changed=False)
