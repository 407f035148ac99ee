"""Numbers of replicas that are more likely a slip of the finger than a wish. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from hmcore.apps.spec import AppSpec, Resources, ServiceSpec
from hmctl.actions.apps.plan import Plan
from hmctl.text import plural

MOST_PER_NODE = 50  # replicas of an app, on average: more than that is asked about


def doubts(present: AppSpec, wanted: Plan, capacity: Mapping[str, Resources]) -> list[str]:
    """What speaks against more replicas, in words. `capacity`: of the nodes where replicas may be placed; none: nobody can tell. Fewer are
    never in doubt."""
    before = {name: _replicas(spec) for name, spec in present.services.items()}
    grown = {name: spec for name, spec in wanted.spec.services.items() if _replicas(spec) > before.get(name, 0)}
    if not capacity or not grown:
        return []
    found, nodes = [], plural(len(capacity), "node")
    total = sum(map(_replicas, wanted.spec.services.values()))
    if total > MOST_PER_NODE * len(capacity):
        found.append(f"{total} replicas of {wanted.name} are more than {MOST_PER_NODE} for each of {nodes}")
    for name, spec in sorted(grown.items()):
        most = sum(_fitting(spec.reservations, each) for each in capacity.values()) if _reserves(spec.reservations) else spec.replicas
        if spec.replicas > most:
            found.append(
                f"on {nodes} there is room for {most} of the {spec.replicas} replicas of {name}, by what they reserve, and nothing else"
            )
    return found


def _replicas(spec: ServiceSpec) -> int:
    return 0 if spec.mode == "global" else spec.replicas


def _reserves(wanted: Resources) -> bool:
    return wanted.cpus > 0 or wanted.memory > 0


def _fitting(wanted: Resources, has: Resources) -> int:
    """How many an empty node has room for. What is not reserved sets no limit; something is."""
    pairs = ((wanted.cpus, has.cpus), (wanted.memory, has.memory))
    return min(room // each for each, room in pairs if each > 0)
