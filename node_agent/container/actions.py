"""What can be done about one allocation's container, as values. executor.py carries them out and decides nothing.

`allocation` is whose turn it is: of each, one action is under way at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from node_agent.container.creation import Body


@dataclass(frozen=True, slots=True)
class Cancel:
    """Let go of the pull that is under way."""

    allocation: str


@dataclass(frozen=True, slots=True)
class Pull:
    """Have the image on this node. `image`: its id if that is known, else its name."""

    allocation: str
    image: str


@dataclass(frozen=True, slots=True)
class Run:
    """Create a container and start it. `needs`: names of volumes that must be there before. `lease`: of an exclusive one, the log index
    that the lease began with under which it may be started, and no other; 0: it is not exclusive."""

    allocation: str
    name: str
    body: Body
    needs: tuple[str, ...] = ()
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """`lease` as in Run."""

    allocation: str
    container: str
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Stop:
    """Send its stop signal, and do not wait: a `Kill` follows `grace` seconds later, if it still runs then."""

    allocation: str
    container: str
    grace: float


@dataclass(frozen=True, slots=True)
class Kill:
    allocation: str
    container: str


@dataclass(frozen=True, slots=True)
class Remove:
    """And its anonymous volumes."""

    allocation: str
    container: str


Action = Cancel | Pull | Run | Start | Stop | Kill | Remove

_ORDER: tuple[type[Action], ...] = (Cancel, Kill, Stop, Remove, Start, Run, Pull)  # what frees ports and memory comes first


def rank(action: Action) -> tuple[int, str]:
    return _ORDER.index(type(action)), action.allocation
