"""The containers' network as a component: keeps bridge, routes, packet filter and names of this node as the cluster knows them, also when
somebody else changes them.

All but the names lives in the kernel: it stays as it is while the agent is away. Each part that fails says so and is tried again; the
others go on.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING

from hmcore.apps.ports import port_words
from hmcore.apps.subnets import gateway
from hmcore.config import settings
from hmcore.errors import HyperMeshError, LayerDown, LayerMissing, UsageError
from node_agent.network.dns import PORT, NameServer
from node_agent.network.names import Directory
from node_agent.network.nft import Filter
from node_agent.network.notices import Notices
from node_agent.network.upstream import Upstream
from node_agent.network.wanted import Wanted
from node_agent.waiting import woken

if TYPE_CHECKING:
    from hmcore.apps.records import GivenPort
    from node_agent.network.bridge import Bridge, Networks
    from node_agent.network.links import Links
    from node_agent.network.plan import Place
    from node_agent.network.upkeep import Upkeep

ANYWAY = 300.0  # seconds after which everything is looked at although nobody said that it has changed
SETTLE = 0.05  # seconds in which several changes make one round
CALM = 0.5  # seconds between two looks at everything, however much others change
PAUSES = (0.5, 30.0)  # seconds between attempts at what fails: the first, then doubled up to the last
LISTENING = "ss -lntup says which program listens there: stop it, or publish another port"
PATIENCE = 1.0  # seconds until Docker is asked again for what it refused, whatever happens meanwhile
LOOK_AGAIN = 5.0  # seconds until it is looked whether a program still listens on a port that shall be published: nobody tells when it ends
LISTEN_AGAIN = 5.0  # seconds until a name server whose address is somebody else's tries again

log = logging.getLogger(__name__)


class NetworkLayer:
    """See node_agent.platform.lifecycle.Component. `given`: by the id of an allocation here, the ports that were given out for it, and that
    this node answers on; None: nobody knows yet."""

    name = "network"

    def __init__(
        self,
        network: settings.Network,
        cluster: str,
        *,
        wanted: Callable[[], Wanted | None],
        networks: Callable[[], Networks | None],
        on_bridge: Callable[[], None] = lambda: None,
        on_ports: Callable[[], None] = lambda: None,
        on_trouble: Callable[[], None] = lambda: None,
        packets: Filter | None = None,
        upstream: Callable[[str], Upstream] = Upstream,
        port: int = PORT,
    ) -> None:
        """`cluster`: its id. `wanted` says what shall be, None while this node does not know the cluster: then nothing is touched. It is
        asked after each `poke`, a moment later. `networks`: Docker; None while it does not answer. `on_bridge`: containers can be attached
        now. `on_ports`: `given` is another. `on_trouble`: `check` says something else of published ports or of routes."""
        self._network = network
        self._cluster = cluster
        self._wanted = wanted
        self._networks = networks
        self._on_bridge = on_bridge
        self._on_ports = on_ports
        self._on_trouble = on_trouble
        self._packets = packets or Filter()
        self._upstream = upstream
        self._port = port
        self._links: Links | None = None
        self._upkeep: Upkeep | None = None
        self._bridge: Bridge | None = None
        self._notices = Notices(self._changed, self._packets.started)
        self._poked = asyncio.Event()
        self._dirty = True  # everything is to be looked at
        self._bridge_known = False  # Docker has been asked about it since it was there
        self._asked_at = self._looked_at = float("-inf")
        self._now = Wanted(None)
        self._done: Wanted | None = None  # what was brought about last
        self._refused: Collection[str] = ()  # published ports that this node does not answer on, as Outcome has them
        self.given: Mapping[str, tuple[GivenPort, ...]] | None = None
        self._directory = Directory(network.cidr, (), {})
        self._server: asyncio.Task[None] | None = None
        self._names: NameServer | None = None
        self._served: Place | None = None
        self._troubles: dict[str, HyperMeshError] = {}  # by the part that fails
        self._failures = 0

    @property
    def serving(self) -> bool:
        """Also while there is nothing to do, because no app has been deployed yet."""
        return self.managed

    @property
    def bridged(self) -> bool:
        """Whether there is a bridge that containers can be attached to."""
        return self._bridge_known or not self.managed

    @property
    def managed(self) -> bool:
        """With the mode `off` the node's network is none of ours, and containers are on Docker's own bridge."""
        return self._network.mode == "on"

    def poke(self) -> None:
        """What is wanted may have changed, or Docker is back."""
        self._poked.set()

    # --- life

    async def initialize(self) -> None:
        """See that there is a packet filter and that changes are told. Raises LayerMissing or LayerDown."""
        if not self.managed:
            return
        for part in ("links", "bridge", "upkeep"):  # pyroute2 takes a while to load
            await asyncio.to_thread(importlib.import_module, f"node_agent.network.{part}")
        from node_agent.network.bridge import Bridge  # noqa: PLC0415
        from node_agent.network.links import Links  # noqa: PLC0415
        from node_agent.network.upkeep import Upkeep  # noqa: PLC0415

        self._links = links = Links()
        self._upkeep = Upkeep(self._network, links, self._packets)
        self._bridge = Bridge(self._cluster, links)
        await self._packets.listing()
        self._notices.open()
        self._dirty, self._bridge_known, self._done = True, False, None

    async def run(self) -> None:
        if not self.managed:
            await asyncio.Event().wait()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._poked.clear()
                self._take(self._wanted())
                self._serve_names(tasks)
                await self._nap(await self._round())

    @property
    def unpublished(self) -> list[str]:
        """Published ports that this node does not answer on, in words."""
        return sorted(self._refused)

    async def check(self) -> str | HyperMeshError | None:
        if self._troubles:
            return next(iter(self._troubles.values()))
        return "; ".join(self._now.problems) or None

    async def stop(self) -> None:
        """What is in the kernel stays: containers reach each other while the agent is away. Only their names they cannot ask for."""
        self._notices.close()
        self._server = self._served = None
        links, self._links = self._links, None
        if links is not None:
            await links.close()

    # --- rounds

    def _changed(self) -> None:
        """Somebody changed something in the kernel; of links and routes, maybe we did."""
        self._dirty = True
        self._poked.set()

    def _take(self, wanted: Wanted | None) -> None:
        if wanted is None:
            return
        if (wanted.services, wanted.askers) != (self._now.services, self._now.askers):
            self._directory = Directory(self._network.cidr, wanted.services, wanted.askers)
            if self._names is not None:
                self._names.renewed()
        self._now = wanted

    async def _round(self) -> float:
        """Bring about what is wanted. Seconds until the next round, if nothing happens: after a look at everything that somebody changed
        meanwhile a little longer, for our own changes are told, too."""
        now, own = self._now, self._now.own
        if own is None:
            return ANYWAY
        await self._attempt("bridge", lambda: self._have_bridge(own))
        await self._attempt("rules", lambda: self._have_rules(now, own))
        failing = bool({"bridge", "rules"} & self._troubles.keys())
        self._failures = self._failures + 1 if failing else 0
        first, last = PAUSES
        if failing:
            return min(first * 2.0 ** min(self._failures - 1, 30), last)
        if self._dirty:
            return self._looked_at + CALM - asyncio.get_running_loop().time()
        return LOOK_AGAIN if self._refused else ANYWAY

    async def _attempt(self, part: str, deed: Callable[[], Awaitable[None]]) -> None:
        try:
            await deed()
        except (LayerDown, LayerMissing, UsageError) as error:
            if str(error) != str(self._troubles.get(part, "")):
                log.warning("network: %s", error)
            self._troubles[part] = error
            self._dirty = True
        else:
            if self._troubles.pop(part, None) is not None:
                log.info("network: %s as wanted again", part)

    async def _have_bridge(self, own: Place) -> None:
        """Docker is asked only when the bridge is not known to be there."""
        assert self._bridge is not None
        if self._bridge_known and (self._done is None or self._done.own == own):
            return
        networks = self._networks()
        if networks is None:
            return  # the container layer says so, and we are poked when it is back
        clock = asyncio.get_running_loop().time
        if (trouble := self._troubles.get("bridge")) is not None and clock() < self._asked_at + PATIENCE:
            raise trouble
        self._asked_at = clock()
        if await self._bridge.ensure(networks, own):
            self._dirty = True
        self._bridge_known = True
        self._on_bridge()

    async def _have_rules(self, now: Wanted, own: Place) -> None:
        assert self._upkeep is not None
        clock = asyncio.get_running_loop().time
        done = self._done
        moved = done is None or (done.own, done.others) != (own, now.others)
        due = clock() >= self._looked_at + ANYWAY
        if moved or due or (self._dirty and clock() >= self._looked_at + CALM):
            self._dirty = False
            self._looked_at = clock()
            outcome = await self._upkeep.whole(own, now.others, now.published)
            if not outcome.bridged:  # it has gone, or is not there yet
                self._bridge_known = False
                self._dirty = True
            self._tell("routes", [f"{name}'s containers cannot be reached: {why}" for name, why in outcome.unreachable.items()])
        elif done is None or done.published != now.published or self._refused:
            outcome = await self._upkeep.ports(now.published)
        else:
            self._give(now)
            return
        self._done, self._refused = now, outcome.refused
        self._give(now)
        self._tell("ports", [f"{port} is not published here: {why}" for port, why in outcome.refused.items()], fix=LISTENING)

    def _tell(self, part: str, found: list[str], fix: str | None = None) -> None:
        before = self._troubles.pop(part, None)
        if found:
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            self._troubles[part] = LayerDown(f"{found[0]}{more}", fix=fix)
        if str(before or "") != str(self._troubles.get(part, "")):
            self._on_trouble()

    def _give(self, now: Wanted) -> None:
        """Ports that were given out, and that this node answers on."""
        answered = {
            id: tuple(port for port in ports if port_words(port.protocol, port.published, port.address) not in self._refused)
            for id, ports in now.given.items()
        }
        if answered != self.given:
            self.given = answered
            self._on_ports()

    async def _nap(self, seconds: float) -> None:
        if await woken(self._poked, max(0.0, seconds)):
            await asyncio.sleep(SETTLE)

    # --- names

    def _serve_names(self, tasks: asyncio.TaskGroup) -> None:
        if self._served == self._now.own and (self._server is None or not self._server.done()):
            return
        if self._server is not None:
            self._server.cancel()
        self._served = own = self._now.own
        self._server = None if own is None else tasks.create_task(self._answer(own), name="names")

    async def _answer(self, own: Place) -> None:
        address = gateway(own.subnet)
        while True:
            self._names = server = NameServer(address, own.subnet, lambda: self._directory, self._upstream(address), port=self._port)
            try:
                server.open()
            except LayerDown as error:
                self._troubles["names"] = error
                await asyncio.sleep(LISTEN_AGAIN)
                continue
            self._troubles.pop("names", None)
            try:
                await server.serve()
            finally:
                server.close()
