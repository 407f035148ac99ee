"""Instances, and what operators say about them and about health checks."""

from __future__ import annotations

from msgspec.structs import replace

from hmcore.records import Maintenance, Mute, Registration
from node_agent.consensus.statemachine.commands import Applied, ExpireInstances, MuteCheck, PutInstances, Refused, Result, SetMaintenance
from node_agent.consensus.statemachine.state import Draft, Entry

MAX_INSTANCE_EVENTS = 10  # that one command makes


def put_instances(draft: Draft, command: PutInstances, entry: Entry) -> Result:
    if command.node not in draft.table("nodes"):
        return Refused(f"there is no node {command.node}")
    before = draft.table("registrations").get(command.node)
    if before is not None and command.incarnation < before.incarnation:
        return Refused(f"{command.node} has started again since")
    after = Registration(revision=command.revision, incarnation=command.incarnation, instances=command.instances, index=entry.index)
    if before is not None and after == replace(before, index=entry.index):
        return Applied(changed=False)
    draft.put("registrations", command.node, after)
    known = {instance.id: instance.health for instance in before.instances} if before is not None else {}
    others = [instance for instance in command.instances if known.get(instance.id, instance.health) is not instance.health]
    if len(others) > MAX_INSTANCE_EVENTS:  # a node's hundred containers must not push all other events out
        draft.record(entry, "registry.changed", command.node, f"{len(others)} instances changed their health")
        return Applied()
    for instance in others:
        draft.record(entry, f"instance.{instance.health.value}", instance.id, instance.reason)
    return Applied()


def expire_instances(draft: Draft, command: ExpireInstances, entry: Entry) -> Result:
    before = draft.table("registrations").get(command.node)
    if before is None or before.revision != command.revision:
        return Refused(f"{command.node} has registered other instances since")
    if before.expired == command.reason:
        return Applied(changed=False)
    draft.put("registrations", command.node, replace(before, expired=command.reason, index=entry.index))
    kind, message = ("registry.expired", command.reason) if command.reason else ("registry.renewed", "its instances are renewed again")
    draft.record(entry, kind, command.node, message)
    return Applied()


def set_maintenance(draft: Draft, command: SetMaintenance, entry: Entry) -> Result:
    before = draft.table("maintenance").get(command.target)
    if not command.on:
        if before is None:
            return Applied(changed=False)
        draft.remove("maintenance", command.target)
        draft.record(entry, "maintenance.ended", command.target, command.reason)
        return Applied()
    if before is not None and before.reason == command.reason:
        return Applied(changed=False)
    after = Maintenance(target=command.target, reason=command.reason, author=entry.author, index=entry.index)
    draft.put("maintenance", command.target, after)
    draft.record(entry, "maintenance.began", command.target, command.reason)
    return Applied()


def mute_check(draft: Draft, command: MuteCheck, entry: Entry) -> Result:
    after = Mute(check=command.check, node=command.node, reason=command.reason, author=entry.author, index=entry.index)
    key, before = after.key, draft.table("mutes").get(after.key)
    if not command.on:
        if before is None:
            return Applied(changed=False)
        draft.remove("mutes", key)
        draft.record(entry, "check.unmuted", key, command.reason)
        return Applied()
    if before is not None and before.reason == command.reason:
        return Applied(changed=False)
    draft.put("mutes", key, after)
    draft.record(entry, "check.muted", key, command.reason)
    return Applied()
