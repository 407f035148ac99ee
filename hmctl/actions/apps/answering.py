"""Whether nodes answer at published ports, by their own word: one on which a program of the node listens already is left to that, and a
rollout does not wait for it. Said once an app that publishes ports runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hmcore.apps.ports import port_words, published
from hmcore.apps.spec import AppSpec
from hmcore.errors import HyperMeshError
from hmcore.records import ComponentState, NodeReport
from hmctl.actions.agents import Agents
from hmctl.client import Access, Via
from hmctl.text import listed

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


async def reports(inventory: Inventory, store: OperatorStore, via: Via) -> list[NodeReport]:
    """Of all nodes that answer, by name. Who is silent is not complained of: `hmctl status` does that."""
    async with Agents(inventory.hosts, Access.of(store, via), via=via) as agents:
        answers = await agents.ask_all(lambda agent: agent.report(members=False))
    return [answer for _, answer in sorted(answers.items()) if isinstance(answer, NodeReport)]


def unanswered(spec: AppSpec, nodes: Sequence[NodeReport]) -> HyperMeshError | None:
    """The ports of an app that is `spec` at which no node answers: nobody can reach it there. None: there is no such port."""
    wanted = sorted({number for service in spec.services.values() if not service.container.network_mode for number in published(service)})
    everywhere = set.intersection(*(set(node.unpublished) for node in nodes)) if nodes else set()
    found = [words for port, protocol in wanted if (words := port_words(protocol, port)) in everywhere]
    if not found:
        return None
    fix = "publish another port and deploy again; or stop the program of the nodes that listens there: ss -lntup says which"
    return HyperMeshError(f"no node answers at {listed(found)}, which the app publishes", fix=fix)


def troubles(nodes: Sequence[NodeReport]) -> list[Trouble]:
    found = []
    for node in nodes:
        name, network = node.name, node.components.get(NETWORK)
        if network is not None and network.state in (ComponentState.DEGRADED, ComponentState.ERROR) and network.error:
            fix = f"on {name}: {network.fix}" if network.fix else f"hmctl node inspect {name}"
            found.append(Trouble(f"the containers' network of {name}: {network.error}", fix))
    return found
