"""Which nodes are to get a subnet, as the leader decides it. Pure: what the log has in, commands for the log out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hmcore.apps.records import Subnet
from hmcore.apps.subnets import Exhausted, lowest_free
from hmcore.config.settings import Network
from node_agent.consensus.statemachine.appcommands import PutSubnet


@dataclass(frozen=True, slots=True)
class Assignment:
    """`commands` in their order, each allowed whether or not those before it came through. `lacking`: why nodes are left without, if any
    are."""

    commands: tuple[PutSubnet, ...] = ()
    lacking: str = ""


def missing(network: Network, nodes: Collection[str], subnets: Mapping[str, Subnet]) -> Assignment:
    """For every node that has none: the lowest that is free, by the nodes' names. Raises UsageError when the log holds one that is no
    network."""
    taken = [subnet.cidr for subnet in subnets.values()]
    commands: list[PutSubnet] = []
    for node in sorted(set(nodes) - subnets.keys()):
        match lowest_free(network, taken):
            case Exhausted() as exhausted:
                left = len(set(nodes) - subnets.keys()) - len(commands)
                return Assignment(tuple(commands), f"{left} nodes have no subnet for containers: {exhausted}")
            case cidr:
                taken.append(cidr)
                commands.append(PutSubnet(subnet=Subnet(node=node, cidr=cidr)))
    return Assignment(tuple(commands))
