"""Each node's part of the containers' network: the lowest that is free, never one that overlaps."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.apps.subnets import Exhausted, gateway, lowest_free
from hmcore.config.settings import Network
from hmcore.errors import UsageError

NETWORK = Network(cidr="10.210.0.0/16")


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([], "10.210.0.0/24"),
        (["10.210.0.0/24"], "10.210.1.0/24"),
        (["10.210.1.0/24", "10.210.0.0/24"], "10.210.2.0/24"),
        (["10.210.0.0/24", "10.210.2.0/24"], "10.210.1.0/24"),
        (["10.210.0.128/25"], "10.210.1.0/24"),  # of another length
        (["10.210.0.0/17"], "10.210.128.0/24"),
        (["10.0.0.0/8"], Exhausted("10.210.0.0/16", 24, 256)),
        (["10.209.0.0/16", "10.211.0.0/16"], "10.210.0.0/24"),  # beside
        (["10.210.0.0/16", "10.210.7.0/24"], Exhausted("10.210.0.0/16", 24, 256)),
        ([f"10.210.{each}.0/24" for each in range(255)], "10.210.255.0/24"),
    ],
)
def test_the_lowest_that_is_free(taken, expected):
    assert lowest_free(NETWORK, taken) == expected


def test_nothing_left_is_an_answer_that_says_how_much_there_was():
    found = lowest_free(NETWORK, [f"10.210.{each}.0/24" for each in range(256)])
    assert str(found) == "all 256 subnets of 10.210.0.0/16 (/24 each) are taken"


def test_what_is_no_network_is_refused():
    for wrong in ("10.210.0.1/24", "x", "", "fd00::/64", "10.210.0.0/33"):
        with pytest.raises(UsageError, match="no IPv4 network"):
            lowest_free(NETWORK, [wrong])


@given(st.integers(16, 22), st.integers(22, 28), st.lists(st.tuples(st.integers(0, (1 << 16) - 1), st.integers(14, 30)), max_size=30))
def test_never_an_overlap_and_never_one_lower(whole, length, others):
    network = Network(cidr=f"10.210.0.0/{whole}", subnet_prefix=length)
    taken = [ipaddress.IPv4Network(((10 << 24) + (210 << 16) + offset, prefix), strict=False) for offset, prefix in others]
    found = lowest_free(network, map(str, taken))
    free = [each for each in ipaddress.IPv4Network(network.cidr).subnets(new_prefix=length) if not any(map(each.overlaps, taken))]
    assert found == (str(free[0]) if free else Exhausted(network.cidr, length, 1 << (length - whole)))


def test_nodes_that_come_one_after_another_share_out_the_whole():
    network, taken = Network(cidr="10.210.0.0/20"), []
    while not isinstance(found := lowest_free(network, taken), Exhausted):
        taken.append(found)
    assert taken == [f"10.210.{number}.0/24" for number in range(16)]


def test_the_gateway_is_the_first_address():
    assert gateway("10.210.3.0/24") == "10.210.3.1"
    assert gateway("10.210.3.16/28") == "10.210.3.17"
    with pytest.raises(UsageError, match="no room"):
        gateway("10.210.3.0/31")
