"""The cluster itself, its members, and whose votes count."""

from __future__ import annotations

from msgspec.structs import replace

from hmcore.errors import ReleaseTooOld
from hmcore.records import Cluster, Configuration, Node
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.commands import (
    Applied,
    ChangeVoters,
    FormCluster,
    NoteDivergence,
    RaiseFeatureLevel,
    Refused,
    Result,
    SetNodeState,
)
from node_agent.consensus.statemachine.effects import apps
from node_agent.consensus.statemachine.state import Draft, Entry


def form_cluster(draft: Draft, command: FormCluster, entry: Entry) -> Result:
    known = draft.state.cluster
    if known is not None:
        if (known.id, known.bootstrap) == (command.id, command.bootstrap):
            return Applied(changed=False)
        return Refused(f"this is cluster {known.id} already")
    if command.level > draft.latest:
        raise ReleaseTooOld(command.level, draft.latest)
    draft.replace(cluster=Cluster(id=command.id, bootstrap=command.bootstrap, feature_level=max(command.level, levels.BASE)))
    if draft.state.level >= levels.TRUSTED:
        draft.begin_digest()
    draft.record(entry, "cluster.formed", command.id, "the cluster was formed")
    return Applied()


def raise_level(draft: Draft, command: RaiseFeatureLevel, entry: Entry) -> Result:
    cluster = draft.state.cluster
    if cluster is None:
        return Refused("the cluster is not formed yet")
    if command.level <= cluster.feature_level:
        return Applied(changed=False)
    if command.level > draft.latest:
        raise ReleaseTooOld(command.level, draft.latest)
    had_digest = cluster.feature_level >= levels.TRUSTED
    draft.replace(cluster=replace(cluster, feature_level=command.level))
    if not had_digest:
        draft.begin_digest()
    draft.record(entry, "cluster.level", cluster.id, f"the feature level is {command.level}")
    return Applied()


def change_voters(draft: Draft, command: ChangeVoters, entry: Entry) -> Result:
    before = draft.state.configuration
    draft.replace(configuration=Configuration(voters=command.voters, learners=command.learners, index=entry.index))
    known = set(before.voters) if before is not None else set()
    if before is None or known != set(command.voters):
        draft.record(entry, "voters.changed", ", ".join(command.voters), _difference(known, set(command.voters)))
    return Applied()


def note_divergence(draft: Draft, command: NoteDivergence, entry: Entry) -> Result:
    others = ", ".join(command.others)
    draft.record(entry, "state.diverged", command.node, f"since log index {command.index}, or before, its state is not that of {others}")
    return Applied()


def _difference(before: set[str], after: set[str]) -> str:
    if not before:
        return "the voters are recorded"
    words = [f"{', '.join(sorted(after - before))} may vote"] if after - before else []
    words += [f"{', '.join(sorted(before - after))} may vote no longer"] if before - after else []
    return "; ".join(words)


def put_node(draft: Draft, node: Node, entry: Entry) -> Result:
    before = draft.table("nodes").get(node.name)
    if before == node:
        return Applied(changed=False)
    if before is not None and node.incarnation < before.incarnation:
        return Refused(f"{node.name} has started again since")
    draft.put("nodes", node.name, node)
    if before is None:
        draft.record(entry, "node.joined", node.name, f"joined as {node.role.value} at {node.address}")
    elif before.state is not node.state:
        draft.record(entry, f"node.{node.state.value}", node.name, node.state_reason)
    return Applied()


def set_node_state(draft: Draft, command: SetNodeState, entry: Entry) -> Result:
    before = draft.table("nodes").get(command.name)
    if before is None:
        return Refused(f"there is no node {command.name}")
    if command.incarnation < before.incarnation:
        return Refused(f"{command.name} has started again since")
    after = replace(before, state=command.state, state_reason=command.reason, incarnation=command.incarnation)
    if after == before:
        return Applied(changed=False)
    draft.put("nodes", command.name, after)
    if before.state is not command.state:
        draft.record(entry, f"node.{command.state.value}", command.name, command.reason)
    return Applied()


def remove_node(draft: Draft, name: str, entry: Entry) -> Result:
    if name not in draft.table("nodes"):
        return Applied(changed=False)
    draft.remove("nodes", name)
    if name in draft.table("registrations"):
        draft.remove("registrations", name)
    for target in [target for target in draft.table("maintenance") if target.partition("/")[0] == name]:
        draft.remove("maintenance", target)
    for key in [key for key, mute in draft.table("mutes").items() if mute.node == name]:
        draft.remove("mutes", key)
    apps.forget_node(draft, name)
    draft.record(entry, "node.removed", name, "the node was removed")
    return Applied()
