"""The network layer as the agent runs it, in network namespaces with no more capabilities than its unit leaves it: what others change it
mends, and what it made outlives it."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator

import namespaces
import pytest
from namespaces import ADDRESSES, KNOCKING, PORT, World

WEB = 80
SOON = 15.0  # seconds, on a busy machine; it takes one


def until(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON
    while not found():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def quiet(found: Callable[[], object], calm: float = 1.5) -> object:
    """What it comes to once it has been the same for longer than the layer waits between two looks (CALM)."""
    deadline = time.monotonic() + SOON
    last, since = found(), time.monotonic()
    while time.monotonic() < since + calm:
        assert time.monotonic() < deadline, "it does not come to rest"
        time.sleep(0.05)
        if (now := found()) != last:
            last, since = now, time.monotonic()
    return last


def knocks(world: World, short: str, address: str, port: int = PORT) -> dict[str, int]:
    return world.knock(short, address, port)["answers"]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    if reason := namespaces.missing():
        if os.environ.get("CI"):
            pytest.fail(f"the container network cannot be tested here: {reason}")
        pytest.skip(reason)
    with namespaces.world(loop="uvloop") as made:
        for node, daemon in made.nodes.items():
            number = node[-1]
            containers = {f"k{number}{index}": f"198.19.{number}.{index + 1}" for index in (1, 2)}
            made.run(node, "ip", "link", "delete", "hm0")
            daemon.ask(do="start", subnet=None, containers=containers)
        yield made


@pytest.fixture
def web(world: World) -> World:
    """With a published port that leads to a replica on node2."""
    want(world, [["tcp", WEB, [world.endpoint("k21")]]])
    until(lambda: knocks(world, "outside", ADDRESSES["node1"], WEB) and knocks(world, "k11", world.addresses["k31"]))
    return world


def want(world: World, published: list[object]) -> None:
    others = [world.place(node) for node in ADDRESSES]
    for node, daemon in world.nodes.items():
        daemon.ask(do="want", own=world.place(node), others=others, published=published, services=[])


def troubles(world: World) -> set[str]:
    return {daemon.ask(do="check")["trouble"] for daemon in world.nodes.values()}


def test_from_nothing_to_containers_that_reach_each_other_and_ports_that_answer(web):
    assert web.reaches("k11", web.addresses["k21"]) == f"k21 {web.addresses['k11']}"
    assert web.reaches("k11", web.addresses["k31"]) == f"k31 {web.addresses['k11']}"
    assert web.reaches("node3", "127.0.0.1", WEB).startswith("k21")
    until(lambda: troubles(web) == {""})


@pytest.mark.parametrize(
    "harm",
    [
        "nft flush ruleset",
        "nft flush table ip hm_net",
        "nft flush chain ip hm_net arriving",
        "nft delete element ip hm_net published { tcp . 80 }",
        "ip route delete 198.19.2.0/24",
        "ip link delete hmvx",
        "ip link set hmvx down",
        "ip neigh delete 198.19.3.1 dev hmvx",
        "bridge fdb delete 02:48:c6:13:03:01 dev hmvx dst 198.18.3.3",
        "ip link delete hm0",
        "ip address flush dev hm0",
        "ip link set hm0 down",
    ],
)
def test_what_somebody_else_changed_is_put_right_without_being_told(web, harm):
    web.run("node1", "sh", "-c", harm)

    def well() -> bool:
        return bool(
            knocks(web, "k11", web.addresses["k21"])
            and knocks(web, "k11", web.addresses["k31"])
            and knocks(web, "outside", ADDRESSES["node1"], WEB)
            and knocks(web, "node1", web.addresses["k31"])
        )

    until(well)
    until(lambda: troubles(web) == {""})


def test_containers_come_and_go_and_ports_change_without_a_look_at_everything(web):
    """That starts four programs, on each node: with dozens of containers that come at once it is what they wait for."""
    daemon = web.nodes["node1"]
    until(lambda: troubles(web) == {""})
    looked = quiet(lambda: daemon.ask(do="looked"))
    web.run("node1", "ip", "link", "add", "veth9", "type", "veth", "peer", "name", "veth8")
    web.run("node1", "ip", "link", "set", "veth9", "master", "hm0")
    until(lambda: "hairpin on" in web.run("node1", "bridge", "-d", "link", "show", "dev", "veth9"))
    want(web, [["tcp", WEB, [web.endpoint("k21")]], ["tcp", 83, [web.endpoint("k21")]]])
    until(lambda: knocks(web, "outside", ADDRESSES["node1"], 83))
    web.run("node1", "bridge", "link", "set", "dev", "veth9", "hairpin", "off")
    until(lambda: "hairpin on" in web.run("node1", "bridge", "-d", "link", "show", "dev", "veth9"))
    web.run("node1", "ip", "link", "delete", "veth9")
    web.run("node1", "ip", "link", "set", "hm0", "txqueuelen", "900")  # told, but nothing that matters; so does a bridge with its ports
    assert quiet(lambda: daemon.ask(do="looked")) == looked
    web.run("node1", "ip", "route", "add", "blackhole", "198.51.100.0/24")  # somebody else's change is told all the same
    until(lambda: daemon.ask(do="looked") != looked)
    web.run("node1", "ip", "route", "delete", "blackhole", "198.51.100.0/24")


def test_what_is_there_outlives_the_agent_and_one_that_comes_back_touches_nothing(web):
    daemon = web.nodes["node1"]
    daemon.ask(do="stop")
    assert web.reaches("k11", web.addresses["k31"]).startswith("k31")
    assert web.reaches("outside", ADDRESSES["node1"], WEB).startswith("k21")

    def made() -> tuple[str, str]:
        """Handles are given out anew for whatever is made anew."""
        rules = re.sub(r"counter packets \d+ bytes \d+", "", web.run("node1", "nft", "-a", "list table ip hm_net"))
        return rules, web.run("node1", "ip", "-o", "route")

    before, index = made(), web.run("node1", "ip", "-o", "link", "show", "hm0").partition(":")[0]
    containers = {"k11": web.addresses["k11"], "k12": web.addresses["k12"]}
    daemon.ask(do="start", subnet="198.19.1.0/24", containers=containers)
    want(web, [["tcp", WEB, [web.endpoint("k21")]], ["tcp", 81, [web.endpoint("k21")]]])
    until(lambda: knocks(web, "outside", ADDRESSES["node1"], 81))  # it is at work
    want(web, [["tcp", WEB, [web.endpoint("k21")]]])
    until(lambda: not knocks(web, "outside", ADDRESSES["node1"], 81))
    assert made() == before
    assert web.run("node1", "ip", "-o", "link", "show", "hm0").partition(":")[0] == index


def test_a_port_that_a_program_of_the_node_listens_on_is_left_to_it(web):
    """Or a compose file could take away sshd."""
    program = web.daemon("node1", str(KNOCKING), "serve", "sshd", ADDRESSES["node1"], "22")
    assert program.line() == "ready\n"
    try:
        published = [["tcp", WEB, [web.endpoint("k21")]], ["tcp", 22, [web.endpoint("k21")]]]
        want(web, published)
        until(lambda: "tcp port 22 is not published here: a program of this node listens on it" in troubles(web))
        assert web.reaches("outside", ADDRESSES["node1"], 22).startswith("sshd ")
        assert web.reaches("outside", ADDRESSES["node2"], 22).startswith("k21 ")
    finally:
        program.stop()
    want(web, [*published, ["tcp", 81, []]])  # whatever happens next, it is tried again
    until(lambda: "k21" in str(knocks(web, "outside", ADDRESSES["node1"], 22)))
    until(lambda: troubles(web) == {""})


def test_a_port_may_be_published_on_one_address_only(web):
    want(web, [["tcp", WEB, [web.endpoint("k11")], "127.0.0.1"], ["tcp", 81, [], ADDRESSES["node1"]]])
    until(lambda: not knocks(web, "outside", ADDRESSES["node1"], WEB))
    assert web.reaches("node1", "127.0.0.1", WEB).startswith("k11 ")
    assert web.knock("outside", ADDRESSES["node1"], 81)["failures"] == {"ECONNREFUSED": 1}
    want(web, [["tcp", WEB, [web.endpoint("k12")], ADDRESSES["node1"]]])
    until(lambda: knocks(web, "outside", ADDRESSES["node1"], WEB))
    assert not knocks(web, "node1", "127.0.0.1", WEB)


def test_names_are_answered_while_it_runs(web):
    replicas = [[1, web.addresses["k11"]], [2, web.addresses["k31"]]]
    services = [["shop", "web", {}, replicas]]
    others = [web.place(node) for node in ADDRESSES]
    web.nodes["node1"].ask(do="want", own=web.place("node1"), others=others, published=[], services=services)
    namespaces.resolving(web, "k11", "198.19.1.1")

    def look() -> object:
        return json.loads(web.run("k11", sys.executable, str(KNOCKING), "look", "web.shop"))

    until(lambda: look() == sorted([web.addresses["k11"], web.addresses["k31"]]))


def test_whoever_goes_on_asking_by_udp_is_sent_to_a_replica_that_is_there(web):
    """The kernel would send all that comes from the same port to where it sent the first."""
    script = (
        "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); s.connect((sys.argv[1], 5353));"
        "\nfor line in sys.stdin:\n try:\n  s.send(b'?'); print(s.recv(99).decode(), flush=True)"
        "\n except OSError as e: print(e, flush=True)"
    )
    client = web.daemon("outside", "-c", script, ADDRESSES["node1"])

    def ask() -> str:
        assert client.process.stdin is not None
        client.process.stdin.write("ask\n")
        client.process.stdin.flush()
        return client.line()

    ask()  # before it is published: this flow leads nowhere
    want(web, [["udp", 5353, [web.endpoint("k21")]]])
    until(lambda: ask().startswith("k21 "))
    want(web, [["udp", 5353, [web.endpoint("k31")]]])
    until(lambda: ask().startswith("k31 "))
    want(web, [["udp", 5353, [web.endpoint("k31", 1), web.endpoint("k11", 1000)]], ["tcp", 82, [web.endpoint("k11")]]])
    until(lambda: knocks(web, "outside", ADDRESSES["node1"], 82))
    assert ask().startswith("k31 ")  # it stays where it is well, whoever would get it now
    want(web, [["udp", 5353, []]])
    until(lambda: "refused" in ask())
    client.stop()
