"""From subnets and what is on which link to routes, tunnels and sysctls; and only the difference is done."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.config.settings import Network
from node_agent.network import actions, plan
from node_agent.network.facts import BRIDGE, TUNNEL, Forwarding, Link, Neighbour, Route, Seen, Tunnel
from node_agent.network.plan import Place, desired, difference, hardware_address

NETWORK = Network()
OWN = Place("node1", "192.0.2.1", "10.210.0.0/24")
NEAR = Place("node2", "192.0.2.2", "10.210.1.0/24")
FAR = Place("node3", "198.51.100.3", "10.210.2.0/24")
ETH = Link("eth0", addresses=("192.0.2.1/24",))
HM0 = Link(BRIDGE, addresses=("10.210.0.1/24",))
KERNEL = 2  # RTPROT_KERNEL
ROUTES = (
    Route("192.0.2.0/24", "eth0", source="192.0.2.1", protocol=KERNEL),
    Route("0.0.0.0/0", "eth0", "192.0.2.254", protocol=3),
    Route("10.210.0.0/24", BRIDGE, source="10.210.0.1", protocol=KERNEL),
)
SEEN = Seen(links=(ETH, HM0), routes=ROUTES)


def carried_out(planned, seen):
    """What the kernel makes of it."""
    links, routes = {link.name: link for link in seen.links}, list(seen.routes)
    neighbours, forwardings, sysctls = set(seen.neighbours), set(seen.forwardings), dict(seen.sysctls)

    def drop_tunnel():
        links.pop(TUNNEL, None)
        routes[:] = [route for route in routes if route.device != TUNNEL]
        neighbours.clear()
        forwardings.clear()

    for action in planned:
        match action:
            case actions.MakeTunnel(name, tunnel):
                drop_tunnel()
                links[name] = Link(name, mtu=tunnel.mtu, tunnel=tunnel)
            case actions.DropTunnel():
                assert TUNNEL in links
                drop_tunnel()
            case actions.RaiseLink(name):
                links[name] = replace(links[name], up=True)
            case actions.PutForwarding(forwarding):
                assert TUNNEL in links
                assert forwarding.mac not in {each.mac for each in forwardings}, "the kernel refuses a second one"
                forwardings.add(forwarding)
            case actions.DropForwarding(forwarding):
                forwardings.remove(forwarding)
            case actions.PutNeighbour(neighbour):
                assert TUNNEL in links
                neighbours = {each for each in neighbours if each.address != neighbour.address} | {neighbour}
            case actions.DropNeighbour(neighbour):
                neighbours.remove(neighbour)
            case actions.PutRoute(route):
                assert route.device in links
                assert links[route.device].up
                routes[:] = [each for each in routes if (each.destination, each.protocol) != (route.destination, route.protocol)]
                routes.append(route)
            case actions.DropRoute(route):
                routes.remove(route)
            case actions.LetReflect(name):
                links[name] = replace(links[name], reflects=True)
            case actions.SetSysctl(name, value):
                device = name.split(".")[3].replace("/", ".") if ".conf." in name else None
                assert device is None or device in links
                sysctls[name] = value
    return Seen(tuple(links.values()), tuple(routes), frozenset(neighbours), frozenset(forwardings), sysctls)


def test_who_is_on_our_link_is_routed_to_plainly():
    found = desired(NETWORK, OWN, [OWN, NEAR], SEEN)
    assert found.routes == (Route("10.210.1.0/24", "eth0", "192.0.2.2", "10.210.0.1"),)
    assert (found.tunnel, found.neighbours, found.forwardings, found.carriers) == (None, frozenset(), frozenset(), ("eth0",))


def test_who_is_behind_a_router_is_reached_through_a_tunnel():
    found = desired(NETWORK, OWN, [FAR], SEEN)
    mac = "02:48:0a:d2:02:01"
    assert found.routes == (Route("10.210.2.0/24", TUNNEL, "10.210.2.1", "10.210.0.1", onlink=True),)
    assert found.neighbours == {Neighbour("10.210.2.1", mac)}
    assert found.forwardings == {Forwarding(mac, "198.51.100.3")}
    assert found.tunnel == Tunnel(vni=plan.VNI, port=4789, local="192.0.2.1", mac="02:48:0a:d2:00:01", mtu=1450)
    assert found.carriers == (TUNNEL,)
    assert found.sysctls["net.ipv4.conf.hmvx.rp_filter"] == "2"


def test_both_ends_of_a_tunnel_agree_on_hardware_addresses():
    there = Seen(links=(Link("ens3", addresses=("198.51.100.3/24",)),), routes=(Route("0.0.0.0/0", "ens3", "198.51.100.1", protocol=3),))
    here, other = desired(NETWORK, OWN, [FAR], SEEN), desired(NETWORK, FAR, [OWN], there)
    assert {each.mac for each in here.forwardings} == {other.tunnel.mac}
    assert {each.mac for each in other.forwardings} == {here.tunnel.mac}


def test_encapsulation_can_be_chosen():
    always = desired(Network(encapsulation="vxlan"), OWN, [NEAR, FAR], SEEN)
    assert {route.device for route in always.routes} == {TUNNEL}
    never = desired(Network(encapsulation="plain"), OWN, [NEAR, FAR], SEEN)
    assert [route.destination for route in never.routes] == ["10.210.1.0/24"]  # the routers know the way to the other
    assert (never.tunnel, never.carriers) == (None, ("eth0",))


@pytest.mark.parametrize(
    ("routes", "links", "adjacent"),
    [
        ((Route("192.0.2.0/24", "eth0", protocol=KERNEL),), (ETH,), True),
        ((Route("192.0.2.2/32", "eth0", "192.0.2.254", protocol=3), ROUTES[0]), (ETH,), False),  # a more specific way over a router
        ((Route("192.0.2.0/24", "wg0", protocol=KERNEL),), (Link("wg0", shared=False, addresses=("192.0.2.1/24",)),), False),
        ((Route("192.0.2.0/24", "eth0", protocol=KERNEL, metric=100), Route("192.0.2.0/24", "wg0", metric=50, protocol=4)),
         (ETH, Link("wg0", shared=False)), False),
        ((Route("192.0.2.0/24", "eth0", protocol=KERNEL, metric=50), Route("192.0.2.0/24", "wg0", metric=100, protocol=4)),
         (ETH, Link("wg0", shared=False)), True),
        ((Route("192.0.2.0/24", "eth0", "::", protocol=KERNEL),), (ETH,), False),  # over an IPv6 router
        ((), (ETH,), False),
    ],
)  # fmt: skip
def test_what_is_on_our_link_is_read_from_routes(routes, links, adjacent):
    found = desired(NETWORK, OWN, [NEAR], Seen(links=(*links, HM0), routes=routes))
    assert (found.tunnel is None) is adjacent


def test_before_docker_has_made_the_bridge_routes_prefer_no_source():
    bare = Seen(links=(ETH,), routes=ROUTES[:2])
    found = desired(NETWORK, OWN, [NEAR], bare)
    assert found.routes[0].source == ""
    assert not any(BRIDGE in name for name in found.sysctls)
    seen = carried_out(difference(found, bare), bare)
    later = replace(seen, links=(ETH, HM0))
    assert [action for action in difference(desired(NETWORK, OWN, [NEAR], later), later) if isinstance(action, actions.PutRoute)] == [
        actions.PutRoute(Route("10.210.1.0/24", "eth0", "192.0.2.2", "10.210.0.1"))
    ]


def test_behind_address_translation_the_kernel_chooses_the_tunnels_source():
    found = desired(NETWORK, replace(OWN, address="203.0.113.9"), [FAR], SEEN)
    assert found.tunnel is not None
    assert found.tunnel.local == ""


def test_who_has_no_ipv4_address_is_named():
    found = desired(NETWORK, OWN, [replace(FAR, address="2001:db8::3"), NEAR], SEEN)
    assert found.unreachable == {"node3": "2001:db8::3 is no IPv4 address"}
    assert len(found.routes) == 1


def test_what_is_not_ours_stays():
    foreign = Route("10.210.7.0/24", "eth0", "192.0.2.9", protocol=4)
    stale = Route("10.210.8.0/24", "eth0", "192.0.2.8")
    seen = replace(SEEN, routes=(*ROUTES, foreign, stale))
    planned = difference(desired(NETWORK, OWN, [NEAR], seen), seen)
    assert actions.DropRoute(stale) in planned
    assert foreign in carried_out(planned, seen).routes


def test_a_node_with_another_address_has_its_entry_replaced():
    seen = carried_out(difference(desired(NETWORK, OWN, [FAR], SEEN), SEEN), SEEN)
    moved = replace(FAR, address="203.0.113.3")
    planned = difference(desired(NETWORK, OWN, [moved], seen), seen)
    mac = hardware_address("10.210.2.1")
    assert planned == (actions.DropForwarding(Forwarding(mac, FAR.address)), actions.PutForwarding(Forwarding(mac, "203.0.113.3")))


def test_the_last_tunnel_goes_with_its_last_node():
    seen = carried_out(difference(desired(NETWORK, OWN, [FAR], SEEN), SEEN), SEEN)
    planned = difference(desired(NETWORK, OWN, [], seen), seen)
    assert planned == (actions.DropTunnel(TUNNEL),)
    assert carried_out(planned, seen).routes == ROUTES


def test_a_device_with_dots_in_its_name_has_sysctls_as_sysctl_writes_them():
    links = (Link("eth0.5", addresses=("192.0.2.1/24",)), HM0)
    found = desired(NETWORK, OWN, [NEAR], Seen(links=links, routes=(Route("192.0.2.0/24", "eth0.5", protocol=KERNEL),)))
    assert found.sysctls["net.ipv4.conf.eth0/5.route_localnet"] == "1"


def test_ports_of_our_bridge_reflect_and_of_others_are_left_alone():
    ports = (Link("veth1", bridge=BRIDGE), Link("veth2", bridge=BRIDGE, reflects=True), Link("veth3", bridge="docker0"))
    seen = replace(SEEN, links=(*SEEN.links, *ports))
    planned = difference(desired(NETWORK, OWN, [], seen), seen)
    assert [action for action in planned if isinstance(action, actions.LetReflect)] == [actions.LetReflect("veth1")]


def test_the_bridge_is_as_wide_as_the_nodes_link():
    wide = Link("eth1", mtu=9000, addresses=("198.18.0.1/24",))
    assert plan.mtu(Seen(links=(ETH, wide, HM0)), OWN) == 1500
    assert plan.mtu(Seen(links=(ETH, wide, HM0)), replace(OWN, address="198.18.0.1")) == 9000
    assert plan.mtu(Seen(links=(ETH, wide)), replace(OWN, address="203.0.113.1")) == 1500
    assert plan.mtu(Seen(), OWN) == 1500


places = st.lists(
    st.builds(
        lambda number, near, moved: Place(
            f"node{number}", f"{'192.0.2' if near else '198.51.100'}.{number + 50 * moved}", f"10.210.{number}.0/24"
        ),
        st.integers(2, 9),
        st.booleans(),
        st.integers(0, 2),
    ),
    max_size=6,
    unique_by=lambda place: place.node,
)
FULL = replace(SEEN, links=(ETH, HM0, Link(TUNNEL), Link("veth1", bridge=BRIDGE)))
networks = st.builds(Network, encapsulation=st.sampled_from(["auto", "plain", "vxlan"]), vxlan_port=st.sampled_from([4789, 8472]))
worlds = st.sampled_from([SEEN, Seen(links=(ETH,), routes=ROUTES[:2]), FULL])


@pytest.mark.long
@given(st.lists(st.tuples(networks, places), min_size=1, max_size=4), worlds, st.integers(0, 20))
def test_from_anything_to_anything_in_one_round_even_when_the_one_before_was_broken_off(rounds, seen, broken):
    for network, others in rounds[:-1]:
        seen = carried_out(difference(desired(network, OWN, others, seen), seen)[:broken], seen)
    network, others = rounds[-1]
    wanted = desired(network, OWN, others, seen)
    after = carried_out(difference(wanted, seen), seen)
    assert difference(desired(network, OWN, others, after), after) == ()
    assert {route for route in after.routes if route.protocol == plan.ROUTES} == set(wanted.routes)
    assert (after.neighbours, after.forwardings) == (wanted.neighbours, wanted.forwardings)
    assert (after.link(TUNNEL) is not None) is (wanted.tunnel is not None)
    assert [route for route in after.routes if route.protocol != plan.ROUTES] == [
        each for each in seen.routes if each.protocol != plan.ROUTES
    ]


@given(places)
def test_every_node_is_reached_in_exactly_one_way(others):
    found = desired(NETWORK, OWN, others, SEEN)
    assert sorted(route.destination for route in found.routes) == sorted(place.subnet for place in others)
    tunnelled = {route.gateway for route in found.routes if route.device == TUNNEL}
    assert {each.address for each in found.neighbours} == tunnelled
    assert {each.mac for each in found.forwardings} == {each.mac for each in found.neighbours}
