"""Who gets a subnet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hmcore.apps.records import Subnet
from hmcore.config.settings import Network
from node_agent.consensus.statemachine.appcommands import PutSubnet
from node_agent.orchestration.subnetting import Assignment, missing


def subnet(node: str, cidr: str) -> Subnet:
    return Subnet(node=node, cidr=cidr)


def test_who_has_none_gets_the_lowest_that_is_free():
    subnets = {"node2": subnet("node2", "10.210.0.0/24"), "node4": subnet("node4", "10.210.2.0/24")}
    found = missing(Network(cidr="10.210.0.0/16"), ["node4", "node3", "node2", "node1"], subnets)
    assert found == Assignment(
        (PutSubnet(subnet=subnet("node1", "10.210.1.0/24")), PutSubnet(subnet=subnet("node3", "10.210.3.0/24"))),
    )
    assert missing(Network(cidr="10.210.0.0/16"), ["node2"], subnets) == Assignment()


def test_when_there_is_none_left_the_others_get_theirs_and_it_is_told():
    found = missing(Network(cidr="10.210.0.0/23"), ["a", "b", "c", "d"], {})
    assert [command.subnet.cidr for command in found.commands] == ["10.210.0.0/24", "10.210.1.0/24"]
    assert found.lacking == "2 nodes have no subnet for containers: all 2 subnets of 10.210.0.0/23 (/24 each) are taken"


@given(st.sets(st.integers(1, 40)), st.lists(st.integers(0, 31), unique=True, max_size=20), st.sets(st.integers(0, 40)))
def test_nobody_gets_what_another_has_whichever_commands_come_through(nodes, taken, lost):
    network = Network(cidr="10.210.0.0/19")
    subnets = {f"old{number}": subnet(f"old{number}", f"10.210.{number}.0/24") for number in taken}
    names = {f"node{number}" for number in nodes} | set(subnets)
    for _ in range(2):
        for number, command in enumerate(missing(network, names, subnets).commands):
            if number not in lost:
                subnets[command.subnet.node] = command.subnet
        assert len({each.cidr for each in subnets.values()}) == len(subnets)
        lost = set()
    assert set(subnets) == names or len(subnets) == 32
