"""Moving replicas for evenness: the leader is asked again and again for a few moves, until there are none left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum

import msgspec

from hmcore.apps.calls import Moved, RebalanceReply
from hmcore.errors import HyperMeshError

GAP = 0.5  # seconds between two questions: a replica that moves takes longer to be fit


class Ending(StrEnum):
    """`even`: nothing was to be moved. `planned`: nothing was moved, it was only asked what would be. `moved`: all that was to be.
    `timeout`: some of it."""

    EVEN = "even"
    PLANNED = "planned"
    MOVED = "moved"
    TIMEOUT = "timeout"


class Rebalanced(msgspec.Struct, frozen=True, kw_only=True):
    """`moves`: those that were made (of a plan: those that would be); `left`: those that were not. `waits`: by `app/service`, why not.
    `absent`: by node, why it had no share."""

    ending: Ending
    moves: list[Moved] = []
    left: list[Moved] = []
    waits: dict[str, str] = {}
    absent: dict[str, str] = {}


def replica_of(move: Moved) -> str:
    """`shop/web.1`, as `hmctl app exec` takes it; its allocation has one more number. Replicas of global services never move."""
    return move.allocation.rpartition(".")[0]


def planned(reply: RebalanceReply) -> Rebalanced:
    moves = [*reply.moves, *reply.later]
    ending = Ending.PLANNED if moves or reply.waits else Ending.EVEN
    return Rebalanced(ending=ending, moves=moves, waits=reply.waits, absent=reply.absent)


async def follow(ask: Callable[[], Awaitable[RebalanceReply]], *, timeout: float, show: Callable[[Moved], None]) -> Rebalanced:
    """Ask until there is nothing left, `timeout` seconds at most; `show` hears of each move as it begins. Raises what `ask` raises."""
    made: list[Moved] = []
    last: RebalanceReply | None = None
    try:
        async with asyncio.timeout(timeout) as limit:
            while True:
                last = await ask()
                for move in last.moves:
                    made.append(move)
                    show(move)
                if not (last.moves or last.later or last.waits):
                    return Rebalanced(ending=Ending.MOVED if made else Ending.EVEN, moves=made, absent=last.absent)
                await asyncio.sleep(GAP)
    except TimeoutError:
        if not limit.expired():
            raise
    if last is None:
        return Rebalanced(ending=Ending.TIMEOUT, moves=made)
    return Rebalanced(ending=Ending.TIMEOUT, moves=made, left=last.later, waits=last.waits, absent=last.absent)


def trouble(found: Rebalanced, seconds: float) -> HyperMeshError | None:
    """Why not all was moved."""
    if found.ending is not Ending.TIMEOUT:
        return None
    why = "; ".join(f"{subject}: {because}" for subject, because in sorted(found.waits.items())) or "what moved last is not fit yet"
    return HyperMeshError(f"not all is moved after {seconds:g} s: {why}", fix="hmctl app ls; then run it again")
