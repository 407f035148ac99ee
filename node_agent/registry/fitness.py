"""How fit an instance is, when everything known is taken together: its own word, its node's state, who vouches for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from hmcore.records import Instance, InstanceHealth, Node, NodeState, Registration

_SEVERITY: Mapping[InstanceHealth, int] = {
    InstanceHealth.HEALTHY: 0,
    InstanceHealth.DEGRADED: 1,
    InstanceHealth.UNKNOWN: 2,
    InstanceHealth.UNHEALTHY: 3,
}
_BY_NODE: Mapping[NodeState, InstanceHealth] = {
    NodeState.SUSPECT: InstanceHealth.UNHEALTHY,
    NodeState.DOWN: InstanceHealth.UNHEALTHY,
    NodeState.UNREACHABLE: InstanceHealth.UNHEALTHY,
    NodeState.DRAINING: InstanceHealth.DEGRADED,  # it still serves, for want of others
    NodeState.DRAINED: InstanceHealth.DEGRADED,
}


def worse(one: InstanceHealth, other: InstanceHealth) -> InstanceHealth:
    return max(one, other, key=lambda health: _SEVERITY[health])


def fitness(instance: Instance, node: Node | None, registration: Registration) -> tuple[InstanceHealth, str]:
    """The instance's health as it counts, and why.

    What nobody has renewed within the TTL is unknown, whatever else was known of it: that is too old. A node that is degraded says of
    each of its instances itself what is wrong with it.
    """
    if node is None:
        return InstanceHealth.UNKNOWN, f"{instance.node} is no member"
    if registration.expired:
        return InstanceHealth.UNKNOWN, registration.expired
    by_node = _BY_NODE.get(node.state)
    if by_node is None or worse(instance.health, by_node) is not by_node or instance.health is by_node:
        return instance.health, instance.reason
    return by_node, f"{node.name} is {node.state.value}{f': {node.state_reason}' if node.state_reason else ''}"
