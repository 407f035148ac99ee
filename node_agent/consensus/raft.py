"""RaftNode: this control node's voice in the cluster's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from hmcore.api import Formation
from hmcore.records import RaftReport
from node_agent.consensus.machine import State


class Links(Protocol):
    """Connections to the other voters: ordered messages, the tail of which a break loses. `Pool.send(peer, "raft", payload)`."""

    def send(self, peer: str, payload: bytes) -> bool: ...


class Timing(Protocol):
    """What hmcore.config.settings.Raft has. Seconds."""

    @property
    def heartbeat(self) -> float: ...
    @property
    def election_min(self) -> float: ...
    @property
    def election_max(self) -> float: ...


class RaftNode:
    """A voter. Everything here runs on the event loop's thread; nothing blocks but the journal's fdatasync."""

    state: State  # the latest applied

    def __init__(
        self,
        *,
        name: str,
        bootstrap: str,
        voters: Sequence[str],
        directory: Path,
        settings: Timing,
        links: Links,
        call_timeout: float,
        on_applied: Callable[[State], None],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        raise NotImplementedError

    async def open(self) -> None:
        """Load snapshot and journal. Raises StorageDamaged, StorageFull."""
        raise NotImplementedError

    async def run(self) -> None:
        """Take part until stop(). Raises what made it stop, if anything did (on_fatal has been told then)."""
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError

    def peer_up(self, peer: str) -> None:
        raise NotImplementedError

    def peer_down(self, peer: str) -> None:
        raise NotImplementedError

    def receive(self, peer: str, payload: bytes) -> None:
        raise NotImplementedError

    def formation(self) -> Formation:
        raise NotImplementedError

    def permit(self, bootstrap: str) -> None:
        """This node may form the cluster. Durable when it returns. Raises FormationFailed if the node knows of a formed cluster."""
        raise NotImplementedError

    async def propose(self, command: bytes, *, request_id: str, timeout: float) -> tuple[int, bytes]:
        """(log index, encoded Result) once committed and applied. Raises NotLeader, NoQuorum, StorageFull, InvalidRequest."""
        raise NotImplementedError

    def report(self) -> RaftReport:
        raise NotImplementedError

    @property
    def trouble(self) -> str | None:
        """Why this layer is degraded (no leader, no room on the disk, ...), or None."""
        raise NotImplementedError

    @property
    def is_leader(self) -> bool:
        raise NotImplementedError

    @property
    def leader(self) -> str | None:
        raise NotImplementedError
