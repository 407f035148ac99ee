"""When a cluster may be formed, and when it is healthy: decisions about what agents answered."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.api import Formation
from hmcore.errors import FormationFailed, HyperMeshError, PeerUnreachable
from hmcore.records import CheckReport, ComponentReport, ComponentState, Node, NodeReport, NodeState, RaftReport, Role
from hmctl.phases.form import AlreadyFormed, Form, decide
from hmctl.phases.healthy import judge

VOTERS = ("node1", "node2", "node3")


def said(*, bootstrap: str = "b", formed: bool = False, permitted: bool = False, voters: tuple[str, ...] = VOTERS) -> Formation:
    return Formation(bootstrap=bootstrap, voters=list(voters), empty=not formed, permitted=permitted, formed=formed)


SILENT = PeerUnreachable("no answer")


def test_all_voters_that_answer_are_told_once_a_majority_does() -> None:
    assert decide(VOTERS, "b", dict.fromkeys(VOTERS, said())) == Form(VOTERS)
    assert decide(VOTERS, "b", {"node1": SILENT, "node2": said(), "node3": said(permitted=True)}) == Form(("node2", "node3"))


def test_less_than_a_majority_forms_nothing_and_the_missing_are_named() -> None:
    with pytest.raises(FormationFailed, match="1 of its 3 control nodes answered, and 2 must") as caught:
        decide(VOTERS, "b", {"node1": said(), "node2": SILENT, "node3": SILENT})
    assert "node2 and node3" in caught.value.message
    assert caught.value.fix


def test_one_that_knows_of_the_cluster_is_enough_to_leave_it_alone() -> None:
    assert decide(VOTERS, "b", {"node1": said(formed=True), "node2": said(), "node3": said()}) == AlreadyFormed()


@pytest.mark.parametrize("other", [said(bootstrap="x", formed=True), said(bootstrap="x", permitted=True)])
def test_another_formation_is_never_joined_with_ours(other: Formation) -> None:
    with pytest.raises(FormationFailed, match="another formation"):
        decide(VOTERS, "b", {"node1": said(), "node2": said(), "node3": other})


def test_a_node_with_an_older_file_does_not_count() -> None:
    with pytest.raises(FormationFailed, match="node2 and node3"):
        decide(VOTERS, "b", {"node1": said(), "node2": said(bootstrap="old"), "node3": SILENT})


@pytest.mark.parametrize("bound", [{"formed": True}, {"permitted": True}])
def test_whoever_took_part_with_other_control_nodes_forbids_these(bound: dict[str, bool]) -> None:
    with pytest.raises(FormationFailed, match=r"node2 takes part .* with the control nodes node2 and node9"):
        decide(VOTERS, "b", {"node1": said(), "node2": said(voters=("node2", "node9"), **bound), "node3": said()})


def test_a_node_whose_file_names_other_voters_does_not_count() -> None:
    stale = said(voters=("node1",))
    assert decide(VOTERS, "b", {"node1": stale, "node2": said(), "node3": said()}) == Form(("node2", "node3"))
    with pytest.raises(FormationFailed, match="node1 and node2"):
        decide(VOTERS, "b", {"node1": stale, "node2": stale, "node3": said()})


def formations(voters: tuple[str, ...]) -> st.SearchStrategy[Formation]:
    lists = st.sampled_from([voters, voters, (*voters, "more"), voters[:1]])
    return st.builds(said, bootstrap=st.sampled_from("bx"), formed=st.booleans(), permitted=st.booleans(), voters=lists)


def rounds(size: int) -> st.SearchStrategy[tuple[Formation | HyperMeshError, ...]]:
    voters = tuple(f"node{index}" for index in range(size))
    return st.tuples(*[st.one_of(formations(voters), st.just(SILENT))] * size)


@given(st.integers(1, 5).flatmap(rounds))
def test_form_is_only_ever_sent_to_a_majority_that_agrees_and_knows_of_no_cluster(answers: tuple[Formation | HyperMeshError, ...]) -> None:
    voters = [f"node{index}" for index in range(len(answers))]
    table = dict(zip(voters, answers, strict=True))
    try:
        decision = decide(voters, "b", table)
    except FormationFailed:
        return
    known = [answer for answer in answers if isinstance(answer, Formation)]
    assert not any(answer.bootstrap != "b" and (answer.formed or answer.permitted) for answer in known)
    assert not any(set(answer.voters) != set(voters) and (answer.formed or answer.permitted) for answer in known)
    if isinstance(decision, Form):
        assert len(decision.voters) > len(voters) / 2
        assert not any(answer.formed for answer in known)
        assert all(isinstance(answer := table[name], Formation) and answer.bootstrap == "b" for name in decision.voters)
        assert all(set(answer.voters) == set(voters) for name in decision.voters if isinstance(answer := table[name], Formation))
    else:
        assert any(answer.formed and answer.bootstrap == "b" for answer in known)


def report(
    name: str,
    *,
    leader: str | None = "node1",
    formed: bool = True,
    members: tuple[str, ...] = VOTERS,
    down: str = "",
    **parts: ComponentState,
) -> NodeReport:
    states = dict.fromkeys(("transport", "consensus", "container", "orchestration"), ComponentState.RUNNING) | parts
    nodes = [
        Node(name=one, address="", port=1, role=Role.CONTROL, release="", state=NodeState.DOWN if one == down else NodeState.READY)
        for one in members
    ]
    return NodeReport(
        cluster="c", name=name, address="", role=Role.CONTROL, release="", uptime_seconds=1, health_score=1, reasons=[], containers=0,
        components={part: ComponentReport(state=state) for part, state in states.items()},
        raft=RaftReport(role="follower", leader=leader), formed=formed, members=nodes,
    )  # fmt: skip


def test_healthy_is_when_all_is_well() -> None:
    verdict = judge(VOTERS, {name: report(name) for name in VOTERS})
    assert (verdict.healthy, verdict.leader, verdict.formed) == (True, "node1", True)


@pytest.mark.parametrize(
    ("node2", "waits_for"),
    [
        (SILENT, "no answer"),
        (report("node2", formed=False), "not formed"),
        (report("node2", leader=None), "no leader"),
        (report("node2", consensus=ComponentState.INITIALIZING), "consensus is initializing"),
        (report("node2", transport=ComponentState.ERROR), "transport is error"),
        (report("node2", security=ComponentState.INITIALIZING), "security is initializing"),
    ],
)
def test_what_is_waited_for_is_named(node2: NodeReport | HyperMeshError, waits_for: str) -> None:
    verdict = judge(VOTERS, {"node1": report("node1"), "node2": node2, "node3": report("node3")})
    assert list(verdict.waiting) == ["node2"]
    assert waits_for in verdict.waiting["node2"]


def test_a_node_whose_needed_layer_works_with_less_is_degraded_and_not_waited_for() -> None:
    """In a cluster of two whose other node is set aside, the transport has nobody to talk to, for as long as one waits."""
    verdict = judge(VOTERS, {name: report(name) for name in VOTERS} | {"node2": report("node2", transport=ComponentState.DEGRADED)})
    assert verdict.waiting == {}
    assert verdict.degraded == {"node2": "transport is degraded"}


def test_two_leaders_are_none() -> None:
    verdict = judge(VOTERS, {"node1": report("node1"), "node2": report("node2", leader="node2"), "node3": report("node3")})
    assert verdict.leader is None
    assert set(verdict.waiting) == set(VOTERS)


def test_whom_the_leader_does_not_count_among_its_members_is_waited_for() -> None:
    answers = {name: report(name, members=("node1", "node2")) for name in VOTERS}
    assert "not taken it in" in judge(VOTERS, answers).waiting["node3"]
    answers = {name: report(name, down="node3") for name in VOTERS}
    assert "calls it down" in judge(VOTERS, answers).waiting["node3"]


def test_an_optional_layer_degrades_and_is_not_waited_for() -> None:
    answers = {name: report(name) for name in VOTERS} | {"node3": report("node3", container=ComponentState.DEGRADED)}
    verdict = judge(VOTERS, answers)
    assert (dict(verdict.waiting), list(verdict.degraded), verdict.healthy) == ({}, ["node3"], False)


def test_an_optional_layer_that_is_switched_off_is_well_and_a_required_one_that_does_nothing_is_not() -> None:
    answers = {name: report(name, security=ComponentState.READY) for name in VOTERS}
    assert judge(VOTERS, answers).healthy
    answers["node2"] = report("node2", consensus=ComponentState.READY)
    assert judge(VOTERS, answers).waiting == {"node2": "consensus is ready"}


def test_a_layer_whose_check_is_muted_does_not_count() -> None:
    muted = CheckReport(name="component.container", weight=2.0, worth=0.5, muted=True)
    silent = msgspec.structs.replace(report("node3", container=ComponentState.DEGRADED), checks=[muted])
    verdict = judge(VOTERS, {name: report(name) for name in VOTERS} | {"node3": silent})
    assert verdict.healthy
    failed = msgspec.structs.replace(
        report("node3", consensus=ComponentState.ERROR), checks=[msgspec.structs.replace(muted, name="component.consensus")]
    )
    assert judge(VOTERS, {name: report(name) for name in VOTERS} | {"node3": failed}).waiting  # what is needed is needed
