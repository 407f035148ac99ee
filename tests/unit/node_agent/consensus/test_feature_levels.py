"""Releases side by side: what belongs to a higher feature level leaves no trace below it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import ReleaseTooOld
from hmcore.records import Configuration, KeyValue
from node_agent.consensus.statemachine import levels, machine
from node_agent.consensus.statemachine.commands import (
    AcquireLock,
    Applied,
    ChangeVoters,
    Command,
    DeleteKey,
    ExpireLock,
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
)
from node_agent.consensus.statemachine.state import State, digest, restore, snapshot, state_hash

NEW: list[Command] = [
    PutKey(key="a", value=b"1"),
    DeleteKey(key="a"),
    AcquireLock(name="deploy", holder="ann", ttl=10),
    ReleaseLock(name="deploy", token=1),
    ExpireLock(name="deploy", token=1),
]
FORMED = FormCluster(id="hm-a", bootstrap="b1")


def run(state: State, *commands: Command, configures: bool = False) -> tuple[State, machine.Result]:
    result: machine.Result = Applied()
    for command in commands:
        proposal = Proposal(f"r{state.index}", encode(command), 5.0, "ann")
        state, receipts, _ = machine.apply_batch(state, encode_batch([proposal]), state.index + 1, configures=configures)
        result = decode_result(receipts[0].result)
    return state, result


def test_a_cluster_begins_at_the_base_level_unless_its_first_leader_knows_better():
    assert State().level == levels.BASE
    assert run(State(), FORMED)[0].level == levels.BASE
    assert run(State(), FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST))[0].level == levels.LATEST


@pytest.mark.parametrize("command", NEW)
def test_a_command_above_the_level_is_refused_by_everybody_alike(command):
    state, result = run(State(), FORMED, command)
    assert isinstance(result, Refused)
    assert f"needs feature level {levels.TRUSTED}" in result.reason
    after, result = run(state, RaiseFeatureLevel(level=levels.TRUSTED), command)
    assert "feature level" not in getattr(result, "reason", "")
    assert after.level == levels.TRUSTED


def test_voters_are_changed_by_a_configuration_entry_only_and_not_below_the_level():
    low, _ = run(State(), FORMED)
    high, _ = run(low, RaiseFeatureLevel(level=levels.TRUSTED))
    change = ChangeVoters(voters=("node1", "node2"), learners=("node3",))
    assert isinstance(run(low, change, configures=True)[1], Refused)
    assert isinstance(run(high, change)[1], Refused)
    assert isinstance(run(high, Noop(), configures=True)[1], Refused)
    state, result = run(high, change, configures=True)
    assert result == Applied()
    assert state.configuration == Configuration(voters=("node1", "node2"), learners=("node3",), index=state.index)


def test_the_level_rises_by_one_command_and_never_sinks():
    state, result = run(State(), RaiseFeatureLevel(level=levels.TRUSTED))
    assert isinstance(result, Refused)  # there is no cluster whose level it could be
    state, _ = run(state, FORMED, RaiseFeatureLevel(level=levels.TRUSTED))
    again, result = run(state, RaiseFeatureLevel(level=levels.BASE))
    assert (again.level, result) == (levels.TRUSTED, Applied(changed=False))
    with pytest.raises(ReleaseTooOld, match=f"knows feature level {levels.LATEST}, the cluster is at {levels.LATEST + 1}"):
        run(state, RaiseFeatureLevel(level=levels.LATEST + 1))  # whoever went on would diverge
    with pytest.raises(ReleaseTooOld):
        run(State(), FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST + 1))


class EarlierState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the release before knew of a state. It would lose what it does not know, so there must be nothing."""

    index: int = 0
    cluster: msgspec.Raw = msgspec.Raw(b"\xc0")
    nodes: dict[str, msgspec.Raw] = {}
    registrations: dict[str, msgspec.Raw] = {}
    maintenance: dict[str, msgspec.Raw] = {}
    mutes: dict[str, msgspec.Raw] = {}
    events: tuple[msgspec.Raw, ...] = ()
    receipts: dict[str, msgspec.Raw] = {}


def test_a_snapshot_at_the_base_level_holds_nothing_that_the_release_before_does_not_know():
    state, _ = run(State(), FORMED, Noop(), *NEW)
    earlier = msgspec.msgpack.decode(snapshot(state)[10:], type=EarlierState)
    assert earlier.index == state.index
    assert set(earlier.receipts) == set(state.receipts)
    raised, _ = run(state, RaiseFeatureLevel(level=levels.TRUSTED), *NEW)
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(snapshot(raised)[10:], type=EarlierState)


def test_a_snapshot_of_a_level_that_this_release_does_not_know_is_not_loaded():
    state, _ = run(State(), FORMED, RaiseFeatureLevel(level=levels.TRUSTED))
    data = snapshot(state)
    with pytest.raises(ReleaseTooOld, match="knows feature level 1, the cluster is at 2"):
        restore(data, latest=levels.BASE)


keys = st.sampled_from(["a", "b", "c"])
commands = st.one_of(
    st.builds(PutKey, key=keys, value=st.binary(max_size=3), expect=st.one_of(st.none(), st.integers(0, 12))),
    st.builds(DeleteKey, key=keys),
    st.builds(AcquireLock, name=keys, holder=keys, ttl=st.just(5.0)),
    st.builds(ReleaseLock, name=keys, token=st.integers(0, 4)),
    st.builds(ExpireLock, name=keys, token=st.integers(0, 4)),
    st.just(RaiseFeatureLevel(level=levels.TRUSTED)),
    st.just(Noop()),
)


@given(st.lists(commands, max_size=20))
def test_the_digest_that_is_kept_up_is_that_of_the_whole(log):
    state, _ = run(State(), FORMED, *log)
    assert state.digest == (digest(state) if state.level >= levels.TRUSTED else b"")
    back = restore(snapshot(state))
    assert back == state
    assert state_hash(back) == state_hash(state)


@given(st.lists(commands, max_size=12), st.lists(commands, max_size=12))
def test_hashes_are_equal_only_if_all_that_was_answered_is(one, other):
    begin, _ = run(State(), FORMED, RaiseFeatureLevel(level=levels.TRUSTED))
    left, right = run(begin, *one)[0], run(begin, *other)[0]
    same = left == right
    assert (state_hash(left) == state_hash(right)) is same


def test_a_snapshot_whose_tables_are_not_those_of_its_digest_is_not_loaded():
    state, _ = run(State(), FORMED, RaiseFeatureLevel(level=levels.TRUSTED), PutKey(key="a", value=b"1"))
    broken = msgspec.structs.replace(state, keys=state.keys.insert("a", KeyValue(value=b"2", created=3, changed=3)))
    with pytest.raises(ValueError, match="digest"):
        restore(snapshot(broken))
