"""Keeps this node's part of the containers' network as it shall be: asks what is there, has plans made, carries them out.

Whatever changed it meanwhile (Docker makes its bridge anew, somebody flushes a table), the next round puts right. All of it
outlives the agent: containers reach each other while it is away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hmcore.apps.ports import port_words
from hmcore.config.settings import Network
from hmcore.errors import LayerMissing, UsageError
from node_agent.container.executor import in_thread
from node_agent.network import flows, forwarding, listeners, plan, ruleset
from node_agent.network.links import Links
from node_agent.network.listeners import Listener, holder
from node_agent.network.loaded import Loaded, loaded_of, moved, update
from node_agent.network.nft import Filter
from node_agent.network.plan import Place
from node_agent.network.ruleset import Base, Published, Service

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`changes`: how many things were not as they shall be. `unreachable`: nodes whose containers ours cannot reach, and why. `refused`:
    published ports that this node does not answer on, as `PROTOCOL PORT`, and why. `bridged`: the bridge is there, up, and has
    our address."""

    changes: int = 0
    unreachable: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    bridged: bool = False


class Upkeep:
    """`network`: the cluster's settings. `listening`: what programs of this node listen on; it blocks. Rounds must not overlap."""

    def __init__(
        self, network: Network, links: Links, packets: Filter, *, listening: Callable[[], Collection[Listener]] = listeners.read
    ) -> None:
        self._network = network
        self._links = links
        self._packets = packets
        self._listening = listening
        self._base: Base | None = None
        self._own: frozenset[str] = frozenset()  # addresses of this node

    async def whole(self, own: Place, others: Sequence[Place], published: Iterable[Published]) -> Outcome:
        """Everything: at the start, when nodes or the bridge have changed, and now and then. Raises LayerMissing, LayerDown, UsageError.

        The packet filter comes first: sysctls open what it must have closed before.
        """
        seen = await self._links.observe()
        self._own = frozenset(address.partition("/")[0] for link in seen.links for address in link.addresses)
        wanted = plan.desired(self._network, own, others, seen)
        actions = plan.difference(wanted, seen)
        base = ruleset.base(self._network, own, others, wanted)
        changes, refused = await self._filter(base, published)
        self._base = base
        if actions:
            log.info("network: %d changes, the first is %s", len(actions), actions[0])
            await self._links.carry_out(actions)
        changes += len(actions) + await self._pass(base)
        return Outcome(changes, wanted.unreachable, refused, not plan.bridge_as_made(own, seen, 0))

    async def ports(self, published: Iterable[Published]) -> Outcome:
        """Published ports only: when instances come, go or change their health. `changes`: how many transactions it took. `whole` must have
        been."""
        assert self._base is not None, "there is a whole round first"
        changes, refused = await self._filter(self._base, published)
        return Outcome(changes, refused=refused)

    async def _filter(self, base: Base, published: Iterable[Published]) -> tuple[int, Mapping[str, str]]:
        loaded: Loaded | None = loaded_of(await self._packets.listing())
        services, refused = await self._allowed(base, published, loaded)
        transactions = update(base, services, loaded)
        for transaction in transactions:
            await self._packets.load(transaction)
        for port, answering in moved(services, loaded):
            ended = await in_thread(lambda port=port, answering=answering: flows.end(port, self._own, answering))  # type: ignore[misc]
            if ended:
                log.info("network: %d flows to UDP port %d go elsewhere now", ended, port)
        return len(transactions), refused

    async def _allowed(self, base: Base, published: Iterable[Published], loaded: Loaded | None) -> tuple[list[Service], Mapping[str, str]]:
        """Those that this node answers on, and why it does not on the others. Who listens has been there first, unless the port is ours
        already."""
        services: list[Service] = []
        refused: dict[str, str] = {}
        taken: Collection[Listener] | None = None
        for each in published:
            name = port_words(each.protocol, each.port, each.address)
            try:
                found = ruleset.service(base, each)
            except UsageError as error:
                refused[name] = str(error)
                continue
            if loaded is None or found.element not in loaded.answers:
                taken = await in_thread(self._listening) if taken is None else taken
                if holder(each.protocol, each.port, each.address, taken, base.gateway):
                    refused[name] = "a program of this node listens on it"
                    continue
            services.append(found)
        return services, refused

    async def _pass(self, base: Base) -> int:
        """A way through Docker's own rules, if it has any of that kind."""
        try:
            listing = await self._packets.iptables("-S")
        except LayerMissing:  # then Docker has none either
            return 0
        if not forwarding.has_place(listing) or forwarding.accepted(listing, base):
            return 0
        await self._packets.iptables_restore(forwarding.accepting(base))
        if f"-A {forwarding.THEIRS} -j {forwarding.CHAIN}" not in listing.splitlines():
            await self._packets.iptables("-I", forwarding.THEIRS, "1", "-j", forwarding.CHAIN)
        return 1
