"""What the kernel tells of links, read from its own bytes, and from any others."""

from __future__ import annotations

import struct
from socket import AF_BRIDGE, AF_UNSPEC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.network.link_messages import GONE, NEW, LinkMessage, asking, read, reflecting, split


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int = NEW, family: int = AF_UNSPEC, index: int = 7, flags: int = 1, *attributes: bytes) -> bytes:
    body = struct.pack("=BxHiII", family, 0, index, flags, 0) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


NAME = attribute(3, b"veth12\0")
MASTER = attribute(10, struct.pack("=I", 2))
MTU = attribute(4, struct.pack("=I", 1450))


def info(kind: bytes, *more: bytes) -> bytes:
    return attribute(18, attribute(1, kind + b"\0") + b"".join(more))


def port(mode: int) -> bytes:
    return attribute(1, b"\3") + attribute(4, bytes([mode]))


def test_a_containers_link_that_is_a_port_of_a_bridge():
    found = read(message(NEW, AF_UNSPEC, 7, 1, NAME, MTU, MASTER, info(b"veth", attribute(4, b"bridge\0"), attribute(5, port(0)))))
    assert found == LinkMessage(7, name="veth12", kind="veth", up=True, mtu=1450, master=2, reflects=False)


@pytest.mark.parametrize("mode", [0, 1])
def test_what_the_bridge_tells_of_its_port(mode):
    found = read(message(NEW, AF_BRIDGE, 7, 0, NAME, MASTER, attribute(12 | 0x8000, port(mode))))
    assert found == LinkMessage(7, name="veth12", master=2, reflects=bool(mode), of_port=True)


def test_a_port_of_another_kind_of_master_has_no_mode():
    found = read(message(NEW, AF_UNSPEC, 7, 0, info(b"veth", attribute(4, b"bond\0"), attribute(5, port(1)))))
    assert found == LinkMessage(7, kind="veth")


def test_of_a_tunnel_another_setting_is_another_message():
    one, other = (read(message(NEW, AF_UNSPEC, 7, 1, NAME, info(b"vxlan", attribute(2, data)))) for data in (b"abcd", b"abce"))
    assert one != other


def test_of_other_links_addresses_of_hardware_do_not_matter():
    """A bridge takes that of one of its ports."""
    one, other = (read(message(NEW, AF_UNSPEC, 7, 1, NAME, attribute(1, mac), info(b"bridge"))) for mac in (b"abcdef", b"fedcba"))
    assert one == other


def test_what_is_not_about_links_is_none():
    assert read(message(kind=24)) is None
    assert read(message(kind=GONE)) == LinkMessage(7, up=True)


def test_the_request_to_reflect_is_read_as_what_it_brings_about():
    told = reflecting(7)
    assert len(told) == struct.unpack_from("=I", told)[0]
    assert struct.unpack_from("=H", told, 4) == (19,)  # RTM_SETLINK
    assert read(told[:4] + struct.pack("=H", NEW) + told[6:]) == LinkMessage(7, reflects=True, of_port=True)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_message_or_none(data):
    for piece in (data, message(NEW, AF_UNSPEC, 7, 1, data), message(NEW, AF_BRIDGE, 7, 1, attribute(12, data))):
        found = read(piece)
        assert found is None or isinstance(found, LinkMessage)


@given(st.lists(st.binary(min_size=0, max_size=40), max_size=4), st.binary(max_size=15))
def test_messages_of_a_datagram_are_told_apart_and_nothing_is_lost(bodies, rest):
    messages = [struct.pack("=IHHII", 16 + len(body), NEW, 0, 0, 0) + body + bytes(-len(body) % 4) for body in bodies]
    found = list(split(b"".join(messages) + rest))
    assert found[: len(messages)] == messages
    assert b"".join(found) == b"".join(messages) + rest


def test_what_asks_for_all_links():
    length, kind, flags, _, _ = struct.unpack_from("=IHHII", asking())
    assert (length, kind, flags) == (len(asking()), 18, 0x301)
