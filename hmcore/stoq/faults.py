"""Errors as they cross the wire: a CallRefused keeps its type, anything else is the other end's own business and becomes `internal`."""

from __future__ import annotations

import asyncio

from hmcore.errors import (
    Backpressure,
    CallRefused,
    CallTimeout,
    ChangeUnfinished,
    ConnectionLost,
    FrameError,
    HyperMeshError,
    InternalFault,
    InvalidRequest,
    LevelTooLow,
    NoQuorum,
    NotAsExpected,
    NotLeader,
    PeerUnreachable,
    PermissionDenied,
    SecretsLocked,
    TooLarge,
    TransferFailed,
)
from hmcore.stoq.frames import Fault

OK = ""  # how a call ended that was answered; see `kind_of` for the others

_KINDS: dict[str, type[CallRefused]] = {
    kind.kind: kind
    for kind in (
        PermissionDenied,
        InvalidRequest,
        LevelTooLow,
        NotAsExpected,
        TooLarge,
        SecretsLocked,
        NoQuorum,
        ChangeUnfinished,
        TransferFailed,
        InternalFault,
    )
}


def kind_of(error: BaseException) -> str:
    """How a call ended that raised `error`, in a word of a bounded set: a fault's kind, or what kept it from being answered."""
    match error:
        case CallRefused():
            return error.kind
        case CallTimeout():
            return "timeout"
        case PeerUnreachable():
            return "unreachable"
        case ConnectionLost():
            return "connection-lost"
        case Backpressure():
            return "backpressure"
        case FrameError():
            return "frame"
        case asyncio.CancelledError():
            return "cancelled"
        case _:
            return InternalFault.kind


def fault_of(error: BaseException) -> Fault:
    """What the caller is told. Unexpected exceptions are named, not described: their text may hold anything."""
    match error:
        case CallRefused():
            return Fault(error.kind, error.message, error.leader if isinstance(error, NotLeader) else None, error.fix)
        case HyperMeshError():
            return Fault(InternalFault.kind, str(error), fix=error.fix)
        case _:
            return Fault(InternalFault.kind, f"unexpected {type(error).__name__}; the agent's journal there says more")


def error_of(fault: Fault, *, host: str | None) -> CallRefused:
    """The exception that the caller sees; `host` is who said it. A kind of a later release is a plain CallRefused."""
    if fault.kind == NotLeader.kind:
        return NotLeader(fault.message, leader=fault.leader, host=host, fix=fault.fix)
    return _KINDS.get(fault.kind, CallRefused)(fault.message, host=host, fix=fault.fix)
