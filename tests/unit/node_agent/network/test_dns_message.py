"""DNS messages: any bytes are a query, get an answer, or nothing; and what we answer can be read."""

from __future__ import annotations

import struct

import pytest
from dns_talk import question, read
from hypothesis import given
from hypothesis import strategies as st

from node_agent.network import message
from node_agent.network.message import Query, Rcode, parse


def query(name="web", kind=message.A, **more):
    found = parse(question(name, kind, **more))
    assert isinstance(found, Query)
    return found


def test_a_question():
    found = query("Web.SHOP", message.AAAA, number=0xABCD)
    assert (found.id, found.name, found.kind, found.internet, found.desired) == (0xABCD, "web.shop", 28, True, True)
    assert (found.size, found.extended) == (512, False)


@pytest.mark.parametrize(("offered", "used"), [(0, 512), (512, 512), (1000, 1000), (4096, 1232), (65535, 1232)])
def test_a_question_with_edns_says_how_much_it_takes(offered, used):
    found = query(size=offered)
    assert (found.size, found.extended) == (used, True)


@pytest.mark.parametrize("name", ["a b", "wéb", "x" * 63 + ".a*b", "", "a.b\x00"])
def test_a_name_that_is_none_of_ours_is_still_a_question(name):
    assert query(name).name == ""


def test_a_label_with_a_dot_in_it_is_no_two_labels():
    data = struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\x08web.shop\0" + struct.pack(">HH", 1, 1)
    found = parse(data)
    assert isinstance(found, Query)
    assert found.name == ""


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (struct.pack(">HHHHHH", 9, 0x2800, 1, 0, 0, 0) + b"\0\0\1\0\1", Rcode.NOTIMP),  # an update
        (struct.pack(">HHHHHH", 9, 0, 2, 0, 0, 0) + b"\1a\0\0\1\0\1", Rcode.FORMERR),
        (struct.pack(">HHHHHH", 9, 0, 0, 0, 0, 0), Rcode.FORMERR),
        (struct.pack(">HHHHHH", 9, 0, 1, 0, 0, 0), Rcode.FORMERR),
        (struct.pack(">HHHHHH", 9, 0, 1, 0, 0, 0) + b"\1a\0\0\1\0", Rcode.FORMERR),  # ends early
        (struct.pack(">HHHHHH", 9, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1", Rcode.FORMERR),  # refers to itself
        (struct.pack(">HHHHHH", 9, 0, 1, 0, 0, 0) + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", Rcode.FORMERR),  # too long
    ],
)
def test_what_is_no_question_is_told_so(data, code):
    answer = parse(data)
    assert isinstance(answer, bytes)
    assert (read(answer).number, read(answer).code) == (9, code)


@pytest.mark.parametrize("data", [b"", b"\0" * 11, struct.pack(">HHHHHH", 9, 0x8000, 1, 0, 0, 0) + b"\0\0\1\0\1"])
def test_answers_and_scraps_are_not_answered(data):
    """Else two servers would talk for ever."""
    assert parse(data) is None


@given(st.binary(max_size=600) | st.binary(max_size=80).map(lambda rest: struct.pack(">HHHHHH", 1, 0x0100, 1, 0, 0, 1) + rest))
def test_any_bytes_are_a_question_or_get_an_answer_or_nothing(data):
    found = parse(data)
    if isinstance(found, bytes):
        read(found)
    elif found is not None:
        assert read(message.nothing(found, Rcode.NXDOMAIN, 1)).code == Rcode.NXDOMAIN


@given(st.integers(1, 200), st.sampled_from([None, 512, 700, 4096]), st.integers(1, 63))
def test_an_answer_has_as_many_addresses_as_fit_and_is_whole(count, size, length):
    asked = query("x" * length, size=size)
    found = [f"10.0.{number // 200}.{number % 200}" for number in range(count)]
    data = message.addresses(asked, found, 1, limit=asked.size)
    answer = read(data)
    assert len(data) <= asked.size
    assert answer.addresses == found[: len(answer.addresses)]
    assert len(answer.addresses) == count or len(data) + 16 > asked.size
    assert (answer.truncated, answer.code, answer.extended, set(answer.ttls)) == (False, 0, size is not None, {1})
    assert answer.name == "x" * length


def test_what_is_not_there_may_be_remembered_for_a_moment_only():
    answer = read(message.nothing(query(), Rcode.NXDOMAIN, 1))
    assert (answer.code, answer.remembered) == (3, 1)
    assert read(message.nothing(query(), Rcode.SERVFAIL)).remembered is None


def test_an_address_has_a_name():
    assert read(message.pointer(query("1.0.210.10.in-addr.arpa", message.PTR), "shop-web-1", 1)).names == ["shop-web-1"]


def test_only_an_answer_to_the_very_question_is_one():
    asked = query("Example.org")
    good = message.nothing(Query(5, "", 1, True, True, question("eXample.ORG")[12:]), Rcode.NOERROR)
    assert message.answers(good, asked.question, 5)
    assert not message.answers(good, asked.question, 6)
    assert not message.answers(good, query("example.com").question, 5)
    assert not message.answers(question("example.org", number=5), asked.question, 5)
    assert not message.answers(good[:20], asked.question, 5)


@given(st.binary(max_size=100))
def test_any_bytes_are_judged_as_an_answer(data):
    assert isinstance(message.answers(data, query().question, 7), bool)
