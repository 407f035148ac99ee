"""Nodes as the scheduler sees them: members, and what each says that it has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from hmcore.apps.constraints import Platform
from hmcore.apps.records import Machine
from hmcore.apps.spec import Resources
from hmcore.records import Node
from node_agent.orchestration.scheduling.model import Candidate


class View(Protocol):
    @property
    def nodes(self) -> Mapping[str, Node]: ...
    @property
    def machines(self) -> Mapping[str, Machine]: ...


def candidates(view: View) -> tuple[Candidate, ...]:
    """All members. One that has not told what it has yet gets nothing: it does not say that its Docker answers."""
    return tuple(_candidate(node, view.machines.get(name)) for name, node in sorted(view.nodes.items()))


def _candidate(node: Node, machine: Machine | None) -> Candidate:
    if machine is None:
        return Candidate(node=node, capacity=Resources(), engine=False)
    return Candidate(
        node=node,
        capacity=Resources(cpus=machine.cpus, memory=machine.memory),
        platform=Platform(os=machine.os, arch=machine.arch),
        images=frozenset(machine.images),
        volumes=frozenset(machine.volumes),
        engine=machine.engine,
        apps=machine.apps,
    )


def homes(view: View) -> dict[str, str]:
    """By the Docker names of volumes, the node where the data is, also while that is down: nothing shall begin elsewhere with an empty one.
    Of a volume that several nodes have, none, for nobody can tell which is the right one."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for name, machine in sorted(view.machines.items()):
        for volume in machine.volumes:
            if found.setdefault(volume, name) != name:
                twice.add(volume)
    return {volume: node for volume, node in found.items() if volume not in twice}
