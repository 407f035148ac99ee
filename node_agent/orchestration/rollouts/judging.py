"""How a service's rollout fares: which of its new replicas failed, what follows from that, and when it is done."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from msgspec.structs import replace

from hmcore.apps.records import Rollout, Stage
from node_agent.orchestration.rollouts.plan import surplus_slots
from node_agent.orchestration.rollouts.service import Service, by_slot
from node_agent.orchestration.rollouts.situation import Happening


@dataclass(frozen=True, slots=True)
class Judgement:
    """`revert`: why the whole app is to go back to its last healthy generation; empty: it is not."""

    rollout: Rollout
    events: tuple[Happening, ...] = ()
    revert: str = ""


def judge(service: Service, subject: str, *, can_revert: bool) -> Judgement:
    """`subject`: app/service."""
    rollout = service.rollout
    if rollout.stage is not Stage.ROLLING:
        return Judgement(rollout)
    surplus = surplus_slots(service, by_slot(service, (replica for replica in service.replicas if replica.live)))
    trouble = {
        replica.id: replica.trouble
        for replica in sorted(service.replicas, key=lambda replica: replica.id)
        if replica.live and service.new(replica) and not service.failed(replica) and replica.trouble
        if replica.seen.good is None or replica.ended  # what was good is not watched, but what is over is over
        if service.slot(replica) not in surplus  # it is to go: else no way back leads out of too many that are ill
    }
    events = tuple(Happening("replica.failed", id, why) for id, why in trouble.items())
    rollout = replace(rollout, failed=(*rollout.failed, *trouble))
    judged = dataclasses.replace(service, rollout=rollout)
    if not (judged.beyond or judged.in_vain) or service.how.failure_action == "continue":
        return Judgement(rollout, events)
    why = "; ".join(f"{id}: {reason}" for id, reason in list(trouble.items())[:1])
    words = f"{len(rollout.failed)} of {service.wanted} new replicas failed{f' ({why})' if why else ''}"
    if not judged.beyond:
        words = f"no node can take a new replica ({service.no_place})"
    if service.how.failure_action == "rollback":
        if can_revert:
            return Judgement(rollout, events, revert=words)
        words += "; it was going back already" if service.rolling_back else "; there is no earlier healthy generation to go back to"
    paused = Happening("rollout.paused", subject, words)
    return Judgement(replace(rollout, stage=Stage.PAUSED, message=words), (*events, paused))


def finish(service: Service, subject: str) -> Judgement:
    """Call it done if all replicas are as wanted. The judgement is of what is, not of what was just decided."""
    if service.rollout.stage is not Stage.ROLLING or not _reached(service):
        return Judgement(service.rollout)
    words = ""
    if service.beyond:
        words = f"{len(service.rollout.failed)} of {service.wanted} new replicas failed; went on all the same, as failure_action says"
    done = Happening("rollout.done", subject, words or f"all replicas are of generation {service.aim.generation}")
    return Judgement(replace(service.rollout, stage=Stage.STEADY, message=words), (done,))


def _reached(service: Service) -> bool:
    slots = by_slot(service, (replica for replica in service.replicas if replica.live))
    if len(slots) != service.wanted or (service.is_global and {node for _, node in slots} != service.places):
        return False
    return all(
        len(there) == 1
        and service.current(there[0])
        and not there[0].misplaced
        and (service.settled(there[0]) or not service.new(there[0]))
        for there in slots.values()
    )
