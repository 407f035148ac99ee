"""Consensus on a worker: it does not vote, it follows what the cluster agreed on by watching a control node.

The control node holds the question back until there is something newer, so that a worker follows at once and asks seldom. One of an
earlier release, which cannot be watched, is asked for all that there is whenever something has changed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from hmcore.api import Formation, StateReply, StateRequest
from hmcore.apps.records import Allocation, Generation, Image, NodeStatuses, Subnet
from hmcore.errors import HyperMeshError, InvalidRequest, NoQuorum
from hmcore.records import Cluster, Event, Maintenance, Mute, Node, RaftReport, Registration
from node_agent.consensus.following.follower import FOLLOWED, Follower, Tables, Told, Watch
from node_agent.consensus.following.own import OwnRecords
from node_agent.consensus.statemachine import levels
from node_agent.waiting import woken

INTERVAL = 5.0  # seconds for which an answer may be held back; between two questions where it is not
PAUSE = 0.2  # seconds between an answer and the next question, so that a busy log is not asked for entry by entry
AT_ONCE = 4  # answers that may follow one another without that pause: most changes come in twos and threes
IMPATIENCE = 1.0  # seconds, while something is wrong
TIMEOUT = 3.0
FRESH = 2 * INTERVAL  # what was told longer ago is old: who was unfit then may be the only one left by now
EARLIER = 30.0  # seconds until control nodes that could not be watched are tried again: they may have been upgraded

log = logging.getLogger(__name__)

NOTHING: Mapping[str, Mapping[str, Any]] = {table: {} for table in FOLLOWED}


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
        watch: Watch,
        tables: Tables,
        ask: Callable[[StateRequest, Sequence[str]], Awaitable[StateReply]],
        on_applied: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`watch` a control node that is fit, or read its `tables`; while none is known to be, those of the list in turn. `ask`: the same
        of an earlier release. `on_applied` is called when something has changed."""
        self._me = me
        self._cluster = cluster
        self._bootstrap = bootstrap
        self._control_nodes = control_nodes
        self._connected = connected
        self._ask = ask
        self._on_applied = on_applied
        self._clock = clock
        self._follower = Follower(watch, tables, clock=clock)
        self.own = OwnRecords(me, control_nodes=self._reachable, watch=watch, tables=tables, on_change=on_applied, clock=clock)
        self._told_at = float("-inf")
        self._earlier_until = float("-inf")
        self._follows = False
        self._busy: deque[float] = deque(maxlen=AT_ONCE)  # when the latest answers came that brought something
        self._trouble: str | None = None
        self._known = False
        self._index = 0
        self._leader: str | None = None
        self._term = 0
        self._tables = NOTHING
        self._again = asyncio.Event()

    def connections_changed(self) -> None:
        self._again.set()

    async def initialize(self) -> None:
        self._trouble = None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.own.follow(), name="follow what shall run here")
            await self._follow()

    async def _follow(self) -> None:
        while True:
            self._again.clear()
            await self._look()
            await woken(self._again, self._pause())

    def _pause(self) -> float:
        if self._trouble or not self.formed:
            return IMPATIENCE
        if not self._follows:
            return INTERVAL
        now = self._clock()
        busy = len(self._busy) == AT_ONCE and now < self._busy[0] + AT_ONCE * PAUSE
        return PAUSE if busy or now < self._earlier_until else 0.0

    async def check(self) -> str | None:
        return self._trouble or self.own.trouble

    async def stop(self) -> None:
        """Nothing is held."""

    async def reach(self, index: int, timeout: float) -> None:
        """Returns once this node knows what the cluster had agreed on at a log index, or after `timeout` seconds."""
        try:
            for _ in range(2):  # the first look may have to begin a copy
                reachable = self._reachable()
                if not reachable or index <= self._index or self._clock() < self._earlier_until:
                    return
                self._told(await self._follower.look(reachable, wait=timeout, reach=index, least=self._index))
        except HyperMeshError as error:
            log.info("no control node tells the state at log index %d: %s", index, error)

    def _reachable(self) -> list[str]:
        connected = self._connected()
        reachable = [name for name in self._control_nodes() if name in connected]
        # Each worker begins with another one: hundreds of them must not all ask the leader.
        first = sum(self._me.encode()) % len(reachable) if reachable else 0
        return reachable[first:] + reachable[:first]

    async def _look(self) -> None:
        reachable = self._reachable()
        if not reachable:
            self._trouble = f"no control node is reachable ({', '.join(self._control_nodes())})"
            return
        wait = 0.0 if self._trouble or not self.formed else INTERVAL
        try:
            if self._clock() >= self._earlier_until:
                try:
                    self._told(await self._follower.look(reachable, wait=wait, leader=self._leader or "", least=self._index))
                    return
                except InvalidRequest as error:
                    log.info("the control nodes cannot be watched: %s", error)
                    self._earlier_until = self._clock() + EARLIER
            await self._ask_for_all(reachable, wait)
        except HyperMeshError as error:
            self._trouble = f"no control node tells the state: {error}"

    def _told(self, told: Told | None) -> None:
        copy = self._follower.copy
        if told is None or copy is None:
            self._trouble = "the control node that answers is behind what this node knows already"
            return
        self._follows = told.held
        if told.news:
            self._busy.append(self._clock())
        self._heard(told.leader, told.term, formed=bool(copy.tables["nodes"]))
        if copy.index >= self._index:
            self._show(copy.index, copy.tables)

    async def _ask_for_all(self, reachable: Sequence[str], wait: float) -> None:
        """As control nodes of earlier releases answer. The copy that watching keeps is left behind by it."""
        said = await self._ask(StateRequest(since=self._index if self._known else -1, partial=True, wait=wait), reachable)
        self._follower.forget()
        self._follows = said.waited >= INTERVAL / 2 or said.index > self._index  # else the answer was not held back
        self._heard(said.leader, said.term, formed=bool(said.nodes or said.unchanged))
        if said.index < self._index or said.unchanged:
            return  # from one that lags behind the one we asked before, or nothing new
        members = {node.name for node in said.nodes}
        known = self.registrations if said.partial and self._known else {}
        kept = {name: made for name, made in known.items() if name in members}
        self._show(
            said.index,
            {
                "nodes": {node.name: node for node in said.nodes},
                "registrations": {**kept, **said.registrations},
                "maintenance": {target.target: target for target in said.maintenance},
                "mutes": {mute.key: mute for mute in said.mutes},
                "generations": {},  # a release that cannot be watched knows no apps
                "subnets": {},
                "images": {},
            },
        )

    def _heard(self, leader: str | None, term: int, *, formed: bool) -> None:
        self._told_at = self._clock()
        self._leader, self._term = leader, term
        self._trouble = None if leader or not formed else "the control nodes have no leader"

    def _show(self, index: int, tables: Mapping[str, Mapping[str, Any]]) -> None:
        """This is how things are at log index `index`."""
        changed = not self._known or index != self._index
        self._known = True
        self._index = index
        self._tables = dict(tables)
        if changed:
            self._on_applied()

    @property
    def serving(self) -> bool:
        return self.formed

    @property
    def fresh(self) -> bool:
        return self._clock() < self._told_at + FRESH

    @property
    def formed(self) -> bool:
        return bool(self._tables["nodes"])

    @property
    def index(self) -> int:
        return self._index

    @property
    def cluster(self) -> Cluster | None:
        return Cluster(id=self._cluster, bootstrap=self._bootstrap) if self.formed else None

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self._tables["nodes"]

    @property
    def registrations(self) -> Mapping[str, Registration]:
        return self._tables["registrations"]

    @property
    def maintenance(self) -> Mapping[str, Maintenance]:
        return self._tables["maintenance"]

    @property
    def mutes(self) -> Mapping[str, Mute]:
        return self._tables["mutes"]

    @property
    def generations(self) -> Mapping[str, Generation]:
        return self._tables["generations"]

    @property
    def subnets(self) -> Mapping[str, Subnet]:
        return self._tables["subnets"]

    @property
    def images(self) -> Mapping[str, Image]:
        return self._tables["images"]

    @property
    def allocations(self) -> Mapping[str, Allocation] | None:
        return self.own.allocations

    @property
    def own_index(self) -> int:
        return self.own.index

    @property
    def statuses(self) -> NodeStatuses | None:
        return self.own.statuses

    @property
    def events(self) -> Sequence[Event]:
        return ()

    @property
    def leader(self) -> str | None:
        return self._leader if self._trouble is None else None

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
            term=self._term,
            commit_index=self.index,
            applied_index=self.index,
            voters=voters,
            reachable_voters=[name for name in voters if name in connected],
            knows=levels.LATEST,
        )

    def formation(self) -> Formation:
        return Formation(bootstrap=self._bootstrap, voters=[], empty=True, permitted=False, formed=self.formed, term=self._term)
