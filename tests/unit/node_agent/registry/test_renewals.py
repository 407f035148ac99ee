"""What the leader decides: whom to ask, who expires, and that neither repeats itself nor blames anybody for a change of leader."""

from __future__ import annotations

from msgspec.structs import replace

from hmcore.records import Node, NodeState, Registration, Role
from node_agent.consensus.statemachine.commands import ExpireInstances
from node_agent.registry.renewals import BETWEEN, PATIENCE, Renewals

TTL = 60.0
NODES = {"n1": Node(name="n1", address="10.0.0.1", port=7443, role=Role.CONTROL, release="r1")}


def registered(revision: int = 1, expired: str = "") -> dict[str, Registration]:
    return {"n1": Registration(revision=revision, incarnation=1, expired=expired)}


def test_another_list_is_asked_for_and_the_same_one_is_not():
    renewals = Renewals(TTL)
    assert renewals.heard("n1", 1, 1, 0.0)
    assert renewals.plan(NODES, {}, 0.0).pull == ("n1",)
    assert renewals.plan(NODES, registered(), 0.0).pull == ()
    assert not renewals.heard("n1", 1, 1, 20.0)
    assert renewals.heard("n1", 1, 2, 40.0)
    assert renewals.plan(NODES, registered(), 40.0).pull == ("n1",)


def test_who_is_silent_or_no_member_is_not_asked():
    renewals = Renewals(TTL)
    renewals.heard("n1", 1, 1, 0.0)
    renewals.heard("n2", 1, 1, 0.0)
    for state in (NodeState.SUSPECT, NodeState.DOWN):
        assert renewals.plan({"n1": replace(NODES["n1"], state=state)}, {}, 0.0).pull == ()
    assert renewals.plan(NODES, {}, 0.0).pull == ("n1",)


def test_attempts_are_apart_and_failures_ever_further():
    renewals = Renewals(TTL)
    renewals.heard("n1", 1, 1, 0.0)
    now, gaps = 0.0, []
    for _ in range(8):
        renewals.attempted("n1", now, failed=True)
        plan = renewals.plan(NODES, {}, now)
        assert (plan.pull, plan.next is not None) == ((), True)
        assert plan.next is not None
        gaps.append(plan.next - now)
        now = plan.next
        assert renewals.plan(NODES, {}, now).pull == ("n1",)
    assert gaps[0] == 2 * BETWEEN
    assert gaps[-1] == PATIENCE
    renewals.attempted("n1", now, failed=False)
    assert renewals.plan(NODES, {}, now).next == now + BETWEEN


def test_what_nobody_renews_expires_and_comes_back():
    renewals = Renewals(TTL)
    renewals.heard("n1", 1, 1, 10.0)
    assert renewals.plan(NODES, registered(), 69.9).commands == ()
    assert renewals.plan(NODES, registered(), 11.0).next == 70.0
    (expire,) = renewals.plan(NODES, registered(), 70.0).commands
    assert expire == ExpireInstances(node="n1", revision=1, reason="not renewed for 60 s")
    assert renewals.plan(NODES, registered(expired="late"), 80.0).commands == ()
    renewals.heard("n1", 1, 1, 90.0)
    assert renewals.plan(NODES, registered(expired="late"), 90.0).commands == (ExpireInstances(node="n1", revision=1, reason=""),)


def test_only_a_renewal_of_what_is_registered_counts():
    renewals = Renewals(TTL)
    renewals.heard("n1", 1, 2, 50.0)
    assert renewals.plan(NODES, registered(1), 60.0).commands  # for a minute nobody vouched for list 1


def test_a_change_is_no_reason_for_what_was_registered_to_expire_at_once():
    renewals = Renewals(TTL)
    renewals.heard("n1", 1, 1, 100.0)
    renewals.heard("n1", 1, 2, 101.0)
    renewals.heard("n1", 1, 3, 102.0)
    assert renewals.plan(NODES, registered(1), 102.0).commands == ()
    assert renewals.plan(NODES, registered(1), 159.9).commands == ()
    renewals.attempted("n1", 159.9, failed=False)
    assert renewals.plan(NODES, registered(1), 161.0).commands != ()


def test_what_a_node_told_and_was_recorded_counts_from_then_on_without_a_heartbeat():
    renewals = Renewals(TTL)
    renewals.heard("n1", 1, 1, 90.0)
    assert renewals.plan(NODES, registered(1), 95.0).commands == ()
    assert renewals.plan(NODES, registered(2), 100.0).commands == ()  # told by itself, apart from heartbeats
    assert renewals.plan(NODES, registered(2), 159.9).commands == ()
    assert renewals.plan(NODES, registered(2), 160.0).commands != ()


def test_a_new_leader_gives_full_terms_and_revives_nothing_by_itself():
    renewals = Renewals(TTL)
    renewals.heard("n1", 1, 1, 0.0)
    renewals.attempted("n1", 0.0, failed=True)
    renewals.lead(100.0)
    assert renewals.plan(NODES, registered(), 100.0).commands == ()
    assert renewals.plan(NODES, registered(), 159.9).commands == ()
    assert renewals.plan(NODES, registered(), 160.0).commands != ()
    assert renewals.plan(NODES, registered(expired="late"), 101.0).commands == ()


def test_an_earlier_start_says_nothing_and_those_who_left_are_forgotten():
    renewals = Renewals(TTL)
    renewals.heard("n1", 5, 1, 0.0)
    assert not renewals.heard("n1", 4, 2, 1.0)
    assert renewals.plan(NODES, registered(), 1.0).pull == ()
    renewals.plan({}, {}, TTL + 1)
    assert renewals.heard("n1", 1, 1, 0.0)
