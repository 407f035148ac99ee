"""Which replicas are given up with their nodes, when, and what of them may be forgotten. Pure.

A node may be away, or its Docker may not answer while its agent does. Both have their terms; and what is exclusive is dead only once the
node can have no lease any more (docs/adr/0083, 0109, 0111).
"""

from __future__ import annotations

from collections.abc import Mapping

from hmcore.apps.records import Allocation
from hmcore.records import NodeState
from node_agent.orchestration.rollouts.memory import Observed
from node_agent.orchestration.rollouts.plan import Moves
from node_agent.orchestration.rollouts.service import UNSEEN, Replica, Service
from node_agent.orchestration.rollouts.situation import Situation, Terms


def replica_of(situation: Situation, allocation: Allocation, observed: Observed, now: float, terms: Terms) -> Replica:
    node = situation.nodes.get(allocation.node)
    away = observed.away.get(allocation.node)
    down = node is None or (node is NodeState.DOWN and away is not None and now >= away + _patience(situation, allocation.node, terms))
    without = _without_docker(situation, allocation, observed)
    lost = down or (without is not None and now >= without + terms.docker_within)
    silent = _silent(situation, allocation.node, observed)
    fenced = silent is not None and now >= _fenced_at(observed, silent, terms)
    return Replica(
        allocation=allocation,
        status=situation.statuses.get(allocation.id),
        node=node,
        seen=observed.replicas.get(allocation.id, UNSEEN),
        lost=lost and not allocation.done,
        fenced=fenced,
        closed=allocation.node in situation.closed,
    )


def _patience(situation: Situation, node: str, terms: Terms) -> float:
    return terms.back_within if node in situation.stopped else terms.lost_after


def _without_docker(situation: Situation, allocation: Allocation, observed: Observed) -> float | None:
    """Since when its node says so. None: it does not, or nothing is gained by giving it up: what could be nowhere else stays, as it may
    run on, and is started again where it is."""
    pinned = allocation.id in situation.pinned and not allocation.stop and not situation.app.stopping
    return None if pinned else observed.dockerless.get(allocation.node)


def _silent(situation: Situation, node: str, observed: Observed) -> float | None:
    """From when on the fence's time counts. None: it does not. The agent of a node without Docker is heard, but once it asks for no lease
    any more, its fence kills what is exclusive there. What an earlier leader was asked, that granted before this one began."""
    if (away := observed.away.get(node)) is not None or node not in observed.dockerless:
        return away
    return situation.asked.get(node, observed.began or 0.0)


def _fenced_at(observed: Observed, away: float, terms: Terms) -> float:
    """An earlier leader may have heard the node until this one began."""
    return max(away, observed.began if observed.began is not None else away) + terms.fence_after


def terms_of(situation: Situation, replica: Replica, observed: Observed, terms: Terms, *, exclusive: bool) -> list[float]:
    """When it may be another matter though nothing happens."""
    times: list[float] = []
    away = observed.away.get(replica.allocation.node)
    if away is not None and exclusive:
        times.append(_fenced_at(observed, away, terms))
    if away is not None and replica.node is NodeState.DOWN:
        times.append(away + _patience(situation, replica.allocation.node, terms))
    if (without := _without_docker(situation, replica.allocation, observed)) is not None:
        times.append(without + terms.docker_within)
        if exclusive and (silent := _silent(situation, replica.allocation.node, observed)) is not None:
            times.append(_fenced_at(observed, silent, terms))
    return times


def forgettable(situation: Situation, replica: Replica) -> bool:
    """Whoever is given up may never come back. If its node does, what it still has of it is an orphan there, and is removed."""
    if replica.node is None or replica.over:
        return True
    return replica.lost and (situation.app.stopping or replica.id not in situation.anchors)


def fate(replica: Replica) -> str:
    node = replica.allocation.node
    if replica.node is None:
        return f"{node} is no member any more"
    return f"{node} is down" if replica.node is NodeState.DOWN else f"Docker does not answer on {node}"


def stays(
    services: Mapping[str, Service], observed: Observed, situation: Situation, terms: Terms, moves: Mapping[str, Moves]
) -> dict[str, str]:
    """What stays for now where Docker does not answer, of services that wait for nothing else."""
    found = {}
    for name, service in services.items():
        here = [each for each in service.replicas if each.live and not each.allocation.done and each.allocation.node in observed.dockerless]
        if not here or moves[name].wait:
            continue
        nodes = ", ".join(sorted({each.allocation.node for each in here}))
        then = "placed elsewhere" if not service.is_global else "given up there"
        movable = any(_without_docker(situation, each.allocation, observed) is not None for each in here)
        goes = f"; what it has there is {then} after {terms.docker_within:g} s" if movable else ""
        found[name] = f"Docker does not answer on {nodes}{goes}"
    return found
