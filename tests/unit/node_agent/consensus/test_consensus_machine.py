"""The replicated state: deterministic, total, and every request applied once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.records import Cluster, Instance, InstanceHealth, Node, NodeState, Role
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.commands import ExpireInstances, MuteCheck, PutInstances, SetMaintenance
from node_agent.consensus.statemachine.machine import (
    Applied,
    FormCluster,
    Noop,
    Proposal,
    PutNode,
    Refused,
    RemoveNode,
    SetNodeState,
    decode_result,
)
from node_agent.consensus.statemachine.receipts import MAX_RECEIPTS
from node_agent.consensus.statemachine.state import MAX_EVENTS, Entry, State

NODE = Node(name="node1", address="198.18.0.1", port=7443, role=Role.CONTROL, release="r1", incarnation=5)

names = st.sampled_from(["node1", "node2"])
nodes = st.builds(
    Node,
    name=names,
    address=st.just("198.18.0.1"),
    port=st.just(7443),
    role=st.sampled_from(Role),
    release=names,
    incarnation=st.integers(0, 3),
)
instances = st.builds(
    Instance, id=st.sampled_from(["node1/a", "node1/b"]), service=names, node=names, address=names, health=st.sampled_from(InstanceHealth)
)
commands = st.one_of(
    st.builds(
        PutInstances,
        node=names,
        incarnation=st.integers(0, 3),
        revision=st.integers(0, 3),
        instances=st.lists(instances, max_size=2).map(tuple),
    ),
    st.builds(ExpireInstances, node=names, revision=st.integers(0, 3), reason=st.sampled_from(["", "late"])),
    st.builds(SetMaintenance, target=st.sampled_from(["node1/", "node1/a"]), on=st.booleans(), reason=names),
    st.builds(MuteCheck, check=st.sampled_from(["disk", "peers"]), node=st.sampled_from(["", "node1"]), on=st.booleans(), reason=names),
    st.builds(FormCluster, id=names, bootstrap=names),
    st.builds(PutNode, node=nodes),
    st.builds(SetNodeState, name=names, state=st.sampled_from(NodeState), reason=names, incarnation=st.integers(0, 3)),
    st.builds(RemoveNode, name=names),
    st.builds(Noop),
)
batches = st.lists(
    st.lists(st.builds(Proposal, id=st.sampled_from("abcdefgh"), command=st.one_of(commands.map(machine.encode), st.binary(max_size=8)))),
    max_size=8,
)


def after(*batches_: list[Proposal], state: State = State()) -> State:  # noqa: B008  # frozen
    for index, batch in enumerate(batches_, start=state.index + 1):
        state, _, _ = machine.apply_batch(state, machine.encode_batch(batch), index)
    return state


def result(state: State, command: machine.Command, index: int = 9) -> tuple[State, machine.Result]:
    changed, encoded = machine.apply(state, machine.encode(command), Entry(index))
    return changed, decode_result(encoded)


@given(batches)
def test_the_same_log_gives_the_same_state_also_through_a_snapshot_anywhere(log):
    whole = after(*log)
    for cut in range(len(log) + 1):
        restored = machine.restore(machine.snapshot(after(*log[:cut])))
        assert machine.state_hash(after(*log[cut:], state=restored)) == machine.state_hash(whole)
        assert machine.snapshot(after(*log[cut:], state=restored)) == machine.snapshot(whole)


@pytest.mark.long
@given(batches)
def test_a_request_is_applied_once_and_answered_the_same_each_time(log):
    state, answers = State(), {}
    for index, batch in enumerate(log, start=1):
        state, receipts, _ = machine.apply_batch(state, machine.encode_batch(batch), index)
        for proposal, receipt in zip(batch, receipts, strict=True):
            assert answers.setdefault(proposal.id, receipt) == receipt


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_and_change_nothing_but_the_index(data):
    state, receipts, _ = machine.apply_batch(State(), data, 3)
    assert state.index == 3
    assert (state.nodes, state.events) == ({}, ())
    assert len(receipts) == len(state.receipts) or not receipts
    changed, encoded = machine.apply(State(), data, Entry(3))
    assert changed == State()
    assert isinstance(decode_result(encoded), Refused)


@given(commands)
def test_commands_survive_the_journey(command):
    assert machine.decode(machine.encode(command)) == command


@given(st.binary(max_size=100))
def test_only_a_snapshot_is_restored(data):
    for candidate in (data, machine.snapshot(State())[:10] + data):
        if candidate == machine.snapshot(State()):
            continue
        with pytest.raises(ValueError):
            machine.restore(candidate)


def test_a_cluster_is_formed_once():
    state, first = result(State(), FormCluster(id="hm-a", bootstrap="b1"), 2)
    assert first == Applied()
    assert state.cluster == Cluster(id="hm-a", bootstrap="b1")
    assert result(state, FormCluster(id="hm-a", bootstrap="b1")) == (state, Applied(changed=False))
    unchanged, refused = result(state, FormCluster(id="hm-a", bootstrap="b2"))
    assert unchanged == state
    assert isinstance(refused, Refused)


def test_a_node_joins_changes_state_and_leaves_with_events():
    state, _ = result(State(), PutNode(node=NODE), 2)
    state, _ = result(state, SetNodeState(name="node1", state=NodeState.DOWN, reason="silent for 4 s", incarnation=5), 3)
    assert state.nodes["node1"].state is NodeState.DOWN
    assert state.nodes["node1"].state_reason == "silent for 4 s"
    state, _ = result(state, RemoveNode(name="node1"), 4)
    assert state.nodes == {}
    assert [(event.index, event.kind, event.subject) for event in state.events] == [
        (2, "node.joined", "node1"),
        (3, "node.down", "node1"),
        (4, "node.removed", "node1"),
    ]


def test_what_is_known_already_changes_nothing():
    state, _ = result(State(), PutNode(node=NODE), 2)
    assert result(state, PutNode(node=NODE)) == (state, Applied(changed=False))
    assert result(state, RemoveNode(name="node2")) == (state, Applied(changed=False))
    assert result(state, Noop()) == (state, Applied(changed=False))


def test_news_of_an_earlier_start_of_the_agent_is_refused():
    state, _ = result(State(), PutNode(node=NODE), 2)
    old = Node(name="node1", address="198.18.0.7", port=7443, role=Role.CONTROL, release="r0", incarnation=4)
    for command in (
        PutNode(node=old),
        SetNodeState(name="node1", state=NodeState.DOWN, incarnation=4),
        SetNodeState(name="nodeX", state=NodeState.DOWN),
    ):
        unchanged, refused = result(state, command)
        assert unchanged == state
        assert isinstance(refused, Refused)


def test_events_and_receipts_are_bounded():
    state = State()
    for index in range(1, MAX_RECEIPTS + 50):
        flip = NodeState.DOWN if index % 2 else NodeState.READY
        node = Node(name="node1", address="198.18.0.1", port=7443, role=Role.CONTROL, release="r1", state=flip)
        batch = machine.encode_batch([Proposal(f"r{index}", machine.encode(PutNode(node=node)))])
        state, _, _ = machine.apply_batch(state, batch, index)
    assert len(state.events) == MAX_EVENTS
    assert len(state.receipts) == MAX_RECEIPTS
    assert "r1" not in state.receipts
    assert f"r{MAX_RECEIPTS + 49}" in state.receipts
