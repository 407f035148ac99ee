"""Names, addresses, roles and groups of labs."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import LabError, UsageError
from hmcore.records import Role
from hmctl.lab import plan
from hmctl.lab.plan import Address, Names


@given(st.integers(0, plan.SUBNETS - 1), st.integers(1, 254))
def test_every_address_lies_in_the_benchmark_network_and_is_found_again(subnet, host):
    address = Address(subnet, host)
    assert ipaddress.ip_address(str(address)) in ipaddress.ip_network("198.18.0.0/15")
    assert plan.subnets_of([str(address), "10.0.0.1", "198.17.0.1", "198.20.1.1", "fe80::1"]) == {subnet}
    assert int(address.mac[:2], 16) & 3 == 2, "locally administered, unicast"
    assert len(plan.uplink(subnet)) <= 15


@given(st.sets(st.integers(0, plan.SUBNETS - 1), max_size=20))
def test_a_new_lab_gets_a_network_that_nobody_has(taken):
    assert plan.free_subnet(taken) not in taken


def test_networks_can_run_out():
    with pytest.raises(LabError, match="in use"):
        plan.free_subnet(range(plan.SUBNETS))


lab_names = st.from_regex(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?", fullmatch=True)
nodes = st.integers(1, plan.MAX_HOSTS).map("node{}".format)


@given(lab_names, nodes, lab_names, nodes)
def test_no_two_labs_share_a_kernel_name(lab, node, other, other_node):
    name = Names(lab).host(node)
    assert Names(lab).node(name) == node
    assert Names(lab).node(Names(lab).switch) is None
    if (lab, node) != (other, other_node):
        assert Names(other).host(other_node) != name
    if lab != other:
        assert Names(other).node(name) is None


@pytest.mark.parametrize("name", ["", "Lab", "1lab", "lab-", "-lab", "a_b", "a/b", "..", "a" * 21, "lab\n"])
def test_names_that_cannot_be_a_labs(name):
    with pytest.raises(UsageError, match="cannot be a lab's name"):
        plan.check_name(name)


@pytest.mark.parametrize("count", [0, -1, plan.MAX_HOSTS + 1])
def test_sizes_that_no_lab_has(count):
    with pytest.raises(UsageError, match="1 to 100 hosts"):
        plan.node_names(count)


@pytest.mark.parametrize(("count", "voters"), [(1, 1), (2, 1), (3, 3), (4, 3), (7, 3)])
def test_an_odd_number_of_hosts_votes(count, voters):
    assert [plan.role(node, count) for node in plan.node_names(count)] == [Role.CONTROL] * voters + [Role.WORKER] * (count - voters)


def test_groups_as_people_type_them():
    typed = [["node1,node2", "/", "node3"], ["node1,", "node2", "/node3"], ["node1 node2/ node3"]]
    assert [plan.split_groups(words) for words in typed] == [[["node1", "node2"], ["node3"]]] * 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["node1"], "two sides"),
        (["/"], "two sides"),
        (["node1", "/"], "two sides"),
        (["node1", "/", "/", "node2"], "two sides"),
        (["node1", "/", "node4"], "no host 'node4'"),
        (["node1", "/", "node1"], "on two sides"),
    ],
)
def test_groups_that_make_no_sense(words, said):
    with pytest.raises(UsageError, match=said):
        plan.check_groups(plan.split_groups(words), ("node1", "node2", "node3"))
