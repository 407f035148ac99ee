"""Verdicts of `hmctl status`, as tables: who answered what, and what we make of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import AnotherNode, HandshakeRefused
from hmcore.health import CHECKS, component_check, score
from hmcore.records import (
    CheckReport,
    ComponentReport,
    ComponentState,
    Divergence,
    Mute,
    Node,
    NodeReport,
    NodeState,
    PeerReport,
    RaftReport,
    Role,
)
from hmctl.actions.checks import judge
from hmctl.actions.node_checks import EXPIRES_SOON
from hmctl.actions.status import Answer, Check, Expected, Health, Silence, Status, Verdict
from hmctl.actions.survey import silence_of
from hmctl.cli.status import level_hint

NOW = datetime(2026, 11, 22, tzinfo=UTC)
LATER = NOW + timedelta(days=300)
NAMES = ("node1", "node2", "node3")
SILENT = Silence("no answer within 2 s")
RUNNING = {name: ComponentReport(state=ComponentState.RUNNING) for name in ("transport", "consensus", "container", "orchestration")}


def expected(*names: str, role: Role = Role.CONTROL) -> list[Expected]:
    return [Expected(name, f"198.18.0.{number}", role) for number, name in enumerate(names, 1)]


def member(name: str, state: NodeState = NodeState.READY, reason: str = "") -> Node:
    return Node(name=name, address="198.18.0.9", port=7443, role=Role.CONTROL, release="r1", state=state, state_reason=reason)


def report(
    name: str,
    leader: str | None = "node1",
    *,
    term: int = 3,
    reachable: tuple[str, ...] | None = None,
    members: tuple[Node, ...] | None = None,
    applied: int = 10,
    release: str = "r1",
    components: Mapping[str, ComponentReport] = RUNNING,
    disk: str | None = None,
    mutes: tuple[Mute, ...] = (),
    formed: bool = True,
    voters: tuple[str, ...] = NAMES,
    connected: tuple[str, ...] = (),
    uptime: float = 60.0,
) -> NodeReport:
    leads = name == leader
    checks = [component_check(part, found) for part, found in components.items()]
    checks.append(CheckReport(name="disk", weight=2.0, worth=0.5 if disk else 1.0, reason=disk))
    return NodeReport(
        cluster="hm-abc",
        name=name,
        address="198.18.0.9",
        role=Role.CONTROL,
        release=release,
        uptime_seconds=uptime,
        health_score=score(checks),
        reasons=[],
        checks=checks,
        mutes=list(mutes),
        containers=0,
        components=dict(components),
        raft=RaftReport(
            role="leader" if leads else "follower",
            leader=leader,
            term=term,
            applied_index=applied,
            voters=list(voters),
            reachable_voters=list(reachable if reachable is not None else voters if leads else ()),
        ),
        formed=formed,
        members=list(members if members is not None else map(member, NAMES)),
        peers=[PeerReport(name=peer, address="", state="connected" if peer in connected else "connecting") for peer in NAMES],
    )


def status(
    *given: NodeReport | tuple[str, Silence], hosts: tuple[str, ...] = NAMES, ends: datetime | None = LATER, **offsets: float
) -> Status:
    answers: dict[str, Answer | Silence] = {}
    for item in given:
        if isinstance(item, NodeReport):
            answers[item.name] = Answer(item, 0.002, offsets.get(item.name, 0.0))
        else:
            answers[item[0]] = item[1]
    return judge(cluster="lab", expected=expected(*hosts), answers=answers, certificate_ends=ends, now=NOW)


def check(found: Status, name: str) -> Check:
    return next(check for check in found.checks if check.name == name)


def states(found: Status) -> dict[str, str]:
    return {node.name: str(node.state) for node in found.nodes}


def test_three_sound_nodes_are_healthy() -> None:
    found = status(*map(report, NAMES))
    assert found.health is Health.HEALTHY
    assert found.exit_code == 0
    assert (found.cluster, found.leader, found.term, found.release, found.apps) == ("lab", "node1", 3, "r1", [])
    assert states(found) == dict.fromkeys(NAMES, "ready")
    assert {check.status for check in found.checks} == {Verdict.OK}
    assert all(check.fix is None for check in found.checks)


def test_a_lost_node_is_a_warning_with_its_reason_and_a_fix() -> None:
    found = status(report("node1", reachable=("node1", "node2")), report("node2"), ("node3", SILENT))
    assert found.health is Health.WARNING
    assert found.exit_code == 3
    assert states(found)["node3"] == "unreachable"
    assert found.nodes[2].reasons == ["no answer within 2 s"]
    assert found.nodes[2].uptime_seconds is None
    assert "no answer within 2 s" in check(found, "nodes").message
    assert "node3" in (check(found, "nodes").fix or "")
    assert check(found, "quorum").message == "2 of 3 voters connected: one more lost and nothing can be changed"


def test_each_lost_node_has_its_own_reason_up_to_a_bound() -> None:
    names = tuple(f"node{number}" for number in range(1, 10))
    found = status(report("node1"), *[(name, Silence(f"reason of {name}")) for name in names[1:]], hosts=names)
    message = check(found, "nodes").message
    assert message.startswith("node2 (unreachable): reason of node2; node3 (unreachable): reason of node3; ")
    assert message.endswith("node6 (unreachable): reason of node6; and 3 more")


def test_the_leaders_word_makes_a_silent_node_down() -> None:
    members = (member("node1"), member("node2"), member("node3", NodeState.DOWN, "no heartbeat for 4 s"))
    found = status(report("node1", members=members), report("node2"), ("node3", SILENT))
    assert states(found)["node3"] == "down"


def test_a_node_that_only_the_leader_cannot_hear_is_not_ready() -> None:
    members = (member("node1"), member("node2"), member("node3", NodeState.SUSPECT, "no heartbeat for 2 s"))
    found = status(report("node1", members=members), report("node2"), report("node3"))
    assert states(found)["node3"] == "suspect"
    assert found.nodes[2].reasons == ["the leader does not hear it: no heartbeat for 2 s"]
    assert "between the nodes" in (check(found, "nodes").fix or "")
    assert found.health is Health.WARNING


def test_nobody_answers() -> None:
    found = status(*[(name, SILENT) for name in NAMES])
    assert found.health is Health.CRITICAL
    assert found.exit_code == 4
    assert (found.leader, found.term, found.release) == (None, 0, "")
    assert "none of 3 nodes answered; node1: no answer within 2 s" in check(found, "nodes").message
    assert "--via ssh" in (check(found, "nodes").fix or "")


def test_a_fix_that_the_failure_knows_wins_over_the_general_one() -> None:
    found = status(*[(name, Silence("the certificate expired", fix="hmctl deploy", reached=True)) for name in NAMES])
    assert check(found, "nodes").fix == "hmctl deploy"


@pytest.mark.parametrize(
    ("given", "leader", "term"),
    [
        pytest.param([report("node1"), report("node2"), report("node3")], "node1", 3, id="agreed"),
        pytest.param(
            [report("node1", term=3), report("node2", "node2", term=4), report("node3", "node2", term=4)], "node2", 4, id="newer term"
        ),
        pytest.param(
            [report("node1", None, term=9), report("node2", "node2", term=4), report("node3", "node2", term=4)], "node2", 4, id="candidate"
        ),
        pytest.param([report("node1", None, term=5), report("node2", None, term=5)], None, 5, id="electing"),
        pytest.param([report("node1", "node1", term=4), report("node2", "node2", term=4)], None, 4, id="two in one term"),
    ],
)
def test_whom_to_believe(given: list[NodeReport], leader: str | None, term: int) -> None:
    found = status(*given)
    assert (found.leader, found.term) == (leader, term)


@pytest.mark.parametrize(
    ("given", "verdict", "words"),
    [
        pytest.param([report("node1"), report("node2"), report("node3")], Verdict.OK, "3 of 3 voters connected; 1 may be lost", id="all"),
        pytest.param(
            [report("node1", reachable=("node2",)), report("node2")], Verdict.WARN, "2 of 3 voters connected", id="leader counts itself"
        ),
        pytest.param([report("node1", reachable=("node1",))], Verdict.ERROR, "no quorum: 1 of 3 voters", id="cut off leader"),
        pytest.param([report("node2"), report("node3")], Verdict.WARN, "2 of 3 voters connected", id="leader out of our reach"),
        pytest.param([report("node2")], Verdict.ERROR, "no quorum: 1 of 3 voters", id="one follower is no proof"),
        pytest.param(
            [report("node1", None), report("node2", None)],
            Verdict.ERROR,
            "no quorum: 2 of 3 voters answering, none with a leader",
            id="no leader",
        ),
        pytest.param([report("node1", "node1", voters=("node1",))], Verdict.OK, "1 of 1 voter connected; none may be lost", id="single"),
        pytest.param([report(name, None, term=0, formed=False, members=()) for name in NAMES], Verdict.ERROR, "not formed", id="unformed"),
    ],
)
def test_quorum(given: list[NodeReport], verdict: Verdict, words: str) -> None:
    found = check(status(*given), "quorum")
    assert found.status is verdict
    assert words in found.message
    assert (found.fix is None) == (verdict is Verdict.OK)


@pytest.mark.parametrize(
    ("given", "verdict", "words", "fix"),
    [
        pytest.param(
            [report("node1", "node3", connected=("node3",)), report("node2", "node3")], Verdict.OK, "3 of 3", None, id="leads, unasked"
        ),
        pytest.param([report("node1"), report("node2")], Verdict.OK, "3 of 3 voters connected", None, id="follows, unasked"),
        pytest.param(
            [report("node1", reachable=("node2",)), report("node2")],
            Verdict.WARN,
            "2 of 3",
            "add node3 to the inventory",
            id="gone, unasked",
        ),
    ],
)
def test_a_voter_that_the_inventory_does_not_name_counts_by_what_the_others_see(
    given: list[NodeReport], verdict: Verdict, words: str, fix: str | None
) -> None:
    found = check(status(*given, hosts=("node1", "node2")), "quorum")
    assert found.status is verdict
    assert words in found.message
    assert (found.fix or "").startswith(fix or "")
    assert "hmctl logs" not in (found.fix or "")


def test_the_moment_after_a_kill_is_no_good_news() -> None:
    """The leader has not noticed yet; we have."""
    found = check(status(report("node1"), report("node2"), ("node3", SILENT)), "quorum")
    assert found.status is Verdict.WARN
    assert found.message == "3 of 3 voters connected as node1 has it, but node3 does not answer us"


def test_the_moment_after_the_leaders_end_is_no_good_news() -> None:
    found = status(("node1", SILENT), report("node2"), report("node3"))
    assert check(found, "leader").status is Verdict.WARN
    assert check(found, "leader").message == "node1 leads term 3 as the others have it, but does not answer us"
    assert check(found, "quorum").status is Verdict.WARN  # what the others still believe of a silent leader is no evidence


def test_a_node_that_the_inventory_calls_by_another_name_is_mended_there() -> None:
    renamed = silence_of(AnotherNode("the certificate belongs to node node3, not to node node4", found="node3", host="node4"))
    found = status(report("node1", reachable=("node2",)), report("node2"), ("node4", renamed), hosts=("node1", "node2", "node4"))
    fix = "the inventory calls node3 'node4': set its name, or its address, back"
    assert {name: check(found, name).fix for name in ("nodes", "members", "quorum")} == dict.fromkeys(("nodes", "members", "quorum"), fix)
    assert silence_of(HandshakeRefused("expired", host="node4")) == Silence("expired", reached=True)


def test_a_quorum_that_is_lost_is_mended_as_the_silent_node_says() -> None:
    found = status(report("node1", reachable=("node2",)), report("node2"), ("node3", Silence("nothing listens there", fix="hmctl deploy")))
    assert check(found, "quorum").fix == "bring back node3: hmctl deploy"


def test_a_node_that_just_started_is_given_a_moment_before_the_network_is_accused() -> None:
    members = (member("node1"), member("node2"), member("node3", NodeState.DOWN, "no heartbeat for 9 s"))
    found = status(report("node1", members=members), report("node2"), report("node3", uptime=0.5))
    assert check(found, "nodes").fix == "it started 0.50 s ago: look again in a moment"


def test_an_unformed_cluster_is_critical_and_deploy_forms_it() -> None:
    found = status(*[report(name, None, term=0, formed=False, members=()) for name in NAMES])
    assert found.health is Health.CRITICAL
    assert check(found, "quorum").fix == "hmctl deploy"


def test_two_leaders_in_one_term_are_an_alarm() -> None:
    found = check(status(report("node1", "node1"), report("node2", "node2")), "leader")
    assert found.status is Verdict.ERROR
    assert "node1 and node2 each lead term 3" in found.message


def test_a_node_that_follows_nobody_is_named() -> None:
    found = check(status(report("node1"), report("node2"), report("node3", None, term=2)), "leader")
    assert found.status is Verdict.WARN
    assert "node3 does not follow it" in found.message


def test_a_node_that_follows_a_leader_of_the_past_is_named() -> None:
    found = check(status(report("node1"), report("node2"), report("node3", "node2", term=2)), "leader")
    assert found.status is Verdict.WARN
    assert "node3 does not follow it" in found.message


def test_the_leaders_own_member_list_counts() -> None:
    members = (member("node1"), member("node2"), member("node3", NodeState.DOWN))
    found = status(report("node1", members=members, applied=10), report("node2", applied=11), ("node3", SILENT))
    assert states(found)["node3"] == "down"


NO_DOCKER = {
    **RUNNING,
    "container": ComponentReport(state=ComponentState.DEGRADED, error="Docker does not answer", fix="systemctl start docker"),
}


def test_an_ailing_component_degrades_its_node() -> None:
    found = status(report("node1"), report("node2", components=NO_DOCKER), report("node3"))
    assert found.health is Health.WARNING
    assert states(found)["node2"] == "degraded"
    assert check(found, "components").message == "node2: container degraded (Docker does not answer)"
    assert check(found, "components").fix == "on node2: systemctl start docker; then hmctl node inspect node2"
    assert found.nodes[1].components["container"].error == "Docker does not answer"
    assert found.nodes[1].health_score < 1.0
    assert found.health_score < 1.0


@pytest.mark.parametrize(
    ("mute", "healthy"),
    [
        (Mute(check="component.container"), True),
        (Mute(check="component.container", node="node2"), True),
        (Mute(check="component.container", node="node1"), False),
        (Mute(check="disk"), False),
    ],
)
def test_a_muted_check_is_in_sight_and_does_not_count(mute: Mute, healthy: bool) -> None:
    found = status(report("node1", mutes=(mute,)), report("node2", components=NO_DOCKER), report("node3"))
    assert found.health is (Health.HEALTHY if healthy else Health.WARNING)
    assert states(found)["node2"] == ("ready" if healthy else "degraded")
    assert (found.health_score, found.nodes[1].health_score) == (1.0, 1.0) if healthy else found.health_score < 1.0
    assert ("muted: component.container on node2" in check(found, "components").message) == healthy
    assert found.mutes == [mute]


def test_a_muted_warning_of_the_cluster_does_not_count_but_a_lost_quorum_does() -> None:
    mutes = (Mute(check="cluster.nodes"), Mute(check="cluster.quorum"), Mute(check="cluster.leader"))
    members = (member("node1"), member("node2"), member("node3", NodeState.DOWN, "stopped"))
    found = status(report("node1", mutes=mutes, members=members, reachable=("node1", "node2")), report("node2"), ("node3", SILENT))
    assert found.health is Health.HEALTHY
    assert (check(found, "nodes").status, check(found, "nodes").muted) == (Verdict.WARN, True)
    alone = report("node1", None, mutes=mutes, reachable=("node1",))
    assert status(alone, ("node2", SILENT), ("node3", SILENT)).health is Health.CRITICAL


def test_an_optional_layer_that_is_switched_off_is_well() -> None:
    off = {**RUNNING, "security": ComponentReport(state=ComponentState.READY)}
    assert status(*(report(name, components=off) for name in NAMES)).health is Health.HEALTHY


def test_a_node_whose_components_run_may_still_have_a_reason_to_worry() -> None:
    found = status(report("node1"), report("node2", disk="disk 97 % full"), report("node3"))
    assert check(found, "components").message == "node2: disk 97 % full"
    assert states(found)["node2"] == "degraded"


def test_a_host_that_has_not_joined() -> None:
    members = (member("node1"), member("node2"))
    found = status(report("node1", members=members), report("node2"), report("node3", None, members=members))
    assert check(found, "members").message == "node3 has not joined"
    assert found.nodes[2].state is NodeState.DEGRADED
    assert found.nodes[2].reasons == ["is not a member of the cluster yet"]


def test_a_member_that_the_inventory_does_not_name_is_shown_as_the_leader_sees_it() -> None:
    found = status(report("node1"), report("node2"), hosts=("node1", "node2"))
    assert states(found)["node3"] == "ready"
    assert found.nodes[2].reasons == ["is not in the inventory, so it was not asked"]
    assert check(found, "members").status is Verdict.WARN


def test_mixed_releases() -> None:
    found = status(report("node1", release="b" * 64), report("node2", release="a" * 64), report("node3", release="a" * 64))
    assert check(found, "releases").message == f"2 releases: {'b' * 12} on node1; {'a' * 12} on node2 and node3"
    assert found.release == "a" * 64


@pytest.mark.parametrize(
    ("offsets", "verdict", "words"),
    [
        pytest.param({"node2": 4.0}, Verdict.OK, "within 5 s", id="bearable"),
        pytest.param({"node2": -300.0}, Verdict.WARN, "node2 is 5m 00s behind", id="one astray"),
        pytest.param({"node1": 299.0, "node2": 300.0, "node3": 302.0}, Verdict.WARN, "this machine is 5m 00s behind the nodes", id="ours"),
        pytest.param(
            {"node1": -60.0, "node2": -60.0, "node3": -60.0}, Verdict.WARN, "this machine is 1m 00s ahead of the nodes", id="ours ahead"
        ),
    ],
)
def test_clocks(offsets: dict[str, float], verdict: Verdict, words: str) -> None:
    found = check(status(*map(report, NAMES), **offsets), "clocks")
    assert found.status is verdict
    assert words in found.message


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        (LATER, Verdict.OK),
        (NOW + EXPIRES_SOON + timedelta(seconds=1), Verdict.OK),
        (NOW + EXPIRES_SOON, Verdict.WARN),
        (NOW, Verdict.ERROR),
        (None, Verdict.WARN),
    ],
)
def test_certificate(ends: datetime | None, verdict: Verdict) -> None:
    assert check(status(*map(report, NAMES), ends=ends), "certificate").status is verdict


def test_every_check_that_is_not_ok_says_what_mends_it() -> None:
    found = status(
        report("node1", reachable=("node1", "node2"), release="r2"),
        report("node2", None, disk="disk 97 % full"),
        ("node3", SILENT),
        hosts=("node1", "node2", "node3", "node4"),
        ends=NOW + timedelta(days=2),
        node2=60.0,
    )
    assert {check.name for check in found.checks if check.status is not Verdict.OK} >= {
        "quorum",
        "leader",
        "nodes",
        "components",
        "members",
    }
    assert all(check.fix for check in found.checks if check.status is not Verdict.OK)


COMPONENTS = st.dictionaries(
    st.sampled_from(sorted(RUNNING)),
    st.builds(ComponentReport, state=st.sampled_from(ComponentState), error=st.none() | st.just("why")),
)
MEMBERS = st.lists(st.builds(member, st.sampled_from(("node1", "node2", "node3", "node9")), st.sampled_from(NodeState)), max_size=4)


@st.composite
def anything_a_node_may_say(draw: st.DrawFn, name: str) -> NodeReport:
    leader = draw(st.none() | st.sampled_from(NAMES))
    return report(
        name,
        leader,
        term=draw(st.integers(0, 4)),
        reachable=tuple(draw(st.lists(st.sampled_from(NAMES), unique=True))),
        members=tuple(draw(MEMBERS)),
        applied=draw(st.integers(0, 4)),
        release=draw(st.sampled_from(("r1", "r2"))),
        components=draw(COMPONENTS),
        disk=draw(st.none() | st.just("disk full")),
        mutes=tuple(draw(st.lists(st.builds(Mute, check=st.sampled_from(CHECKS), node=st.sampled_from(("", "node1"))), max_size=2))),
        formed=draw(st.booleans()),
        voters=tuple(draw(st.lists(st.sampled_from(NAMES), unique=True))),
    )


@pytest.mark.long
@given(st.data())
def test_whatever_nodes_say_the_verdict_is_sound(data: st.DataObject) -> None:
    answering = data.draw(st.lists(st.sampled_from(NAMES), unique=True))
    reports = {name: data.draw(anything_a_node_may_say(name)) for name in answering}
    found = status(*[reports.get(name) or (name, SILENT) for name in NAMES])
    worst = {check.status for check in found.checks if not check.muted or check.status is Verdict.ERROR}
    assert found.health is (Health.CRITICAL if Verdict.ERROR in worst else Health.WARNING if Verdict.WARN in worst else Health.HEALTHY)
    assert [node.name for node in found.nodes][:3] == list(NAMES)
    assert len({node.name for node in found.nodes}) == len(found.nodes)
    assert all((check.fix is None) == (check.status is Verdict.OK) for check in found.checks if check.status is Verdict.OK)
    assert all(0 <= node.health_score <= 1 for node in found.nodes)
    assert 0 <= found.health_score <= 1
    if found.health is Health.HEALTHY and not found.mutes:
        assert found.leader is not None
        assert set(answering) == set(NAMES)
        assert {report.raft.leader for report in reports.values()} == {found.leader}
        assert all(report.formed or any(other.formed for other in reports.values()) for report in reports.values())
    for name, node in zip(NAMES, found.nodes, strict=False):
        if name not in answering:
            assert node.state in {NodeState.UNREACHABLE, NodeState.DOWN}
            assert node.reasons
    if found.leader is None:
        assert found.health is Health.CRITICAL


def test_who_answers_is_not_to_be_brought_back() -> None:
    silent = Silence("no answer")
    fix = check(status(("node1", silent), report("node2", None), ("node3", silent)), "quorum").fix or ""
    assert fix.startswith("bring back node1 and node3: is the host up? ping ")


def divergent(name: str, *found: Divergence, level: int = 2, knows: int = 2) -> NodeReport:
    said = report(name)
    return msgspec.structs.replace(said, raft=msgspec.structs.replace(said.raft, divergences=list(found), level=level, knows=knows))


ODD = Divergence(node="node3", index=812, hash="ab" * 16, agreed="cd" * 16, others=["node1", "node2"])


def test_a_state_that_differs_is_critical_and_names_node_index_and_hashes() -> None:
    found = status(divergent("node1", ODD), divergent("node2", ODD), divergent("node3", ODD))
    assert (found.health, found.exit_code) == (Health.CRITICAL, 4)
    said = check(found, "state")
    assert said.status is Verdict.ERROR
    assert said.message == (
        "the state of node3 (abababababab) is not that of node1 and node2 (cdcdcdcdcdcd), since log index 812; it takes theirs by itself"
    )
    assert said.fix == "look again in a moment; if it lasts: hmctl raft reseed node3"
    assert [judged.worth for judged in found.cluster_checks if judged.name == "cluster.state"] == [0.0]
    assert found.health_score == 0.5


def test_the_node_itself_says_why_it_does_not_mend_its_state() -> None:
    itself = msgspec.structs.replace(ODD, waits="it needs all other voters for that, and node2 cannot be heard")
    said = check(status(divergent("node1", ODD), divergent("node3", itself)), "state")
    assert "does not take theirs by itself: it needs all other voters for that, and node2 cannot be heard" in said.message
    assert said.fix == "hmctl raft reseed node3"


def test_where_no_majority_agrees_nobody_is_accused() -> None:
    split = Divergence(node="", index=9, hash="", agreed="", others=["node1", "node2"], waits="node1: ab; node2: cd")
    found = status(divergent("node1", split), divergent("node2", split), report("node3"))
    assert found.exit_code == 4
    assert check(found, "state").message == "at log index 9 there are different states, and no majority for any: node1: ab; node2: cd"
    named = status(divergent("node1", split), divergent("node2", ODD), report("node3"))  # node2 has heard more
    assert "the state of node3" in check(named, "state").message


def test_a_cluster_below_the_level_that_all_know_is_told_what_raises_it() -> None:
    below = status(*(divergent(name, level=1) for name in NAMES))
    assert (below.level, below.level_known, below.health) == (1, 2, Health.HEALTHY)
    assert level_hint(below) == "feature level 1, though all nodes that answered know 2: hmctl deploy raises it"
    assert level_hint(status(*(divergent(name) for name in NAMES))) is None
    assert level_hint(status(divergent("node1", level=1), divergent("node2", level=1, knows=1))) is None
