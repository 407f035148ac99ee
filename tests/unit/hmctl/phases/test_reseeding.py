"""raft reseed: when a voter may lose its memory, that nothing is deleted, and when it counts as done."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import HyperMeshError, PeerUnreachable
from hmcore.records import ComponentReport, ComponentState, NodeReport, RaftReport, Role
from hmctl.phases.reseed import ASIDE, Survey, lacking, refusal, survey, waits_for

VOTERS = ["node1", "node2", "node3", "node4", "node5"]


def said(
    name: str, role: str = "follower", leader: str | None = "node2", index: int = 10, voters: int = 3, state: str = "running", term: int = 4
) -> NodeReport:
    return NodeReport(
        cluster="hm-abc123defg",
        name=name,
        address="10.0.0.1",
        role=Role.CONTROL,
        release="r1",
        uptime_seconds=9,
        health_score=1,
        reasons=[],
        containers=0,
        components={"consensus": ComponentReport(state=ComponentState(state), init_seconds=0, error=None if state == "running" else "why")},
        raft=RaftReport(role=role, leader=leader, term=term, applied_index=index, voters=VOTERS[:voters]),
        formed=True,
        members=[],
        peers=[],
        phases=[],
        unix_time=1.0,
    )


def three(*answers: NodeReport | HyperMeshError) -> dict[str, NodeReport | HyperMeshError]:
    return dict(zip(VOTERS, answers, strict=False))


GONE = PeerUnreachable("nothing listens there")


def test_a_damaged_voter_may_be_re_seeded_by_two_that_are_well():
    found = survey("node1", three(said("node1", "damaged", None), said("node2", "leader", index=31), said("node3", index=30)))
    assert found == Survey(("node1", "node2", "node3"), ("node2", "node3"), "node2", 31)
    assert refusal("node1", found, VOTERS[:3]) is None
    assert waits_for("node1", found) == []


def test_what_the_node_itself_says_counts_for_nothing():
    answers = three(said("node1", "leader", "node1", term=9, voters=1), said("node2", "leader"), said("node3"))
    assert survey("node1", answers) == survey("node1", {**answers, "node1": GONE})


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (three(GONE, said("node2", "leader"), GONE), "only node2 would be left, 2 are needed"),
        (three(GONE, said("node2", "follower", None), said("node3", "candidate", None)), "no other voter has a leader"),
        (three(GONE, said("node2", "leader"), said("node3", "reseeding")), "only node2"),
        (three(GONE, said("node2", "leader"), said("node3", "damaged", None)), "only node2"),
        (three(GONE, said("node2", "leader"), said("node3", "follower", "node1", term=3)), "only node2"),
        (three(GONE, GONE, GONE), "no other voter has a leader"),
    ],
)
def test_it_is_refused_where_what_it_holds_may_be_needed(answers, words):
    why = refusal("node1", survey("node1", answers), VOTERS[:3])
    assert why is not None
    assert words in why.message
    assert why.fix


@pytest.mark.parametrize(
    ("node", "voters", "control", "words"),
    [
        ("node1", 1, ["node1"], "only voter"),
        ("node4", 3, VOTERS[:3], "no control node"),
        ("node4", 3, VOTERS[:4], "none of the voters"),
    ],
)
def test_it_is_refused_where_there_is_nothing_to_give(node, voters, control, words):
    answers = {name: said(name, "leader" if name == "node2" else "follower", voters=voters) for name in VOTERS[:3]}
    why = refusal(node, survey(node, answers), control)
    assert why is not None
    assert words in why.message


def test_of_five_one_that_is_away_is_waited_for_and_named():
    answers = three(GONE, said("node2", "leader", voters=5), said("node3", voters=5), GONE, said("node5", voters=5))
    found = survey("node1", answers)
    assert refusal("node1", found, VOTERS) is None
    assert waits_for("node1", found) == ["node4"]


@given(
    st.lists(
        st.sampled_from(["leader", "follower", "reseeding", "damaged", "candidate", "learner", "outsider", "gone"]), min_size=5, max_size=5
    )
)
def test_whatever_they_say_a_quorum_without_it_is_left_or_it_is_refused(roles):
    answers = {
        name: GONE if role == "gone" else said(name, role, "node2" if role in ("leader", "follower") else None, voters=5)
        for name, role in zip(VOTERS, roles, strict=True)
    }
    found = survey("node1", answers)
    well = sum(role in ("leader", "follower") for role in roles[1:])
    assert (refusal("node1", found, VOTERS) is None) == (well >= 3)


@pytest.mark.parametrize(
    ("answer", "missing"),
    [
        (GONE, "nothing listens there"),
        (said("node1", "reseeding", state="degraded"), "why"),
        (said("node1", "damaged", None, state="degraded"), "why"),
        (said("node1", "outsider"), "it is outsider"),
        (said("node1", leader=None), "no leader yet"),
        (said("node1", index=30), "at log index 30 of 31"),
        (said("node1", index=31, state="degraded"), "why"),
        (said("node1", index=31), None),
        (said("node1", "leader", "node1", index=35), None),
    ],
)
def test_it_is_done_once_the_node_votes_and_holds_what_the_others_held(answer, missing):
    assert lacking("node1", {"node1": answer}, 31) == missing


# --- the script, run by a shell, with a systemctl that writes down what it is asked


@pytest.fixture
def host(tmp_path: Path):
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n')
    systemctl.chmod(0o755)
    raft = tmp_path / "state" / "raft"
    raft.mkdir(parents=True)

    def run() -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        return subprocess.run(ASIDE.argv("agent.service", str(raft)), env=environ, capture_output=True, text=True, timeout=30)

    return raft, run


def test_nothing_is_deleted_however_often_it_is_done(host):
    raft, run = host
    for number in (1, 2, 3):
        raft.mkdir(exist_ok=True)
        (raft / "journal").write_text(f"{number}")
        done = run()
        assert (done.returncode, done.stdout) == (0, f"{raft}.aside-{number}\n"), done.stderr
        assert not raft.exists()
    assert [(raft.parent / f"raft.aside-{number}" / "journal").read_text() for number in (1, 2, 3)] == ["1", "2", "3"]
    assert (raft.parent.parent / "asked").read_text() == "stop agent.service\n" * 3


def test_a_node_without_a_directory_has_nothing_to_set_aside(host):
    raft, run = host
    raft.rmdir()
    done = run()
    assert (done.returncode, done.stdout) == (0, "")
