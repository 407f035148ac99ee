"""A retried request is carried out once, however many others came between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.consensus.statemachine import levels, machine, receipts
from node_agent.consensus.statemachine.commands import (
    AcquireLock,
    Applied,
    FormCluster,
    Noop,
    Proposal,
    PutKey,
    RaiseFeatureLevel,
    Refused,
    ReleaseLock,
    decode_result,
    encode,
    encode_batch,
    session_of,
)
from node_agent.consensus.statemachine.state import State

BEGUN, _, _ = machine.apply_batch(
    State(), encode_batch([Proposal("form", encode(FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST)))]), 1
)


def ask(state: State, request: str, value: bytes = b"1") -> tuple[State, machine.Receipt]:
    batch = encode_batch([Proposal(request, encode(PutKey(key="k", value=value)))])
    state, answers, _ = machine.apply_batch(state, batch, state.index + 1)
    return state, answers[0]


@pytest.mark.parametrize(
    ("request_id", "session"),
    [
        ("deploy-4f2a:17", ("deploy-4f2a", 17)),
        ("operator/ann/x:0", ("operator/ann/x", 0)),
        ("a:b:3", ("a:b", 3)),
        ("plain", None),
        (":3", None),
        ("a:", None),
        ("a:-1", None),
        ("a:1.5", None),
        ("a:٣", None),
        ("a:" + "9" * 30, None),
    ],
)
def test_a_session_is_a_name_a_colon_and_a_number(request_id, session):
    assert session_of(request_id) == session


def test_the_latest_request_of_a_session_is_answered_again_and_an_earlier_one_refused():
    state, _ = ask(BEGUN, "s:1")
    state, second = ask(state, "s:2", b"2")
    again, receipt = ask(state, "s:2", b"2")
    assert receipt == second
    assert again.keys == state.keys
    late, receipt = ask(state, "s:1")
    assert late.keys == state.keys
    assert isinstance(decode_result(receipt.result), Refused)
    assert receipts.find(state, "s:2") == second
    assert receipts.find(state, "s:3") is None


def test_a_session_is_remembered_while_a_generation_of_others_comes(monkeypatch):
    monkeypatch.setattr(receipts, "GENERATION", 4)
    state, first = ask(BEGUN, "s:1")
    for other in range(6):
        state, _ = ask(state, f"other{other}:1", b"%d" % other)
    assert ask(state, "s:1")[1] == first
    for other in range(20):
        state, _ = ask(state, f"more{other}:1", b"%d" % other)
        assert len(state.sessions) <= 4
        assert len(state.older_sessions) <= 4
    assert receipts.find(state, "s:1") is None


def test_changes_that_share_a_log_entry_are_told_apart():
    """Who put the first of them must not overwrite the second unseen."""

    def put(request: str, value: bytes, expect: int | None = None) -> Proposal:
        return Proposal(request, encode(PutKey(key="k", value=value, expect=expect)))

    state, answers, _ = machine.apply_batch(BEGUN, encode_batch([put("a:1", b"mine"), put("b:1", b"theirs")]), 2)
    mine, theirs = (decode_result(answer.result) for answer in answers)
    assert isinstance(mine, Applied)
    assert isinstance(theirs, Applied)
    assert mine.revision < theirs.revision == state.keys["k"].changed
    state, answers, _ = machine.apply_batch(state, encode_batch([put("a:2", b"mine again", mine.revision)]), 3)
    assert isinstance(decode_result(answers[0].result), Refused)
    assert state.keys["k"].value == b"theirs"


def test_many_requests_of_one_session_cost_one_entry():
    state = BEGUN
    for number in range(100):
        state, _ = ask(state, f"s:{number}", b"%d" % number)
    assert len(state.sessions) == 1
    assert set(state.requests) == {"form"}


def test_requests_without_a_session_are_remembered_while_a_generation_of_others_comes(monkeypatch):
    monkeypatch.setattr(receipts, "MAX_RECEIPTS", 4)
    state, first = ask(BEGUN, "mine")
    for other in range(6):
        state, _ = ask(state, f"other{other}", b"%d" % other)
        assert ask(state, "mine")[1] == first
    for other in range(20):
        state, _ = ask(state, f"more{other}", b"%d" % other)
        assert len(state.requests) <= 4
        assert len(state.older_requests) <= 4
    assert receipts.find(state, "mine") is None


def test_what_was_kept_below_the_level_is_remembered_when_it_rises_also_within_one_entry(monkeypatch):
    monkeypatch.setattr(receipts, "MAX_RECEIPTS", 4)
    noop, form = encode(Noop()), encode(FormCluster(id="hm-a", bootstrap="b1"))
    rise = encode(RaiseFeatureLevel(level=levels.TRUSTED))
    below = [Proposal("form", form), Proposal("old", noop), Proposal("early:1", noop)]
    asked = [*below, Proposal("rise", rise), Proposal("new", noop), Proposal("s:1", noop)]
    state, answers, _ = machine.apply_batch(State(), encode_batch(asked + asked), 1)
    assert answers[:6] == answers[6:]
    assert [receipts.find(state, each.id) for each in asked] == answers[:6]
    for other in range(3):  # the raise itself, and one more request, are of the first generation already
        assert receipts.find(state, "old") == answers[1]
        state, _ = ask(state, f"other{other}", b"%d" % other)
    assert state.receipts == {}


@given(st.lists(st.tuples(st.sampled_from(["x:1", "x:2", "x:3", "y:1", "plain", "plain2"]), st.binary(max_size=1)), max_size=20))
def test_a_request_changes_the_state_once(asked):
    state, done = BEGUN, {}
    for request, value in asked:
        before = state.keys.get("k")
        state, receipt = ask(state, request, value)
        if request in done or isinstance(decode_result(receipt.result), Refused):
            assert state.keys.get("k") == before
        done.setdefault(request, receipt)


def test_tokens_grow_with_every_acquisition_also_within_one_entry():
    def step(state: State, *commands: machine.Command) -> tuple[State, list[machine.Result]]:
        batch = encode_batch([Proposal(f"q{state.index}-{number}", encode(command)) for number, command in enumerate(commands)])
        state, answers, _ = machine.apply_batch(state, batch, state.index + 1)
        return state, [decode_result(answer.result) for answer in answers]

    take_a, take_b = AcquireLock(name="l", holder="a", ttl=5), AcquireLock(name="l", holder="b", ttl=5)
    state, results = step(BEGUN, take_a, take_b, ReleaseLock(name="l", token=1), take_b, take_b)
    assert results[0] == Applied(token=1)
    assert isinstance(results[1], Refused)
    assert results[2:] == [Applied(), Applied(token=2), Applied(token=3)]  # of b's own late release, nothing comes
    state, results = step(state, ReleaseLock(name="l", token=1))  # by one who holds it no longer
    assert results == [Applied(changed=False)]
    assert state.locks["l"].holder == "b"
