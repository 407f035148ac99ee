"""What Docker is asked for, and the way through its packet filter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import UsageError
from node_agent.network.docker import creation, differs
from node_agent.network.forwarding import accepted, accepting, has_place
from node_agent.network.ruleset import Base

BASE = Base("10.210.0.0/16", "10.210.3.0/24", "10.210.3.1", (), (), 4789)
# `iptables -S` of 1.8.9 after accepting() was restored.
OURS = """-N HM-FORWARD
-A DOCKER-USER -j HM-FORWARD
-A DOCKER-USER -j RETURN
-A HM-FORWARD -s 10.210.0.0/16 -o hm0 -j ACCEPT
-A HM-FORWARD -d 10.210.0.0/16 -m conntrack --ctstate DNAT -j ACCEPT
-A HM-FORWARD -s 10.210.0.0/16 -m conntrack --ctstate DNAT -j ACCEPT
"""
DOCKERS = "-P FORWARD DROP\n-N DOCKER\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n"


def test_the_network_is_dockers_but_its_traffic_is_ours():
    asked = creation("10.210.3.0/24", 8951, "hm-abc123defg")
    assert asked["Name"] == "hypermesh"
    assert asked["IPAM"] == {"Driver": "default", "Config": [{"Subnet": "10.210.3.0/24", "Gateway": "10.210.3.1"}]}
    assert asked["Options"] == {
        "com.docker.network.bridge.name": "hm0",
        "com.docker.network.bridge.enable_ip_masquerade": "false",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.gateway_mode_ipv4": "nat-unprotected",
        "com.docker.network.driver.mtu": "8951",
    }
    assert asked["Labels"] == {"hypermesh.cluster": "hm-abc123defg"}
    with pytest.raises(UsageError):
        creation("10.210.3.0", 1500, "x")


def test_a_network_that_is_there_is_judged():
    there = creation("10.210.3.0/24", 1500, "hm-x")
    assert differs(there, "10.210.3.0/24") == ""
    assert "its subnet is 10.210.3.0/24, not 10.210.4.0/24" in differs(there, "10.210.4.0/24")
    assert differs(there | {"Driver": "overlay"}, "10.210.3.0/24") == "its driver is overlay, not bridge"
    old = there | {"Options": dict(there["Options"]) | {"com.docker.network.bridge.enable_ip_masquerade": "true"}}
    assert differs(old, "10.210.3.0/24") == "it was not made with com.docker.network.bridge.enable_ip_masquerade=false"
    for nothing in (None, {}, [], {"IPAM": {"Config": []}, "Options": {}}, {"IPAM": None}):
        assert differs(nothing, "10.210.3.0/24") == "it was not made by us"


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["IPAM", "Config", "Options", "Driver", "Subnet"]), inner),
    )
)
def test_anything_docker_says_is_judged(inspected):
    assert isinstance(differs(inspected, "10.210.3.0/24"), str)


def test_our_chain_accepts_containers_and_what_published_ports_lead_to():
    assert accepting(BASE).splitlines() == [
        "*filter",
        ":HM-FORWARD - [0:0]",
        "-A HM-FORWARD -o hm0 -s 10.210.0.0/16 -j ACCEPT",
        "-A HM-FORWARD -m conntrack --ctstate DNAT -d 10.210.0.0/16 -j ACCEPT",
        "-A HM-FORWARD -m conntrack --ctstate DNAT -s 10.210.0.0/16 -j ACCEPT",
        "COMMIT",
    ]
    with pytest.raises(UsageError):
        accepting(Base("10.210.0.0/16 -j ACCEPT", "", "", (), (), 1))


def test_what_is_there_is_recognized_however_iptables_writes_it():
    assert has_place(DOCKERS)
    assert not has_place("-P FORWARD ACCEPT\n")
    assert accepted(DOCKERS + OURS, BASE)
    assert not accepted(DOCKERS, BASE)
    assert not accepted(DOCKERS + OURS.replace("-A DOCKER-USER -j HM-FORWARD\n", ""), BASE)
    assert not accepted(DOCKERS + OURS.replace("10.210", "10.211"), BASE)
    assert not accepted(DOCKERS + OURS + "-A HM-FORWARD -j DROP\n", BASE)
