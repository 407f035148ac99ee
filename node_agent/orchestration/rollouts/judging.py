"""How a service's rollout fares: which of its new replicas failed, what follows from that, and when it is done."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from msgspec.structs import replace

from hmcore.apps.records import Rollout, Stage
from node_agent.orchestration.rollouts.plan import surplus_slots
from node_agent.orchestration.rollouts.service import Replica, Service, by_slot
from node_agent.orchestration.rollouts.situation import Happening, Terms


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
        replica.id: why
        for replica in sorted(service.replicas, key=lambda replica: replica.id)
        if replica.live and service.new(replica) and not service.failed(replica) and (why := replica.trouble(service.patience))
        if replica.seen.good is None or replica.ended  # what was good is not watched, but what is over is over
        if service.slot(replica) not in surplus  # it is to go: else no way back leads out of too many that are ill
    }
    events = tuple(Happening("replica.failed", id, why) for id, why in trouble.items())
    rollout = replace(rollout, failed=(*rollout.failed, *trouble))
    judged = dataclasses.replace(service, rollout=rollout)
    if not (judged.beyond or judged.in_vain) or service.how.failure_action == "continue":
        return Judgement(rollout, events)
    first = next((replica for replica in service.replicas if replica.id == next(iter(trouble), None)), None)
    why = "" if first is None else f"{first.allocation.located}: {trouble[first.id]}"
    words = f"{len(rollout.failed)} of {service.wanted} new replicas failed{f' ({why})' if why else ''}"
    if not judged.beyond:
        words = f"no node can take a new replica ({service.no_place})"
    if service.how.failure_action == "rollback":
        if can_revert:
            return Judgement(rollout, events, revert=words)
        words += "; it was going back already" if service.rolling_back else "; there is no earlier healthy generation to go back to"
    paused = Happening("rollout.paused", subject, words)
    return Judgement(replace(rollout, stage=Stage.PAUSED, message=words), (*events, paused))


def finish(service: Service, subject: str, now: float, terms: Terms) -> Judgement:
    """Call it done if all replicas are as wanted. The judgement is of what is, not of what was just decided."""
    if service.rollout.stage is not Stage.ROLLING:
        at = comes_right_at(service, terms)
        return Judgement(service.rollout) if at is None or now < at else _come_right(service, subject, terms)
    if not _reached(service):
        return Judgement(service.rollout)
    words = ""
    if service.beyond:
        words = f"{len(service.rollout.failed)} of {service.wanted} new replicas failed; went on all the same, as failure_action says"
    done = Happening("rollout.done", subject, words or f"all replicas are of generation {service.aim.generation}")
    return Judgement(replace(service.rollout, stage=Stage.STEADY, message=words), (done,))


def comes_right_at(service: Service, terms: Terms) -> float | None:
    """When a rollout that failed, in which all is as wanted by now, has been so for long enough for it to be called done. None: all is not,
    or it is called so already."""
    if service.rollout.stage is Stage.ROLLING or not (service.paused or service.beyond):
        return None
    there = _alone(service)
    if not there or not all(replica.fit for replica in there):
        return None
    fit = [replica.seen.fit_since for replica in there if not replica.ended_well]
    return None if None in fit else max((since + terms.right_after for since in fit if since is not None), default=0.0)


def _come_right(service: Service, subject: str, terms: Terms) -> Judgement:
    words = f"all replicas are of generation {service.aim.generation}, and have been fit for {terms.right_after:g} s"
    return Judgement(replace(service.rollout, stage=Stage.STEADY, failed=(), message=""), (Happening("rollout.done", subject, words),))


def _reached(service: Service) -> bool:
    there = _alone(service)
    return there is not None and all(service.settled(replica) or not service.new(replica) for replica in there)


def _alone(service: Service) -> tuple[Replica, ...] | None:
    """The one of each slot. None: there are not as many as there shall be, or others beside them, or they are not what they shall be."""
    slots = by_slot(service, (replica for replica in service.replicas if replica.live))
    if len(slots) != service.wanted or (service.is_global and {node for _, node in slots} != service.places):
        return None
    if any(len(there) != 1 or not service.current(there[0]) or there[0].misplaced for there in slots.values()):
        return None
    return tuple(there[0] for there in slots.values())
