"""A wish about who votes, followed until it is so: asks the member at every tick what is to be done next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from hmcore.errors import NotLeader
from node_agent.consensus.voters.reconfiguration import Done, HandOver, Step, Wait, Wish, unfinished

HANDING_OVER = 1.0  # seconds until it is tried again


class Member(Protocol):
    """See node_agent.consensus.member."""

    @property
    def leader(self) -> str | None: ...
    @property
    def is_leader(self) -> bool: ...
    def change_voters(self, wish: Wish, *, request_id: str, author: str) -> Step: ...


async def carry_out(
    member: Member, wish: Wish, *, request_id: str, author: str, timeout: float, ticked: Callable[[], Awaitable[object]]
) -> int:
    """The log index of the configuration that is as wished, once that is committed; of an Add: once it votes.

    `ticked` returns after the member's next tick. Raises NotLeader (ask `leader`; also when the leader itself is to be removed and has
    handed over), NoQuorum, LevelTooLow, StorageFull or InvalidRequest; ChangeUnfinished after `timeout` seconds.
    """
    reason = "nothing was heard"
    try:
        async with asyncio.timeout(timeout):
            while True:
                step = member.change_voters(wish, request_id=request_id, author=author)
                match step:
                    case Done(index=index):
                        return index
                    case Wait():
                        reason = step.reason
                    case HandOver():
                        reason = f"{wish.name} leads, and nobody has taken over"
                        await _handed_over(member, wish, ticked)
                await ticked()
    except TimeoutError:
        raise unfinished(wish, reason, timeout) from None


async def _handed_over(member: Member, wish: Wish, ticked: Callable[[], Awaitable[object]]) -> None:
    """Raises NotLeader once another leads; returns if none does."""
    try:
        async with asyncio.timeout(HANDING_OVER):
            while member.leader is None or member.is_leader:
                await ticked()
    except TimeoutError:
        return
    raise NotLeader(f"{wish.name} has handed the leadership over to {member.leader}", leader=member.leader, host=wish.name)
