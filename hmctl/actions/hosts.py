"""The hosts that a workflow is about: which of the inventory's they are, how one gets to them, and what the operator said about both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

from hmcore.errors import UsageError
from hmctl.remote.base import FirstContact, Remote
from hmctl.text import listed

if TYPE_CHECKING:
    from hmcore.config.inventory import Host


class Hosts(Protocol):
    """Opens connections (hmctl/remote/ssh.py). `trust` accepts a key that the operator has seen."""

    async def connect(self, host: Host) -> Remote: ...
    def trust(self, contact: FirstContact) -> None: ...


@dataclass(frozen=True, slots=True)
class Options:
    """Of deploy and reset. `at_once`: hosts, and connections to them. `timeout`: how long the cluster may take to be healthy, in seconds;
    None: as the settings have it."""

    limit: str | None = None
    dry_run: bool = False
    yes: bool = False
    at_once: int = 32
    timeout: float | None = None


def union(limits: Sequence[str] | None) -> str | None:
    """Of a --limit that may be repeated: whoever matches any of them. None: it was not given."""
    return ",".join(limits) if limits else None


def select(hosts: Sequence[Host], limit: str | None) -> list[Host]:
    """The hosts whose names match one of the comma-separated patterns. Raises UsageError when none does."""
    if limit is None:
        return list(hosts)
    patterns = [pattern.strip() for pattern in limit.split(",") if pattern.strip()]
    chosen = [host for host in hosts if any(fnmatchcase(host.name, pattern) for pattern in patterns)]
    if not chosen:
        message = f"--limit {limit} matches none of {listed([host.name for host in hosts])}"
        raise UsageError(message, fix=f"name a host or a pattern, in quotes: --limit {hosts[0].name}, --limit '{hosts[0].name[:-1]}*'")
    return chosen
