"""Calls about the cluster's locks: held by one at a time, for as long as the holder renews them (docs/adr/0074).

All but the list go to the leader (others answer NotLeader and name it). hmcore/lease.py is a holder's side of it.
"""

from __future__ import annotations

import msgspec

from hmcore.api import ChangeReply, Method
from hmcore.records import Lock


class AcquireRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`holder` must be the caller's alone: whoever holds the lock under this name already gets a new token, and the one before is void.
    `ttl`: seconds that the lock outlives its last renewal. `note`: what it is held for, for people. `id`: of the request, the same for
    all its retries."""

    id: str
    name: str
    holder: str
    ttl: float
    note: str = ""


class HeldLock(msgspec.Struct, frozen=True, kw_only=True):
    """`expires_in`: seconds that it has if nobody renews it; only the leader knows."""

    lock: Lock
    expires_in: float | None = None


class AcquireReply(msgspec.Struct, frozen=True, kw_only=True):
    """`token` 0: it could not be had. Then `held` is who has it; or `unavailable` says why this cluster gives no locks yet; or neither:
    it is just changing hands, ask again under another id."""

    index: int
    token: int = 0
    held: HeldLock | None = None
    unavailable: str = ""


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Refused (InvalidRequest) once the lock is no longer held with this token: it never will be again."""

    name: str
    token: int


class RenewReply(msgspec.Struct, frozen=True, kw_only=True):
    """The lock's term has begun anew, after the request was sent."""

    index: int


class ReleaseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Harmless when the lock is not held with this token any more. `reason`: of an operator who ends another's lock."""

    id: str
    name: str
    token: int
    reason: str = ""


class LocksRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`name`: only this one. `consistent`: linearizable, at the cost of a round between the control nodes."""

    name: str = ""
    consistent: bool = False


class LocksReply(msgspec.Struct, frozen=True, kw_only=True):
    """As of log index `index`, by name. `leader`: whether the one who answers leads."""

    index: int
    locks: list[HeldLock]
    leader: bool = False


ACQUIRE: Method[AcquireRequest, AcquireReply] = Method("locks.acquire", AcquireRequest, AcquireReply)
RENEW: Method[RenewRequest, RenewReply] = Method("locks.renew", RenewRequest, RenewReply)
RELEASE: Method[ReleaseRequest, ChangeReply] = Method("locks.release", ReleaseRequest, ChangeReply)
LOCKS: Method[LocksRequest, LocksReply] = Method("locks.list", LocksRequest, LocksReply)
