"""The containers' network between namespaces that stand in for nodes, with the kernel's real routes, tunnels and packet filter."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import namespaces
import pytest
from namespaces import ADDRESSES, CIDR, KNOCKING, OUTSIDE, PORT, World

from node_agent.network.ruleset import Base, Endpoint, Published, service, whole

WEB = 80


@pytest.fixture(scope="module")
def tools() -> None:
    """In CI these tests run or fail: only on a person's machine may they be left out, with the reason."""
    if reason := namespaces.missing():
        if os.environ.get("CI"):
            pytest.fail(f"the container network cannot be tested here: {reason}")
        pytest.skip(reason)


@pytest.fixture(scope="module")
def shared(tools: None) -> Iterator[World]:
    with namespaces.world(loop="uvloop") as made:
        yield made


@pytest.fixture
def world(shared: World) -> World:
    """Three nodes, of which the third is behind a router; nothing is published."""
    shared.whole()
    return shared


def test_containers_reach_each_other_plainly_and_through_tunnels_with_their_own_addresses(world):
    assert world.reaches("k11", world.addresses["k12"]) == f"k12 {world.addresses['k11']}"  # on one bridge
    assert world.reaches("k11", world.addresses["k21"]) == f"k21 {world.addresses['k11']}"  # on one link
    assert world.reaches("k11", world.addresses["k31"]) == f"k31 {world.addresses['k11']}"  # behind the router
    assert world.reaches("k31", world.addresses["k11"]) == f"k11 {world.addresses['k31']}"
    assert "dev hmvx" in world.run("node1", "ip", "route", "get", world.addresses["k31"])
    assert "dev eth0" in world.run("node1", "ip", "route", "get", world.addresses["k21"])


def test_large_answers_come_through_a_tunnel_that_takes_less_than_the_link(world):
    found = world.run("k11", sys.executable, str(KNOCKING), "long", world.addresses["k31"], str(PORT))
    assert json.loads(found) > 300_000


def test_a_second_round_finds_nothing_to_do_and_what_was_broken_is_put_right(world):
    assert {answer["changes"] for answer in world.whole().values()} == {0}
    world.run("node1", "ip", "route", "delete", "198.19.2.0/24")
    world.run("node1", "ip", "link", "delete", "hmvx")
    world.run("node1", "nft", "delete", "table", "ip", "hm_net")
    assert world.whole()["node1"]["changes"] > 3
    assert world.reaches("k11", world.addresses["k21"]) == f"k21 {world.addresses['k11']}"
    assert world.reaches("k11", world.addresses["k31"]) == f"k31 {world.addresses['k11']}"
    assert {answer["changes"] for answer in world.whole().values()} == {0}


def test_a_bridge_that_docker_made_anew_gets_its_routes_back(world):
    world.run("node1", "ip", "address", "delete", "198.19.1.1/24", "dev", "hm0")
    world.run("node1", "ip", "address", "add", "198.19.1.1/24", "dev", "hm0")  # routes that prefer it as a source went with it
    assert world.whole()["node1"]["changes"] > 0
    assert world.reaches("node1", world.addresses["k31"]) == "k31 198.19.1.1"


def test_what_leaves_the_cluster_has_its_nodes_address(world):
    outside = subprocess.Popen(
        ["ip", "netns", "exec", world.name("outside"), sys.executable, str(KNOCKING), "serve", "outside", OUTSIDE, "9000"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert outside.stdout is not None
        assert outside.stdout.readline() == "ready\n"
        assert world.reaches("k11", OUTSIDE, 9000) == f"outside {ADDRESSES['node1']}"
    finally:
        outside.kill()
        outside.communicate()


def test_nobody_outside_reaches_a_container_but_by_a_published_port(world):
    world.run("outside", "ip", "route", "replace", "198.19.1.0/24", "via", ADDRESSES["node1"])
    try:
        assert world.knock("outside", world.addresses["k11"])["answers"] == {}
    finally:
        world.run("outside", "ip", "route", "delete", "198.19.1.0/24")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_published_port_answers_on_every_node_and_reaches_replicas_anywhere(world, protocol):
    world.ports([[protocol, WEB, [world.endpoint(each) for each in ("k11", "k21", "k31")]]])
    for node, address in ADDRESSES.items():
        found = world.knock("outside", address, WEB, 60, protocol)
        assert found["failures"] == {}
        sources = dict(answer.split() for answer in found["answers"])
        assert set(sources) == {"k11", "k21", "k31"}
        for container, source in sources.items():  # a replica on the node that was asked sees who asks
            assert source == (OUTSIDE if container[1] == node[-1] else f"198.19.{node[-1]}.1")


def test_weights_are_kept(world):
    world.ports([["tcp", WEB, [world.endpoint("k11", 50), world.endpoint("k21", 30), world.endpoint("k31", 20)]]])
    answers = world.knock("outside", ADDRESSES["node1"], WEB, 1000)["answers"]
    shares = {answer.split()[0]: number for answer, number in answers.items()}
    for container, expected in (("k11", 500), ("k21", 300), ("k31", 200)):  # over four standard deviations
        assert abs(shares[container] - expected) < 70, shares


@pytest.mark.parametrize("replica", ["k11", "k12", "k21", "k31"])
def test_a_published_port_is_reached_from_containers_also_when_it_leads_back_to_them(world, replica):
    world.ports([["tcp", WEB, [world.endpoint(replica)]]])
    seen = "198.19.1.1" if replica[1] == "1" else world.addresses["k11"]  # a neighbour must answer through the node
    assert world.reaches("k11", ADDRESSES["node1"], WEB) == f"{replica} {seen}"
    assert world.reaches("k11", ADDRESSES["node2"], WEB).startswith(f"{replica} ")


@pytest.mark.parametrize("replica", ["k11", "k21", "k31"])
@pytest.mark.parametrize("address", ["127.0.0.1", ADDRESSES["node1"], "198.19.1.1"])
def test_a_published_port_is_reached_from_the_node_itself(world, replica, address):
    world.ports([["tcp", WEB, [world.endpoint(replica)]]])
    assert world.reaches("node1", address, WEB).startswith(f"{replica} ")


def test_nobody_outside_can_pretend_to_mean_the_node_itself(world):
    """route_localnet, which the node's own connections need, would let them."""
    listener = subprocess.Popen(
        ["ip", "netns", "exec", world.name("node1"), sys.executable, str(KNOCKING), "serve", "private", "127.0.0.1", "9001"],
        stdout=subprocess.PIPE,
        text=True,
    )
    forge = (
        "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet; ip rule add pref 10 lookup local; ip rule delete pref 0;"
        f"ip route add 127.0.0.1 via {ADDRESSES['node1']} dev eth0 src {OUTSIDE} table 77; ip rule add pref 5 to 127.0.0.1 lookup 77"
    )
    amend = "ip rule add pref 0 lookup local; ip rule delete pref 5; ip rule delete pref 10; ip route flush table 77"
    try:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        world.run("outside", "sh", "-ec", forge)
        assert world.knock("outside", "127.0.0.1", 9001) == {"answers": {}, "failures": {"timeout": 1}}
        world.run("node1", "nft", "flush chain ip hm_net strangers")
        assert world.reaches("outside", "127.0.0.1", 9001).startswith("private")  # so that was it
    finally:
        world.run("node1", "nft", "delete table ip hm_net")
        world.run("outside", "sh", "-c", amend)
        listener.kill()
        listener.communicate()


def test_with_nobody_fit_connections_are_refused_at_once(world):
    world.ports([["tcp", WEB, []], ["udp", WEB, []]])
    for short, address in (
        ("outside", ADDRESSES["node1"]),
        ("k11", ADDRESSES["node1"]),
        ("node1", "127.0.0.1"),
        ("node1", ADDRESSES["node1"]),
    ):
        for protocol in ("tcp", "udp"):
            assert world.knock(short, address, WEB, 3, protocol) == {"answers": {}, "failures": {"ECONNREFUSED": 3}}
    world.ports([["tcp", WEB, [world.endpoint("k21")]]])
    assert world.reaches("outside", ADDRESSES["node1"], WEB).startswith("k21 ")


def test_a_packet_filter_that_drops_what_it_does_not_know_still_lets_refusals_through(world):
    """What answers nothing leaves clients waiting."""
    world.run("node1", "nft", "add table ip other; add chain ip other input { type filter hook input priority 0; policy drop; }")
    try:
        world.ports([["tcp", WEB, []]])
        assert world.knock("outside", ADDRESSES["node1"], WEB, 1)["failures"] == {"ECONNREFUSED": 1}
    finally:
        world.run("node1", "nft", "delete table ip other")


@pytest.mark.parametrize("change", ["ports", "whole"])
def test_updates_under_load_lose_no_connection(world, tmp_path, change):
    sets = (["k11", "k21"], ["k12", "k31"])
    published = [[["tcp", WEB, [world.endpoint(each) for each in chosen]]] for chosen in sets]
    world.ports(published[0])
    stop = tmp_path / "stop"
    command = [sys.executable, str(KNOCKING), "knock", "tcp", ADDRESSES["node1"], str(WEB), "1000000", str(stop)]
    loads = [
        subprocess.Popen(["ip", "netns", "exec", world.name(short), *command], stdout=subprocess.PIPE, text=True)
        for short in ("outside", "k11", "k21")
    ]
    try:
        for turn in range(60):
            told = published[turn % 2]
            if change == "ports":
                assert world.nodes["node1"].ask(do="ports", published=told) == {"transactions": 3 if turn else 0}
            else:  # another node more or less: the fixed chains are loaded anew
                others = [world.place(node) for node in ADDRESSES] + ([["node9", "198.18.1.200", "198.19.9.0/24"]] if turn % 2 else [])
                assert world.nodes["node1"].ask(do="whole", own=world.place("node1"), others=others, published=told)["changes"] >= (
                    turn > 0
                )
    finally:
        stop.touch()
        outcomes = [json.loads(load.communicate(timeout=30)[0]) for load in loads]
    answered = sum(sum(outcome["answers"].values()) for outcome in outcomes)
    assert [outcome["failures"] for outcome in outcomes] == [{}, {}, {}]
    assert answered > 500
    assert {answer.split()[0] for outcome in outcomes for answer in outcome["answers"]} == {"k11", "k12", "k21", "k31"}


def test_a_connection_outlives_the_change_that_took_its_replica_away(world):
    """Who is being served is served to the end; only new connections go elsewhere."""
    world.ports([["tcp", WEB, [world.endpoint("k21")]]])
    script = (
        "import socket, sys; s = socket.create_connection((sys.argv[1], 80), 5); print('open', flush=True); sys.stdin.readline();"
        "s.sendall(b'?'); print(s.recv(100).decode())"
    )
    client = subprocess.Popen(
        ["ip", "netns", "exec", world.name("outside"), sys.executable, "-c", script, ADDRESSES["node1"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "open\n"
        world.ports([["tcp", WEB, [world.endpoint("k31")]]])
        assert client.communicate("go\n", timeout=10)[0] == "k21 198.19.1.1\n"
    finally:
        client.kill()
        client.wait(10)


def test_containers_ask_the_agent_for_names_with_their_own_libraries(world):
    replicas = {node: [[1, world.addresses[f"k{node[-1]}1"]], [2, world.addresses[f"k{node[-1]}2"], False]] for node in ADDRESSES}
    services = [["shop", "web", {"front": ["www"]}, replicas["node1"]], ["shop", "db", {"back": []}, replicas["node2"]],
                ["shop", "api", {"front": [], "back": []}, replicas["node3"]]]  # fmt: skip
    world.nodes["node1"].ask(do="names", services=services, subnet="198.19.1.0/24")
    namespaces.resolving(world, "k11", "198.19.1.1")

    def look(name: str) -> object:
        return json.loads(world.run("k11", sys.executable, str(KNOCKING), "look", name))

    world.ports([["udp", 53, [world.endpoint("k21")]]])  # somebody's own name server, published
    assert look("api") == look("api.shop") == look("shop-api-1") == look("1.api") == [world.addresses["k31"]]
    assert look("www") == [world.addresses["k11"]]
    assert look("tasks.api") == look("shop_api") == look("tasks.shop_api") == [world.addresses["k31"]]  # as Swarm calls it
    assert look("db") == look("shop_db") == socket.EAI_NONAME
    assert look("2.api") in (socket.EAI_NONAME, socket.EAI_NODATA)  # not fit


def test_tunnels_of_strangers_are_not_listened_to(world):
    """Whoever could send us one would be inside, as anybody of another node. (Addresses that no tunnel leads to are rp_filter's.)"""
    count = "table ip probe { chain input { type filter hook input priority 0; policy accept; ip saddr 198.19.3.200 counter; }; }"
    mac = "02:48:c6:13:01:01"  # node1's
    world.run("k11", "nft", count)

    def arrived() -> int:
        world.knock("outside", world.addresses["k11"])
        found = json.loads(world.run("k11", "nft", "-j", "list table ip probe"))
        return next(
            expr["counter"]["packets"] for each in found["nftables"] for expr in each.get("rule", {}).get("expr", []) if "counter" in expr
        )

    try:
        world._ip(
            "outside",
            "link add hmvx type vxlan id 7443 dstport 4789 nolearning",
            "link set hmvx up",
            f"neigh replace 198.19.1.1 lladdr {mac} dev hmvx nud permanent",
            "addr add 198.19.3.200/32 dev hmvx",
            f"route add {world.addresses['k11']} via 198.19.1.1 dev hmvx onlink",
        )
        world.run("outside", "bridge", "fdb", "append", mac, "dev", "hmvx", "dst", ADDRESSES["node1"])
        assert arrived() == 0
        world.run("node1", "nft", "flush chain ip hm_net entering")
        assert arrived() > 0  # so that was it
    finally:
        world.run("node1", "nft", "delete table ip hm_net")
        world.run("outside", "ip", "link", "delete", "hmvx")


@pytest.mark.parametrize("encapsulation", ["vxlan", "plain"])
def test_the_other_encapsulations(tools, encapsulation):
    with namespaces.world(encapsulation) as other:
        other.whole()
        assert other.reaches("k11", other.addresses["k21"]) == f"k21 {other.addresses['k11']}"
        assert ("hmvx" in other.run("node1", "ip", "-o", "link")) is (encapsulation == "vxlan")
        if encapsulation == "plain":  # then the router must know, and once it does it works
            assert other.knock("k11", other.addresses["k31"])["answers"] == {}
            for node, address in ADDRESSES.items():
                other.run("router", "ip", "route", "add", f"198.19.{node[-1]}.0/24", "via", address)
        assert other.reaches("k11", other.addresses["k31"]) == f"k31 {other.addresses['k11']}"


def test_nft_takes_a_thousand_published_ports_at_once(world, tmp_path):
    base = Base(CIDR, "198.19.1.0/24", "198.19.1.1", ("eth0", "hmvx"), ("198.18.1.2",), 4789)
    chosen = tuple(Endpoint(f"198.19.1.{index + 2}", 80, 10 * (index + 1)) for index in range(3))
    text = whole(base, [service(base, Published(protocol, port, chosen)) for port in range(10_000, 10_500) for protocol in ("tcp", "udp")])
    (tmp_path / "rules").write_text(text)
    world.run("outside", "nft", "-c", "-f", str(tmp_path / "rules"))
