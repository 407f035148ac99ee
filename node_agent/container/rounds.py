"""The node's loop over its containers: look at Docker, let reconcile decide, hand the actions to the executor, tell how it went.

Nothing here decides. A Docker that is away, hangs or restarts costs a round; the next one sees what there is then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet

from hmcore.apps.records import AllocationStatus
from hmcore.errors import LayerDown
from node_agent.container.actions import Action
from node_agent.container.creation import NodeFacts, Wanted
from node_agent.container.executor import Executor, Fencing, Files, Hands, Images, Outcome
from node_agent.container.info import ContainerInfo
from node_agent.container.memory import Memory, begun, recalled, settled
from node_agent.container.probing import Prober
from node_agent.container.reconcile import Seen, ends_asked, images_asked, reconcile, unanswered
from node_agent.waiting import woken

ANYWAY = 30.0  # seconds after which Docker is looked at although nothing was heard
AWAY = 1.0  # the same while it does not answer
SETTLE = 0.02  # seconds in which several things that happen make one round

log = logging.getLogger(__name__)


class Rounds:
    """`wanted`: this node's allocations by id; None while nobody knows. `facts`: None while the node is not ready for containers (it has no
    subnet yet): what runs runs on, and if nothing is wanted here, that is told. `observe` asks Docker now; raises LayerDown. `on_statuses`
    hears of every change.
    """

    def __init__(
        self,
        *,
        wanted: Callable[[], Mapping[str, Wanted] | None],
        facts: Callable[[], NodeFacts | None],
        observe: Callable[[], Awaitable[Mapping[str, ContainerInfo]]],
        hands: Callable[[], Hands | None],
        images: Images,
        files: Files,
        on_statuses: Callable[[Mapping[str, AllocationStatus]], None],
        ends: Callable[[Collection[str]], Awaitable[Mapping[str, float]]],
        fencing: Fencing | None = None,
        fit: Callable[[], AbstractSet[str] | None] = lambda: None,
        before_removal: Callable[[str], Awaitable[None]] | None = None,
        going: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """`ends`: of containers that ended, see Seen.by_docker; raises LayerDown. `fit`: see Seen. The last two: see Executor."""
        self._going = going
        self._ends = ends
        self._fit = fit
        self._wanted = wanted
        self._facts = facts
        self._observe = observe
        self._hands = hands
        self._images = images
        self._files = files
        self._on_statuses = on_statuses
        self._fencing = fencing
        self._before_removal = before_removal
        self._memory: Memory | None = None
        self._before: Mapping[str, AllocationStatus] | None = None  # what was told before the agent started
        self._statuses: Mapping[str, AllocationStatus] | None = None  # nothing was told yet, not even that there are none
        self._poked = asyncio.Event()

    def recall(self, statuses: Iterable[AllocationStatus]) -> None:
        """What this node told before its agent started, as the cluster keeps it. Only the first time, and before `run` acts, it counts."""
        if self._memory is None:
            self._before = {status.id: status for status in statuses}
            self._memory = recalled(self._before.values())
        self.poke()

    def poke(self) -> None:
        """Something has changed: what is wanted, what Docker has, or what is known of the node."""
        self._poked.set()

    async def run(self) -> None:
        """Until cancelled. What Docker is carrying out then it carries out."""
        clock = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as tasks:
            executor = Executor(
                tasks, self._hands, self._images, self._files, self._settled, self._fencing, self._before_removal, self._going
            )
            prober = Prober(tasks, self.poke)
            while True:
                self._poked.clear()
                wake = await self._round(executor, prober)
                await self._nap(min(wake, clock() + ANYWAY) - clock())

    async def _round(self, executor: Executor, prober: Prober) -> float:
        """Look, decide, hand on. When to look again at the latest."""
        clock = asyncio.get_running_loop().time
        asked = 0 if self._memory is None else self._memory.settled
        try:
            containers = await self._observe()
        except LayerDown as error:
            return self._without_docker(error)
        wanted, facts, memory = self._wanted(), self._facts(), self._memory
        if wanted is None or facts is None or memory is None:
            if wanted is not None and not wanted and memory is not None:
                self._tell({})  # where the first app goes must not depend on who gets a subnet first
            return clock() + ANYWAY
        try:
            ended = ends_asked(wanted, containers, memory, facts)
            by_docker = await self._ends(ended) if ended else {}
        except LayerDown as error:
            return self._without_docker(error)
        memory = self._memory or memory  # an action may have been over meanwhile; then `asked` is from before it
        here = frozenset(image for image in images_asked(wanted, memory) if self._images.present(image))
        seen = Seen(containers, asked, clock(), time.time(), here, prober.healths(), self._fit(), by_docker)
        verdict = reconcile(wanted, seen, memory, facts)
        self._memory = verdict.memory
        for action in executor.offer(verdict.actions):
            self._memory = begun(self._memory, action)
        prober.follow(verdict.targets)
        self._tell(verdict.statuses)
        return verdict.wake

    def _without_docker(self, error: LayerDown) -> float:
        log.debug("%s", error)
        known = self._before if self._statuses is None else self._statuses
        if known is not None:
            self._tell(unanswered(known))  # also if nothing is here: only who tells of its replicas tells that it has no Docker
        return asyncio.get_running_loop().time() + AWAY

    async def _nap(self, seconds: float) -> None:
        if await woken(self._poked, max(0.0, seconds)):
            await asyncio.sleep(SETTLE)

    def _settled(self, action: Action, outcome: Outcome) -> None:
        self._memory = settled(self._memory or Memory(), action, outcome, asyncio.get_running_loop().time())
        self.poke()

    def _tell(self, statuses: Mapping[str, AllocationStatus]) -> None:
        if statuses != self._statuses:
            self._statuses = statuses
            self._on_statuses(statuses)
