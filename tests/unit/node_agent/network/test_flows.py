"""What the kernel tells of flows, byte by byte."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from node_agent.network.flows import UDP, Flow, flow_of, messages


def attribute(kind: int, content: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(content), kind) + content + bytes(-len(content) % 4)


def tuple_of(source: str, destination: str, port: int) -> bytes:
    ip = attribute(1, bytes(map(int, source.split(".")))) + attribute(2, bytes(map(int, destination.split("."))))
    proto = attribute(1, bytes([UDP])) + attribute(2, struct.pack(">H", 40_000)) + attribute(3, struct.pack(">H", port))
    return attribute(0x8001, ip) + attribute(0x8002, proto)


ORIGINAL = tuple_of("198.51.100.9", "192.0.2.1", 53)
BODY = (
    bytes((2, 0, 0, 0))
    + attribute(0x8001, ORIGINAL)
    + attribute(0x8002, tuple_of("10.210.0.5", "198.51.100.9", 40_000))
    + attribute(3, b"x")
)


def test_a_flow_is_read():
    assert flow_of(BODY) == Flow(UDP, "192.0.2.1", 53, "10.210.0.5", ORIGINAL)


def test_messages_of_one_datagram_are_told_apart():
    one, two = (struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body for kind, body in ((256, BODY), (3, b"abcd")))
    assert list(messages(one + two)) == [(256, BODY), (3, b"abcd")]
    assert list(messages(one + two[:-1])) == [(256, BODY)]


@given(st.binary(max_size=100), st.integers(0, len(BODY)))
def test_any_bytes_are_read(data, cut):
    for body in (data, BODY[:cut], BODY[:cut] + data):
        found = flow_of(body)
        assert found is None or isinstance(found, Flow)
        assert all(isinstance(each, bytes) for _, each in messages(body))
