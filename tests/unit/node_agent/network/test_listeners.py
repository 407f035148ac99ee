"""Who listens on the node, as /proc/net says."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.network.listeners import holder, parse, read

TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 17041 1 0 100 0 0 10 0
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 17042 1 0 100 0 0 10 0
   2: 0100007F:8AE2 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 17043 1 0 20 4 30 10 -1
"""
TCP6 = "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000\n"
UDP = """   5: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 1 2 0 0
   6: 00000000:C350 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 1 2 0 0
"""


def test_what_listens_is_found_and_clients_are_not():
    assert set(parse("tcp", TCP)) == {("tcp", "0.0.0.0", 22), ("tcp", "127.0.0.1", 8080)}
    assert set(parse("tcp", TCP6)) == {("tcp", "0.0.0.0", 80)}
    assert set(parse("udp", UDP)) == {("udp", "127.0.0.53", 53)}  # 50000 is some client's


@given(st.text(alphabet="0123456789ABCDEF: x\n", max_size=200))
def test_any_text_is_read(text):
    assert all(0 < port < 65_536 for _, _, port in parse("tcp", text))


@pytest.mark.parametrize(
    ("port", "address", "held"),
    [
        (22, "", True),
        (22, "192.0.2.1", True),
        (23, "", False),
        (8080, "", True),
        (8080, "127.0.0.1", True),
        (8080, "192.0.2.1", False),
        (53, "", False),  # the agent's own
    ],
)
def test_who_holds_a_port(port, address, held):
    listeners = {*parse("tcp", TCP), ("tcp", "10.210.0.1", 53)}
    assert holder("tcp", port, address, listeners, "10.210.0.1") is held
    assert not holder("udp", port, address, listeners, "10.210.0.1")


def test_this_machine_tells_who_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert ("tcp", "127.0.0.1", port) in read()
    assert ("tcp", "127.0.0.1", port) not in read()
