"""Docker's network of ours: made, judged, and its bridge put back where somebody took it away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import ContainerRefused, LayerDown, PartGone
from node_agent.network import actions, docker
from node_agent.network.bridge import Bridge
from node_agent.network.docker import Attach, Make, Strange, creation, step
from node_agent.network.facts import BRIDGE, Link, Seen
from node_agent.network.plan import Place

OWN = Place("node1", "192.0.2.1", "10.210.0.0/24")
ETH = Link("eth0", mtu=9000, addresses=("192.0.2.1/24",))
HM0 = Link(BRIDGE, addresses=("10.210.0.1/24",))
MADE = creation(OWN.subnet, 9000, "hm-1")
K1 = {"a" * 64: {"IPv4Address": "10.210.0.2/24"}}


class Engine:
    """Docker, with one network. `refuses`: calls, each with what it says."""

    def __init__(self, there: object | None, **refuses: str) -> None:
        self.there = there
        self.refuses = refuses
        self.done: list[tuple[str, ...]] = []

    def _do(self, *call: str) -> None:
        if call[0] in self.refuses:
            raise (PartGone if self.refuses[call[0]] == "gone" else ContainerRefused)(self.refuses[call[0]])
        self.done.append(call)

    def network(self, name: str) -> object | None:
        assert name == docker.NAME
        return self.there

    def create_network(self, body: object) -> None:
        self._do("create")
        self.there = body

    def remove_network(self, name: str) -> None:
        self._do("remove", name)

    def reattach(self, network: str, container: str, address: str) -> None:
        self._do("reattach", network, container[:1], address)


class Kernel:
    def __init__(self, *links: Link) -> None:
        self.seen = Seen(links=(ETH, *links))
        self.done: tuple[actions.Action, ...] = ()

    async def observe(self) -> Seen:
        return self.seen

    async def carry_out(self, planned: tuple[actions.Action, ...]) -> None:
        self.done += tuple(planned)


def bridge(kernel: Kernel) -> Bridge:
    return Bridge("hm-1", kernel)  # type: ignore[arg-type]


async def test_where_there_is_none_docker_makes_it_as_wide_as_the_link():
    engine = Engine(None)
    assert await bridge(Kernel()).ensure(engine, OWN)
    assert engine.there == MADE
    assert engine.done == [("create",)]


async def test_what_is_as_it_shall_be_is_left_alone():
    engine, kernel = Engine(MADE), Kernel(HM0)
    assert not await bridge(kernel).ensure(engine, OWN)
    assert (engine.done, kernel.done) == ([], ())


async def test_a_bridge_that_was_taken_away_is_put_back_and_containers_are_attached_to_it():
    engine, kernel = Engine(MADE | {"Containers": K1}), Kernel()
    assert await bridge(kernel).ensure(engine, OWN)
    assert kernel.done == (actions.MakeBridge(BRIDGE, 9000), actions.PutAddress(BRIDGE, "10.210.0.1/24"))
    assert engine.done == [("reattach", "hypermesh", "a", "10.210.0.2")]


@pytest.mark.parametrize(
    ("link", "done"),
    [
        (Link(BRIDGE, up=False, addresses=HM0.addresses), (actions.RaiseLink(BRIDGE),)),
        (Link(BRIDGE), (actions.PutAddress(BRIDGE, "10.210.0.1/24"),)),
    ],
)
async def test_a_bridge_that_lost_something_gets_it_back(link, done):
    engine, kernel = Engine(MADE | {"Containers": K1}), Kernel(link)
    assert await bridge(kernel).ensure(engine, OWN)
    assert (kernel.done, engine.done) == (done, [])


async def test_all_are_attached_that_can_be_and_the_others_are_named():
    engine, kernel = Engine(MADE | {"Containers": K1}, reattach="no such sandbox"), Kernel()
    keeper = bridge(kernel)
    for _ in range(2):  # it is owed, also once the bridge is there and Docker does not name the container any more
        with pytest.raises(LayerDown, match=r"not attached to the bridge hm0 any more: aaaaaaaaaaaa \(no such sandbox\)"):
            await keeper.ensure(engine, OWN)
        engine.there, kernel.seen = MADE, Seen(links=(ETH, HM0))
    engine.refuses = {}
    await keeper.ensure(engine, OWN)
    await keeper.ensure(engine, OWN)
    assert engine.done == [("reattach", "hypermesh", "a", "10.210.0.2")]


async def test_who_has_gone_meanwhile_is_owed_nothing():
    engine, kernel = Engine(MADE | {"Containers": K1}, reattach="gone"), Kernel()
    keeper = bridge(kernel)
    assert await keeper.ensure(engine, OWN)
    engine.there, kernel.seen, engine.refuses = MADE, Seen(links=(ETH, HM0)), {}
    assert not await keeper.ensure(engine, OWN)
    assert engine.done == []


async def test_ours_of_another_subnet_is_made_anew_and_somebodys_is_not_touched():
    engine = Engine(creation("10.210.9.0/24", 1500, "hm-0"))
    assert await bridge(Kernel()).ensure(engine, OWN)
    assert engine.done == [("remove", "hypermesh"), ("create",)]
    strange = Engine(creation("10.210.9.0/24", 1500, "hm-0") | {"Labels": {}})
    with pytest.raises(LayerDown, match=r"not ours: its subnet is 10\.210\.9\.0/24, not 10\.210\.0\.0/24") as told:
        await bridge(Kernel()).ensure(strange, OWN)
    assert "docker network rm hypermesh" in (told.value.fix or "")
    assert strange.done == []


@pytest.mark.parametrize(
    ("there", "refuses", "said"),
    [
        (None, {"create": "Pool overlaps with other one on this address space"}, "it cannot be made: Pool overlaps"),
        (creation("10.210.9.0/24", 1500, "x"), {"remove": "has active endpoints"}, "it cannot be made anew: has active endpoints"),
    ],
)
async def test_what_docker_refuses_is_told(there, refuses, said):
    with pytest.raises(LayerDown, match=said):
        await bridge(Kernel()).ensure(Engine(there, **refuses), OWN)


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["IPAM", "Config", "Options", "Labels", "Containers", "IPv4Address"]), inner)
        ),
    ),
    st.booleans(),
)
def test_anything_docker_says_gives_a_step(inspected, there):
    assert isinstance(step(inspected, OWN.subnet, bridge=there), Make | Strange)
    merged = MADE | {"Containers": inspected}
    assert isinstance(step(merged, OWN.subnet, bridge=False), Attach)
    assert step(merged, OWN.subnet, bridge=True) is None
