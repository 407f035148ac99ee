"""What stops first, because no node takes the replica that is to begin beside it. Pure.

Start-first is a wish: a node that may have one of a service, or one port 80, takes no second. Where only the old replica is in the way, it
goes first, as with stop-first: of the slots that may be busy, no more. Where something else is in the way, it would go for nothing, and
stays; unless it must leave its node anyway. docs/adr/0093.
"""

from __future__ import annotations

from dataclasses import replace

from node_agent.orchestration.rollouts.situation import Start, Stop
from node_agent.orchestration.scheduling.model import Assignment, Outcome, Outlook, Pending


def begins_on(start: Start, outcome: Outcome) -> str:
    """The node; empty: it does not begin now."""
    return outcome.node if isinstance(outcome, Assignment) and not start.after else ""


def gives_way(start: Start, outcome: Outcome) -> tuple[Stop, ...]:
    """What stops now, so that the start can be decided again without it. `outcome`: what became of that start."""
    if start.after:
        return start.former if isinstance(outcome, Assignment) else ()
    return _in_the_way(start, outcome) if isinstance(outcome, Pending) else ()


def _in_the_way(start: Start, waiting: Pending) -> tuple[Stop, ...]:
    why = waiting.explanation.text.replace("\n", "; ")
    match waiting.outlook:
        case Outlook.INSTEAD:
            return tuple(replace(stop, reason=f"{stop.reason}; before that begins, as no node takes both ({why})") for stop in start.former)
        case Outlook.NONE if start.leaving:
            return tuple(replace(stop, reason=f"{stop.reason}; nothing else takes it ({why})") for stop in start.former)
        case _:
            return ()
