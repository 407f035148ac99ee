"""What a service waits for before its first replicas of a generation are started: the conditions of `depends_on`.

As in Compose, all replicas of the other service count, but only those that there are: one that has no place holds nobody up.
"""

from __future__ import annotations

from collections.abc import Mapping

from hmcore.apps.records import Phase
from hmcore.apps.spec import Dependency
from node_agent.orchestration.rollouts.service import Replica, Service


def gate(service: Service, services: Mapping[str, Service]) -> str:
    """What it waits for, in words; empty: for nothing. `services`: all of the app."""
    for name, on in service.spec.depends_on.items():
        other = services.get(name)
        if other is None:
            if on.required:
                return f"it depends on {name}, which is not part of the app"
        elif not _met(other, on) and (on.required or not _hopeless(other)):
            return f"{name} has not {on.condition} yet" if on.condition != "healthy" else f"{name} is not healthy yet"
    return ""


def _met(other: Service, on: Dependency) -> bool:
    if other.wanted == 0:
        return True
    there = [replica for replica in other.replicas if replica.live]
    if not all(other.current(replica) for replica in there):
        return False
    fulfilled = [replica for replica in there if _fulfils(replica, on)]
    return bool(fulfilled) and all(replica in fulfilled or other.failed(replica) or replica.ended for replica in there)


def _fulfils(replica: Replica, on: Dependency) -> bool:
    match on.condition:
        case "completed":
            return replica.ended_well
        case "healthy":
            return replica.fit
        case "started":
            return replica.ended_well or (replica.status is not None and replica.status.phase is Phase.RUNNING)


def _hopeless(other: Service) -> bool:
    """It will not come to it by itself."""
    there = [replica for replica in other.replicas if replica.live]
    return other.paused or (bool(there) and all(replica.ended or other.failed(replica) for replica in there))
