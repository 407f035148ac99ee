"""Whom this node connects to: the initial voters, and the members as the log has them. Workers need no worker. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from hmcore.config.agent import AgentConfig
from hmcore.records import Node, Role
from node_agent.transport.circuit import dials
from node_agent.transport.link import PeerAddress


def control_nodes(config: AgentConfig, nodes: Mapping[str, Node]) -> list[str]:
    """Where heartbeats go, ourselves included."""
    return sorted({voter.name for voter in config.voters} | {node.name for node in nodes.values() if node.role is Role.CONTROL})


def peer_addresses(config: AgentConfig, nodes: Mapping[str, Node]) -> dict[str, PeerAddress]:
    """The other nodes, where they are, and which of us dials. What the log says of a node counts more than the configuration."""
    places = {voter.name: (voter.address, voter.port, Role.CONTROL) for voter in config.voters}
    places |= {node.name: (node.address, node.port, node.role) for node in nodes.values()}
    return {
        name: PeerAddress(
            address,
            port,
            dials(config.node, config.role.value, name, role.value),
            fallback=role is config.role,  # of two control nodes, one may not know yet that the other is one, and wait for it to dial
        )
        for name, (address, port, role) in places.items()
        if name != config.node and Role.CONTROL in (role, config.role)
    }
