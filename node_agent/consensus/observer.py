"""Consensus on a worker: it does not vote, it asks a control node what the cluster agreed on.

The control node holds its answer back until there is something newer, so that a worker follows at once and asks seldom.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec.structs import replace

from hmcore.api import Formation, StateReply, StateRequest
from hmcore.errors import HyperMeshError, NoQuorum
from hmcore.records import Cluster, Event, Maintenance, Mute, Node, RaftReport, Registration
from node_agent.consensus import levels

INTERVAL = 5.0  # seconds for which an answer may be held back; between two questions where it is not
PAUSE = 0.2  # seconds between an answer and the next question, so that a busy log is not asked for entry by entry
IMPATIENCE = 1.0  # seconds, while something is wrong
TIMEOUT = 3.0
FRESH = 2 * INTERVAL  # what was told longer ago is old: who was unfit then may be the only one left by now

log = logging.getLogger(__name__)


class ObserverLayer:
    """See node_agent.platform.lifecycle.Component and node_agent.orchestration.cluster.ClusterView."""

    name = "consensus"

    def __init__(
        self,
        me: str,
        cluster: str,
        bootstrap: str,
        *,
        control_nodes: Callable[[], Sequence[str]],
        connected: Callable[[], frozenset[str]],
        ask: Callable[[StateRequest, Sequence[str]], Awaitable[StateReply]],
        on_applied: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask` a control node that is fit for the state; while none is known to be, those of the list in turn. `on_applied` is called when
        it has changed."""
        self._me = me
        self._cluster = cluster
        self._bootstrap = bootstrap
        self._control_nodes = control_nodes
        self._connected = connected
        self._ask = ask
        self._on_applied = on_applied
        self._clock = clock
        self._told_at = float("-inf")
        self._follows = False
        self._said: StateReply | None = None
        self._trouble: str | None = None
        self._nodes: Mapping[str, Node] = {}
        self._maintenance: Mapping[str, Maintenance] = {}
        self._mutes: Mapping[str, Mute] = {}
        self._again = asyncio.Event()

    def connections_changed(self) -> None:
        self._again.set()

    async def initialize(self) -> None:
        self._trouble = None

    async def run(self) -> None:
        while True:
            self._again.clear()
            await self._look()
            try:
                async with asyncio.timeout(self._pause()):
                    await self._again.wait()
            except TimeoutError:
                continue

    def _pause(self) -> float:
        if self._trouble or not self.formed:
            return IMPATIENCE
        return PAUSE if self._follows else INTERVAL

    async def check(self) -> str | None:
        return self._trouble

    async def stop(self) -> None:
        """Nothing is held."""

    async def _look(self) -> None:
        connected = self._connected()
        reachable = [name for name in self._control_nodes() if name in connected]
        if not reachable:
            self._trouble = f"no control node is reachable ({', '.join(self._control_nodes())})"
            return
        # Each worker begins with another one: hundreds of them must not all ask the leader.
        first = sum(self._me.encode()) % len(reachable)
        try:
            wait = 0.0 if self._trouble or not self.formed else INTERVAL
            request = StateRequest(since=self.index if self._said else -1, partial=True, wait=wait)
            said = await self._ask(request, reachable[first:] + reachable[:first])
        except HyperMeshError as error:
            self._trouble = f"no control node tells the state: {error}"
            return
        self._take(said)

    def _take(self, said: StateReply) -> None:
        self._told_at = self._clock()
        self._follows = said.waited >= INTERVAL / 2 or said.index > self.index  # else the answer was not held back
        self._trouble = None if said.leader or not (said.nodes or said.unchanged) else "the control nodes have no leader"
        if self._said is not None and said.index < self._said.index:
            return  # from one that lags behind the one we asked before
        if said.unchanged:
            if self._said is not None:
                self._said = replace(self._said, leader=said.leader, term=said.term)
            return
        if said.partial and self._said is not None:
            members = {node.name for node in said.nodes}
            kept = {name: made for name, made in self._said.registrations.items() if name in members}
            said = replace(said, registrations={**kept, **said.registrations})
        changed = self._said is None or said.index != self._said.index
        self._said = said
        if changed:
            self._maintenance = {target.target: target for target in said.maintenance}
            self._mutes = {mute.key: mute for mute in said.mutes}
            self._nodes = {node.name: node for node in said.nodes}
            self._on_applied()

    @property
    def serving(self) -> bool:
        return self.formed

    @property
    def fresh(self) -> bool:
        return self._clock() < self._told_at + FRESH

    @property
    def formed(self) -> bool:
        return self._said is not None and bool(self._said.nodes)

    @property
    def index(self) -> int:
        return self._said.index if self._said else 0

    @property
    def cluster(self) -> Cluster | None:
        return Cluster(id=self._cluster, bootstrap=self._bootstrap) if self.formed else None

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self._nodes

    @property
    def registrations(self) -> Mapping[str, Registration]:
        return self._said.registrations if self._said else {}

    @property
    def maintenance(self) -> Mapping[str, Maintenance]:
        return self._maintenance

    @property
    def mutes(self) -> Mapping[str, Mute]:
        return self._mutes

    @property
    def events(self) -> Sequence[Event]:
        return self._said.events if self._said else ()

    @property
    def leader(self) -> str | None:
        return self._said.leader if self._said and self._trouble is None else None

    @property
    def is_leader(self) -> bool:
        return False

    @property
    def no_quorum(self) -> NoQuorum | None:
        return None  # a worker knows only what it is told

    def report(self) -> RaftReport:
        voters = list(self._control_nodes())
        connected = self._connected()
        return RaftReport(
            role="observer",
            leader=self.leader,
            term=self._said.term if self._said else 0,
            commit_index=self.index,
            applied_index=self.index,
            voters=voters,
            reachable_voters=[name for name in voters if name in connected],
            knows=levels.LATEST,
        )

    def formation(self) -> Formation:
        return Formation(
            bootstrap=self._bootstrap, voters=[], empty=True, permitted=False, formed=self.formed, term=self._said.term if self._said else 0
        )
