"""The lease's file: what was written is read again, and whatever else there is, is no lease."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node_agent.container.fencing.lease import LONGEST, Lease, boot_clock, boot_id, encode, parse


@given(st.floats(0, 1e10), st.uuids())
def test_what_was_written_is_read_again(until, boot):
    found = parse(encode(Lease(str(boot), until)))
    assert found is not None
    assert (found.boot, abs(found.until - until) < 1e-5) == (str(boot), True)


@given(st.binary(max_size=100) | st.builds(lambda lease, cut: lease[:cut], st.just(encode(Lease("a-1", 123.5))), st.integers(0, 14)))
def test_whatever_else_there_is_is_no_lease(content):
    assert parse(content) is None


def test_a_lease_is_of_one_boot_and_ends():
    lease = Lease("a", 100.0)
    assert lease.rest("a", 93.5) == 6.5
    assert lease.rest("a", 100.0) == 0.0
    assert lease.rest("b", 93.5) == 0.0
    assert Lease("a", LONGEST + 2.0).rest("a", 1.0) == 0.0, "nobody grants so long a lease"


def test_the_boot_is_known_and_its_clock_runs():
    assert parse(encode(Lease(boot_id(), boot_clock()))) is not None
    assert boot_clock() <= boot_clock()
