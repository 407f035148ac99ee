"""The orchestration layer: every node sends heartbeats; control nodes listen to them; the leader acts on what it heard.

The leader's loop sleeps until something new is heard or until silence may have become news (membership.py says when). It observes,
decides purely, proposes; what was not accepted is decided again later, from what is true then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from hmcore.api import Heartbeat
from hmcore.records import Role
from node_agent.consensus.statemachine.commands import Command, FormCluster
from node_agent.orchestration.advance import Known, known, to_form_at
from node_agent.orchestration.cluster import ClusterView, Proposer
from node_agent.orchestration.hearing import Hearing
from node_agent.orchestration.membership import Timing, decide, next_change
from node_agent.orchestration.proposing import Pen
from node_agent.orchestration.pulse import Incarnation, Myself, Pulse
from node_agent.waiting import woken

_SHORTEST = 0.01  # seconds: a deadline that rounding has put a hair ahead must not make the loop spin
_NO_LOOPS: Mapping[str, Callable[[], Coroutine[Any, Any, None]]] = MappingProxyType({})

log = logging.getLogger(__name__)


class Orchestration:
    """See node_agent.platform.lifecycle.Component."""

    name = "orchestration"
    serving = True

    def __init__(
        self,
        *,
        me: Myself,
        incarnation: Incarnation,
        pulse: Pulse,
        cluster: ClusterView,
        control_nodes: Callable[[], Sequence[str]],
        timing: Timing,
        leader: Leader | None,
        on_leader_change: Callable[[], None],
        loops: Mapping[str, Callable[[], Coroutine[Any, Any, None]]] = _NO_LOOPS,
        trouble: Callable[[], str | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`leader`: what a control node does when it leads; `loops`: what it does beside that; None and empty on a worker. `trouble`: what
        keeps it from that."""
        self._clock = clock
        self._me = me
        self._incarnation = incarnation
        self._pulse = pulse
        self._cluster = cluster
        self._control_nodes = control_nodes
        self._timing = timing
        self._leader = leader
        self._on_leader_change = on_leader_change
        self._loops = loops
        self._trouble = trouble
        self._last_leader: str | None = None
        self._due: float | None = None  # when the next heartbeat goes out; None while we send none

    async def initialize(self) -> None:
        if self._incarnation.value == 0:  # a restart of this component is no new start of the agent
            self._incarnation.begin()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat_on(), name="heartbeats")
            if self._leader is not None:
                tasks.create_task(self._leader.run(), name="leader")
            for name, loop in self._loops.items():
                tasks.create_task(loop(), name=name)

    async def check(self) -> str | None:
        return (self._leader.trouble if self._leader is not None else None) or self._trouble()

    async def stop(self) -> None:
        """Nothing is held."""

    def say_good_bye(self) -> None:
        """The agent stops on purpose: nobody needs to wait for our silence."""
        if self._due is not None:
            self._due = None
            self._beat(leaving=True)

    def ride(self) -> None:
        """Another message is about to go out. A heartbeat that is nearly due goes with it: one datagram instead of two.

        It is made in the loop's next turn, before connections send what they gathered: never inside whoever is sending now.
        """
        if self._nearly_due():
            asyncio.get_running_loop().call_soon(self._ride)

    def heard(self, peer: str, payload: bytes) -> None:
        """A heartbeat has come."""
        if self._leader is not None:
            self._leader.heard(peer, payload)

    def _nearly_due(self) -> bool:
        return self._due is not None and self._clock() >= self._due - self._timing.heartbeat / 4

    def _ride(self) -> None:
        if self._nearly_due():
            self._beat()

    async def _beat_on(self) -> None:
        self._beat()
        try:
            while self._due is not None:
                if self._clock() >= self._due:
                    self._beat()
                self._notice_leader()
                await asyncio.sleep(max(_SHORTEST, self._due - self._clock()))
        finally:
            self._due = None

    def _beat(self, *, leaving: bool = False) -> None:
        if not leaving:
            self._due = self._clock() + self._timing.heartbeat
        beat = self._pulse.beat(self._control_nodes(), self._cluster.nodes.get(self._me.name), leaving=leaving)
        if self._leader is not None:
            self._leader.noted(self._me.name, beat)

    def _notice_leader(self) -> None:
        leader = self._cluster.leader
        if leader == self._last_leader:
            return
        self._last_leader = leader
        if leader is None:
            log.warning("there is no leader")
        else:
            log.info("the leader is %s", leader)
        self._on_leader_change()


class Leader:
    """What a control node hears at all times, and does while it leads."""

    def __init__(
        self,
        *,
        me: str,
        formation: FormCluster,
        cluster: Proposer,
        timing: Timing,
        propose_timeout: float,
        request_prefix: Callable[[], str],
        clock: Callable[[], float],
        on_renewal: Callable[[str, int, int], None] = lambda name, incarnation, revision: None,
        on_hashes: Callable[[str, Heartbeat], None] = lambda name, beat: None,
    ) -> None:
        """`formation` is what the first leader of all proposes first. `request_prefix` makes request ids unique to this start.
        `on_renewal` hears which instances a node's heartbeat renews, and of which start they are; `on_hashes` every control node's
        heartbeat, for what it tells of its state."""
        self._on_hashes = on_hashes
        self.trouble: str | None = None
        self._formation = formation
        self._cluster = cluster
        self._timing = timing
        self._pen = Pen(cluster, prefix=request_prefix, timeout=propose_timeout)
        self._clock = clock
        self._on_renewal = on_renewal
        self._hearing = Hearing(me, clock(), heartbeat=timing.heartbeat, suspect=timing.suspect)
        self._decoder = msgspec.msgpack.Decoder(Heartbeat)
        self._news = asyncio.Event()
        self._leading = False
        self._garbled: set[str] = set()

    def heard(self, peer: str, payload: bytes) -> None:
        """A peer's heartbeat, as it came. Bytes that are none are ignored, and said once a peer."""
        try:
            beat = self._decoder.decode(payload)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            if peer not in self._garbled:
                self._garbled.add(peer)
                log.warning("%s sends what is no heartbeat: %s", peer, error)
            return
        self.noted(peer, beat)

    def now(self) -> float:
        """The time by a clock that stands still while this agent does."""
        return self._hearing.clock(self._clock())

    def noted(self, name: str, beat: Heartbeat) -> None:
        if beat.registry is not None:
            self._on_renewal(name, beat.incarnation, beat.registry)
        if beat.role is Role.CONTROL:
            self._on_hashes(name, beat)
        if beat.registry is not None or beat.hashes:
            beat = msgspec.structs.replace(beat, registry=None, hashes=())  # says nothing about the node: no news for whoever judges that
        if self._hearing.hear(name, beat, self._clock()) or self._cluster.is_leader != self._leading:
            self._news.set()

    def last_heard(self) -> dict[str, float]:
        """By node, by the clock of `now`."""
        return {name: heard.at for name, heard in self._hearing.view().heard.items()}

    def known(self) -> Known:
        """The feature levels that the members and voters know, by their latest heartbeats."""
        names = {*self._cluster.nodes, *self._cluster.report().voters}
        return known(names, self._hearing.view(), self.now(), self._timing.suspect)

    async def run(self) -> None:
        while True:
            self._news.clear()
            pause: float | None = None
            if self._cluster.is_leader:
                if not self._leading:
                    self._hearing.lead(self._clock())
                    log.info("this node leads")
                pause = await self._round()
            else:
                self.trouble = None  # whoever leads now writes it
            self._leading = self._cluster.is_leader
            await woken(self._news, pause)

    async def _round(self) -> float | None:
        """Observe, decide, propose. Returns how long to sleep if nothing is heard."""
        now = self._hearing.clock(self._clock())
        nodes = self._cluster.nodes
        commands: list[Command]
        if self._cluster.cluster is None:
            view, patience = self._hearing.view(), self._timing.suspect
            level = to_form_at(self._cluster.report().voters, view, now, patience)
            if level is None:
                return max(view.leader_since + patience - now, _SHORTEST)
            commands = [msgspec.structs.replace(self._formation, level=level)]
        else:
            commands = decide(nodes, self._hearing.view(), now, self._timing)
        if commands:
            failure = await self._pen.write(commands)
            if failure is not None and failure != self.trouble:
                log.warning("cannot record what changed: %s", failure)
            self.trouble = failure
            return _SHORTEST if failure is None else self._timing.heartbeat
        self.trouble = None
        at = next_change(nodes, self._hearing.view(), now, self._timing)
        return None if at is None else max(at - now, _SHORTEST)
