"""What a phase is. What it would do to a host is a value, found purely; doing it decides nothing.

A phase observes nothing itself (facts were gathered once, for all of them) and prints nothing (the runner reports). Every phase can be
cut short at any point and run again: what it writes appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from hmctl.facts.gather import HostFacts
from hmctl.remote.base import Remote

if TYPE_CHECKING:
    from hmcore.config.inventory import Host
    from hmctl.bundle.store import Release


@dataclass(frozen=True, slots=True)
class Desired:
    """What a host shall look like. `certificate` is why one must be issued, None when the present one will do."""

    release: Release
    config: bytes
    unit: bytes
    wrapper: bytes
    ca: bytes
    certificate: str | None
    packages: tuple[str, ...] = ()  # to install, by the names of its package manager
    fence: bytes = b""  # its unit


class Known(Protocol):
    """A host that we know the facts of."""

    @property
    def name(self) -> str: ...
    @property
    def host(self) -> Host: ...
    @property
    def facts(self) -> HostFacts: ...


@dataclass(frozen=True, slots=True)
class Found:
    """A host: how it is reached, and how it is."""

    host: Host
    facts: HostFacts

    @property
    def name(self) -> str:
        return self.host.name


@dataclass(frozen=True, slots=True)
class Target:
    """A host: how it is reached, how it is, and how it shall be."""

    host: Host
    facts: HostFacts
    desired: Desired

    @property
    def name(self) -> str:
        return self.host.name


@dataclass(frozen=True, slots=True)
class Step:
    """One change on one host, in words that a person can check before it happens. `host` is None for the cluster as a whole."""

    host: str | None
    phase: str
    change: str


K = TypeVar("K", bound=Known, contravariant=True)
Say = Callable[[str], None]  # a detail that changes often: "12.1 of 18.0 MB"


class Phase(Protocol[K]):
    """Something that is done to each host by itself. Hosts go through their phases side by side, each at its own pace."""

    title: str  # "Upload release"
    doing: str  # "uploading the release", for the progress line

    def plan(self, target: K) -> tuple[str, ...]:
        """What would change, in words; empty when nothing would. Pure."""

    async def run(self, target: K, remote: Remote, say: Say) -> str | None:
        """Makes the changes. Returns a warning if something could not be done that the rest can do without. Raises HyperMeshError
        with the reason otherwise; the host is then set aside and the others go on."""

    async def undo(self, target: K, remote: Remote) -> None:
        """Takes back what a failed or cancelled `run` left half done."""
