"""Calls, and what the cluster answers: a connection that fails (STOQ), a no from the other end, a lock that another holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hmcore.errors.base import HyperMeshError

if TYPE_CHECKING:
    from hmcore.locks import HeldLock


class TransportError(HyperMeshError):
    pass


class PeerUnreachable(TransportError):
    pass


class NothingListens(PeerUnreachable):
    pass


class HandshakeRefused(TransportError):
    pass


class AnotherNode(HandshakeRefused):
    """A node of this cluster is there, but not the one that was called: `found` is its name."""

    def __init__(self, message: str, *, found: str, host: str | None = None, fix: str | None = None) -> None:
        super().__init__(message, host=host, fix=fix)
        self.found = found


class ConnectionLost(TransportError):
    pass


class CallTimeout(TransportError):
    pass


class Backpressure(TransportError):
    pass


class FrameError(TransportError):
    pass


class CallRefused(HyperMeshError):
    """The other end answered with a fault. `kind` is the fault's name on the wire."""

    kind: ClassVar[str] = "refused"


class PermissionDenied(CallRefused):
    kind = "permission-denied"


class InvalidRequest(CallRefused):
    kind = "invalid-request"


class LevelTooLow(InvalidRequest):
    kind = "level-too-low"


class NotAsExpected(InvalidRequest):
    kind = "not-as-expected"


class TooLarge(InvalidRequest):
    kind = "too-large"


class SecretsLocked(CallRefused):
    kind = "secrets-locked"


class NotLeader(CallRefused):
    """Only the leader can answer. `leader` is the name of the node that leads, as far as the one asked knows."""

    kind = "not-leader"

    def __init__(self, message: str, *, leader: str | None = None, host: str | None = None, fix: str | None = None) -> None:
        super().__init__(message, host=host, fix=fix)
        self.leader = leader


class NoQuorum(CallRefused):
    kind = "no-quorum"


class ChangeUnfinished(CallRefused):
    """A change of the voters is not done in time; why, and how far it is. What was begun stays: asking again goes on from there."""

    kind = "change-unfinished"


class TransferFailed(CallRefused):
    kind = "transfer-failed"


class InternalFault(CallRefused):
    kind = "internal"


class Undecided(HyperMeshError):
    pass


class FormationFailed(HyperMeshError):
    pass


class PortPublished(HyperMeshError):
    pass


class LockError(HyperMeshError):
    pass


class LockHeld(LockError):
    """`held` is the holder's part as the leader tells it (hmcore/locks.py)."""

    def __init__(self, message: str, *, held: HeldLock, host: str | None = None, fix: str | None = None) -> None:
        super().__init__(message, host=host, fix=fix)
        self.held = held


class LockUnavailable(LockError):
    pass


class LeaseLost(LockError):
    pass
