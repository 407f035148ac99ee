"""Reports that control nodes ask for us, over the connections that they hold anyway: a cluster of hundreds costs us a few handshakes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hmcore.api import LONGEST_REPORT, MOST_REPORTS, ForwardedReport, ReportsReply, ReportsRequest
from hmcore.errors import HyperMeshError
from hmctl.actions.status import Answer

WAY = 1.0  # seconds for the way to a control node and back, beside what it waits for the others


@dataclass(frozen=True, slots=True)
class Ahead:
    """How far another clock is ahead of ours: between `least` and `most` seconds (behind: negative)."""

    least: float
    most: float

    @classmethod
    def read(cls, theirs: float, sent: float, took: float) -> Ahead:
        """They read it as `theirs` at some moment of the `took` seconds after our clock said `sent`."""
        return cls(theirs - sent - took, theirs - sent)

    def __add__(self, further: Ahead) -> Ahead:
        """Of a third clock, that is `further` ahead of the second."""
        return Ahead(self.least + further.least, self.most + further.most)

    @property
    def certain(self) -> float:
        """As near to zero as it may be."""
        return min(max(0.0, self.least), self.most)


class Asks(Protocol):
    """See hmctl.client.AgentClient."""

    name: str

    async def reports(self, request: ReportsRequest, *, timeout: float) -> ReportsReply: ...


@dataclass(frozen=True, slots=True)
class GoBetween:
    """A control node that answered us: `distance` in seconds to it and back."""

    agent: Asks
    distance: float
    ahead: Ahead


async def forwarded(names: Sequence[str], by: Sequence[GoBetween], *, timeout: float) -> dict[str, Answer]:
    """What the nodes say that `by` reach; each has `timeout` seconds. Whoever is missing has to be asked by ourselves."""
    found: dict[str, Answer] = {}
    timeout = min(timeout, LONGEST_REPORT)

    async def ask(one: GoBetween, wanted: Sequence[str]) -> None:
        try:
            reply = await one.agent.reports(ReportsRequest(nodes=list(wanted), timeout=timeout), timeout=timeout + WAY)
        except HyperMeshError:
            return  # an older release, or it has just gone: all of these are asked directly
        found.update({each.report.name: _answer(each, one) for each in reply.reports if each.report.name in wanted})

    async with asyncio.TaskGroup() as group:
        for number, wanted in enumerate(shares(names, len(by))):
            group.create_task(ask(by[number % len(by)], wanted), name=f"reports through {by[number % len(by)].agent.name}")
    return found


def shares(names: Sequence[str], count: int) -> list[Sequence[str]]:
    """`names` in parts that one answer can hold, as many for each of `count` as for the others. Pure."""
    if not names or not count:
        return []
    parts = count * -(-len(names) // (count * MOST_REPORTS))
    size = -(-len(names) // parts)
    return [names[start : start + size] for start in range(0, len(names), size)]


def _answer(each: ForwardedReport, through: GoBetween) -> Answer:
    return Answer(
        each.report,
        rtt_seconds=through.distance + (each.rtt_ms or 0.0) / 1000,
        offset_seconds=(through.ahead + Ahead(each.ahead_least, each.ahead_most)).certain,
        through=through.agent.name,
    )
