"""Whom a node connects to, and that of any two exactly one dials."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hmcore.config.agent import AgentConfig, Voter
from hmcore.config.settings import Settings
from hmcore.records import Node, Role
from node_agent.platform.peers import control_nodes, peer_addresses

VOTERS = tuple(Voter(name=f"node{n}", address=f"10.0.0.{n}", port=7443) for n in (1, 2, 3))


def config(name: str, role: Role = Role.CONTROL) -> AgentConfig:
    return AgentConfig(
        cluster_id="hm-abc123defg",
        cluster_name="test",
        bootstrap="b1",
        node=name,
        role=role,
        address="10.0.0.9",
        port=7443,
        voters=VOTERS,
        preset="balanced",
        settings=Settings(),
    )


def member(name: str, role: Role, address: str = "10.0.0.7") -> Node:
    return Node(name=name, address=address, port=7443, role=role, release="r1")


def test_before_anything_is_known_the_voters_of_the_configuration_count():
    assert control_nodes(config("node1"), {}) == ["node1", "node2", "node3"]
    assert {name: peer.dial for name, peer in peer_addresses(config("node2"), {}).items()} == {"node1": False, "node3": True}
    assert {name: peer.dial for name, peer in peer_addresses(config("w1", Role.WORKER), {}).items()} == dict.fromkeys(
        ["node1", "node2", "node3"], True
    )


def test_the_log_knows_better_where_a_node_is():
    nodes = {"node1": member("node1", Role.CONTROL, address="10.0.0.99")}
    assert peer_addresses(config("node2"), nodes)["node1"].host == "10.0.0.99"


def test_workers_are_no_peers_of_workers_and_dial_control_nodes():
    nodes = {"w1": member("w1", Role.WORKER), "w2": member("w2", Role.WORKER), "node4": member("node4", Role.CONTROL)}
    assert sorted(peer_addresses(config("w1", Role.WORKER), nodes)) == ["node1", "node2", "node3", "node4"]
    assert control_nodes(config("w1", Role.WORKER), nodes) == ["node1", "node2", "node3", "node4"]
    assert not peer_addresses(config("node1"), nodes)["w1"].dial


names = st.sampled_from(["node1", "node2", "node3", "node4", "w1", "w2"])


@given(st.dictionaries(names, st.sampled_from(Role), min_size=2))
def test_of_two_that_know_each_other_exactly_one_dials(roles):
    roles |= {voter.name: Role.CONTROL for voter in VOTERS}
    nodes = {name: member(name, role) for name, role in roles.items()}
    peers = {name: peer_addresses(config(name, role), nodes) for name, role in roles.items()}
    for one in roles:
        for other in roles:
            if one != other:
                assert (other in peers[one]) == (one in peers[other])
                if other in peers[one]:
                    assert peers[one][other].dial != peers[other][one].dial


def test_a_worker_that_became_a_control_node_reaches_those_that_do_not_know_it_yet():
    nodes = {"node4": member("node4", Role.WORKER), "node1": member("node1", Role.CONTROL)}
    theirs, ours = peer_addresses(config("node1"), nodes)["node4"], peer_addresses(config("node4"), {})["node1"]
    assert not theirs.dial  # a worker dials
    assert not theirs.fallback
    assert not ours.dial  # the smaller name dials
    assert ours.fallback
