"""What is known of a peer as connections come and go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from node_agent.transport.circuit import Circuit
from node_agent.transport.link import Link, PeerAddress


@dataclass
class Wire:
    """All that a report asks of a connection."""

    rtt: float | None = 0.0123456


def link(**known: Any) -> Link:
    return Link("n2", Circuit(threshold=2, open_for=5.0), PeerAddress("10.0.0.2", 7443, dial=True), **known)


def test_a_report_says_where_it_is_and_what_is_wrong() -> None:
    peer = link()
    report = peer.report(0.0)
    assert (report.address, report.state, report.rtt_ms, report.error) == ("10.0.0.2:7443", "connecting", None, None)
    peer.failed("no answer", now=1.0)
    assert peer.report(1.0).state == "connecting"
    peer.failed("no answer", now=2.0)
    assert (peer.report(2.0).state, peer.report(2.0).error) == ("broken", "no answer")
    assert peer.report(7.5).state == "connecting"  # the circuit lets one through
    peer.connected(Wire(), dialled=True, now=8.0)  # type: ignore[arg-type]
    report = peer.report(8.0)
    assert (report.state, report.rtt_ms, report.error) == ("connected", 12.346, None)
    assert peer.circuit.failures == 0


@pytest.mark.parametrize(("held", "attempts"), [(1.0, 7), (2.0, 7), (2.1, 1)])
def test_only_a_connection_that_held_shortens_the_pauses(held: float, attempts: int) -> None:
    peer = link(attempts=7, incoming={"raft"})
    peer.connected(Wire(), dialled=False, now=10.0)  # type: ignore[arg-type]
    peer.disconnected("broken", now=10.0 + held, steady=2.0)
    assert (peer.attempts, peer.connection, peer.error, peer.incoming) == (attempts, None, "broken", set())


def test_one_that_dialled_us_is_not_dialled_back_without_a_pause() -> None:
    peer = link()
    peer.connected(Wire(), dialled=False, now=10.0)  # type: ignore[arg-type]
    peer.disconnected("broken", now=10.1, steady=2.0)
    assert peer.attempts == 1
