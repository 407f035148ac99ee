"""Instances, maintenance and mutes in the replicated state: idempotent, refused when they come too late, kept through snapshots."""

from __future__ import annotations

import google_crc32c
import msgspec
import pytest

from hmcore.records import Instance, InstanceHealth, Node, NodeState, Role
from node_agent.consensus.statemachine import state as state_bytes
from node_agent.consensus.statemachine.commands import (
    Applied,
    Command,
    ExpireInstances,
    MuteCheck,
    PutInstances,
    PutNode,
    Refused,
    RemoveNode,
    Result,
    SetMaintenance,
    decode_result,
    encode,
)
from node_agent.consensus.statemachine.effects.registry import MAX_INSTANCE_EVENTS
from node_agent.consensus.statemachine.machine import apply
from node_agent.consensus.statemachine.state import Entry, State, restore, snapshot, state_hash

NODE = Node(name="node1", address="198.18.0.1", port=7443, role=Role.CONTROL, release="r1", incarnation=5)
WEB = Instance(id="node1/web", service="shop/web", node="node1", address="198.18.0.1", health=InstanceHealth.HEALTHY)
SICK = msgspec.structs.replace(WEB, health=InstanceHealth.UNHEALTHY, reason="it is exited")
PUT = PutInstances(node="node1", incarnation=5, revision=7, instances=(WEB,))
SAME = [
    PUT,
    ExpireInstances(node="node1", revision=7, reason="late"),
    SetMaintenance(target="node1/", on=True, reason="disk"),
    MuteCheck(check="disk", node="node1", reason="known"),
]


def do(state: State, *commands: Command, author: str = "") -> tuple[State, Result]:
    """The state after all of them, and the last one's result."""
    result: Result = Applied()
    for command in commands:
        state, encoded = apply(state, encode(command), Entry(state.index + 1, 1.0, author))
        state, result = msgspec.structs.replace(state, index=state.index + 1), decode_result(encoded)
    return state, result


@pytest.fixture
def state() -> State:
    return do(State(), PutNode(node=NODE))[0]


@pytest.mark.parametrize("command", SAME, ids=lambda command: type(command).__name__)
def test_the_same_again_changes_nothing(state, command):
    once, first = do(do(state, PUT)[0] if isinstance(command, ExpireInstances) else state, command)
    twice, second = do(once, command)
    assert (first, second) == (Applied(), Applied(changed=False))
    assert msgspec.structs.replace(twice, index=once.index) == once


def test_instances_replace_those_before_and_transitions_are_events(state):
    state, _ = do(state, PUT, PutInstances(node="node1", incarnation=5, revision=8, instances=(SICK,)))
    assert state.registrations["node1"].instances == (SICK,)
    assert (state.events[-1].kind, state.events[-1].subject, state.events[-1].message) == (
        "instance.unhealthy",
        "node1/web",
        "it is exited",
    )


def test_many_transitions_at_once_are_one_event(state):
    def all_of(health: InstanceHealth) -> tuple[Instance, ...]:
        return tuple(msgspec.structs.replace(WEB, id=f"node1/web-{n}", health=health) for n in range(MAX_INSTANCE_EVENTS + 1))

    state, _ = do(state, PutInstances(node="node1", incarnation=5, revision=1, instances=all_of(InstanceHealth.HEALTHY)))
    before = len(state.events)
    state, _ = do(state, PutInstances(node="node1", incarnation=5, revision=2, instances=all_of(InstanceHealth.UNHEALTHY)))
    assert len(state.events) == before + 1
    assert state.events[-1].kind == "registry.changed"


def test_what_comes_from_an_earlier_start_or_for_a_stranger_is_refused(state):
    state, _ = do(state, PUT)
    for command in (
        PutInstances(node="node1", incarnation=4, revision=9, instances=()),
        PutInstances(node="node9", incarnation=9, revision=9, instances=()),
        ExpireInstances(node="node1", revision=6, reason="late"),
        ExpireInstances(node="node9", revision=7, reason="late"),
    ):
        after, result = do(state, command)
        assert isinstance(result, Refused), command
        assert after.registrations == state.registrations


def test_expiry_is_taken_back_by_renewal_and_by_other_instances(state):
    expired, _ = do(state, PUT, ExpireInstances(node="node1", revision=7, reason="not renewed for 60 s"))
    assert expired.registrations["node1"].expired == "not renewed for 60 s"
    assert expired.events[-1].kind == "registry.expired"
    renewed, _ = do(expired, ExpireInstances(node="node1", revision=7, reason=""))
    assert (renewed.registrations["node1"].expired, renewed.events[-1].kind) == ("", "registry.renewed")
    put, _ = do(expired, PutInstances(node="node1", incarnation=5, revision=8, instances=()))
    assert put.registrations["node1"].expired == ""


def test_maintenance_and_mutes_keep_who_did_it_and_why(state):
    state, _ = do(state, *SAME[2:], author="ann")
    assert (state.maintenance["node1/"].author, state.maintenance["node1/"].reason) == ("ann", "disk")
    assert (state.mutes["disk@node1"].author, state.mutes["disk@node1"].reason) == ("ann", "known")
    state, _ = do(state, SetMaintenance(target="node1/", on=False), MuteCheck(check="disk", node="node1", on=False), author="bob")
    assert (state.maintenance, state.mutes) == ({}, {})
    assert [(event.kind, event.author) for event in state.events[-2:]] == [("maintenance.ended", "bob"), ("check.unmuted", "bob")]
    assert do(state, SetMaintenance(target="node1/", on=False))[1] == Applied(changed=False)


def test_a_removed_node_leaves_nothing_behind(state):
    state, _ = do(state, PUT, *SAME[2:], SetMaintenance(target="node1/web", on=True), MuteCheck(check="disk"), RemoveNode(name="node1"))
    assert (state.registrations, state.maintenance, set(state.mutes)) == ({}, {}, {"disk"})


def test_a_snapshot_keeps_all_of_it_and_one_of_an_older_release_still_loads(state):
    whole, _ = do(state, *SAME)
    assert restore(snapshot(whole)) == whole
    assert state_hash(restore(snapshot(whole))) == state_hash(whole)
    old = {"index": 3, "cluster": None, "nodes": {"node1": msgspec.to_builtins(NODE)}, "events": [], "receipts": {}}
    body = msgspec.msgpack.encode(old)
    data = state_bytes._SNAPSHOT.pack(state_bytes._MAGIC, state_bytes._FORMAT, google_crc32c.value(body)) + body
    loaded = restore(data)
    assert (loaded.nodes["node1"].state, loaded.registrations, loaded.maintenance, loaded.mutes) == (NodeState.READY, {}, {}, {})
