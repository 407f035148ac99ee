"""Whether nodes answer at published ports, by their own word: one on which a program of the node listens already is left to that, and a
rollout does not wait for it. Said once an app that publishes ports runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hmcore.apps.spec import AppSpec
from hmcore.errors import HyperMeshError
from hmcore.records import ComponentState, NodeReport
from hmctl.actions.agents import Agents
from hmctl.client import Access, Via

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory
    from hmctl.state import OperatorStore

NETWORK = "network"  # the component that publishes ports


@dataclass(frozen=True, slots=True)
class Trouble:
    """Of one node's part of the containers' network, in words, and the command that helps."""

    words: str
    fix: str | None


def publishes(spec: AppSpec) -> bool:
    return any(service.ports and not service.container.network_mode for service in spec.services.values())


async def troubles(inventory: Inventory, store: OperatorStore, via: Via) -> list[Trouble]:
    """All nodes that answer are asked. Who is silent is not complained of: `hmctl status` does that."""
    async with Agents(inventory.hosts, Access.of(store, via), via=via) as agents:
        return found_in(await agents.ask_all(lambda agent: agent.report(members=False)))


def found_in(answers: Mapping[str, NodeReport | HyperMeshError]) -> list[Trouble]:
    """By the names of the nodes."""
    found = []
    for name, answer in sorted(answers.items()):
        network = None if isinstance(answer, HyperMeshError) else answer.components.get(NETWORK)
        if network is not None and network.state in (ComponentState.DEGRADED, ComponentState.ERROR) and network.error:
            fix = f"on {name}: {network.fix}" if network.fix else f"hmctl node inspect {name}"
            found.append(Trouble(f"the containers' network of {name}: {network.error}", fix))
    return found
