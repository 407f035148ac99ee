"""hmctl health, as typed."""

from __future__ import annotations

import json

import pytest
from answering import NAMES, Cluster, node_report

from hmcore import api
from hmcore.errors import InvalidRequest
from hmcore.health import with_mutes
from hmcore.records import CheckReport, ComponentReport, ComponentState, Mute, SecurityReport
from hmctl.actions import change as changes
from hmctl.actions.status import Answer
from hmctl.cli import main

DISK = "the disk of /var/lib/hypermesh is nearly full"
CHECKS = [
    CheckReport(name="component.transport", weight=3.0, worth=1.0),
    CheckReport(name="disk", weight=2.0, worth=0.5, reason=DISK, fix="make room"),
    CheckReport(name="certificate", weight=1.0, worth=0.5, reason="the certificate expires on 2026-12-01", fix="hmctl deploy"),
]


def ailing(cluster: Cluster, *mutes: Mute) -> None:
    known = {mute.key: mute for mute in mutes}
    for name in NAMES:
        checks = CHECKS if name == "node2" else CHECKS[:1]
        report = node_report(name, checks=with_mutes(checks, name, known), mutes=list(mutes))
        cluster.answers[name] = Answer(report, 0.001)


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    return out


def test_all_well_is_0_and_names_no_fix(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["health"]) == 0
    out = shown(capsys)
    assert out.splitlines()[0].split() == ["lab:", "100%", "healthy"]
    assert "node3: 100%  ready" in out
    assert "fix:" not in out


def test_what_lowers_a_score_is_told_with_its_fix(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    ailing(cluster)
    assert main.run(["health"]) == 3
    out = shown(capsys)
    assert "lab: 97%  warning" in out
    assert "node2: 75%  degraded" in out
    heading, *_, disk = (line.split() for line in out.splitlines() if "WORTH" in line or DISK in line)
    assert heading == ["CHECK", "WORTH", "WEIGHT"]
    assert disk[:4] == ["!", "disk", "50%", "2"]
    assert out.count("WORTH") == 1
    assert "fix: on node2: make room" in out
    assert "fix: hmctl deploy" in out
    assert "the other 1 check well" in out
    assert out.count(DISK) == 1  # the node's reasons are its checks'


def test_a_node_with_all_its_checks(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    ailing(cluster)
    assert main.run(["health", "node2"]) == 3
    out = shown(capsys)
    assert "component.transport" in out
    assert "node1" not in out
    assert out.splitlines()[1].split() == ["CHECK", "WORTH", "WEIGHT"]
    assert main.run(["health", "show", "node1"]) == 0


def test_a_muted_check_is_in_sight_with_who_and_why(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    ailing(cluster, Mute(check="disk", node="node2", reason="on its way", author="ann"), Mute(check="certificate", author="bob"))
    assert main.run(["health"]) == 0
    out = shown(capsys)
    assert "node2: 100%  ready" in out
    assert "muted by ann: on its way" in out
    assert "muted by bob\n" in out
    assert "make room" not in out
    assert main.run(["status"]) == 0
    assert "all running, but for what is muted: disk on node2 and certificate on node2" in shown(capsys)


def test_json_says_who_muted_what(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    ailing(cluster, Mute(check="disk", node="node2", reason="on its way", author="ann"))
    assert main.run(["health", "-o", "json"]) == 3
    document = json.loads(shown(capsys))
    disk = document["nodes"][1]["checks"][1]
    assert (disk["muted"], disk["muted_by"], disk["muted_because"], disk["worth"]) == (True, "ann", "on its way", 0.5)
    assert [mute["check"] for mute in document["mutes"]] == ["disk"]


def test_an_unknown_node_is_said_before_anybody_is_asked(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["health", "node9"]) == 2
    assert "node9" in capsys.readouterr().err
    assert cluster.asked == []


def test_a_silent_nodes_reason_is_told(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.silence(["node3"])
    assert main.run(["health"]) == 3
    out = shown(capsys)
    assert "node3: 0%  unreachable" in out
    assert "! no answer within 2 s" in out
    assert main.run(["health", "node3"]) == 3
    assert "fix: is the host up? ping 10.0.0.3; if it is: hmctl logs node3" in shown(capsys)
    assert main.run(["health", "node2"]) == 0
    assert "fix:" not in shown(capsys)


@pytest.mark.parametrize(
    ("words", "asked", "said"),
    [
        (["mute", "disk"], ("disk", "", True, ""), "disk everywhere is muted"),
        (["mute", "disk", "--node", "node2", "--reason", "known"], ("disk", "node2", True, "known"), "disk on node2 is muted"),
        (["unmute", "disk", "--node", "node2"], ("disk", "node2", False, ""), "disk on node2 is unmuted"),
    ],
)
def test_mute_and_unmute_ask_the_leader(
    words: list[str], asked: tuple[str, str, bool, str], said: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    requests: list[api.MuteRequest] = []
    answers = iter((True, False))

    async def known_mutes(*given: object, **more: object) -> dict[str, Mute]:
        return {}

    monkeypatch.setattr(changes, "known_mutes", known_mutes)

    async def change(inventory: object, store: object, method: object, request: api.MuteRequest, **more: object) -> api.ChangeReply:
        assert method is api.MUTE
        requests.append(request)
        return api.ChangeReply(index=7, changed=next(answers))

    monkeypatch.setattr(changes, "change", change)
    assert main.run(["health", *words]) == 0
    assert shown(capsys) == f"{said}\n"
    assert main.run(["health", *words]) == 0
    assert "nothing was changed" in shown(capsys)
    assert [(each.check, each.node, each.on, each.reason) for each in requests] == [asked, asked]
    assert requests[0].id != requests[1].id


def test_inspect_shows_the_components_own_fix_what_is_muted_and_the_ebpf_layer(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    components = {
        "container": ComponentReport(state=ComponentState.DEGRADED, error="Docker is not running", fix="systemctl start docker"),
        "security": ComponentReport(state=ComponentState.READY),
    }
    mute = Mute(check="component.container", node="node1")
    report = node_report(
        "node1", components=components, mutes=[mute], security=SecurityReport(mode="audit", programs=9, cgroup="/hypermesh", events_lost=2)
    )
    cluster.answers["node1"] = Answer(report, 0.001)
    assert main.run(["node", "inspect", "node1"]) == 0
    out = shown(capsys)
    assert "Docker is not running (muted)" in out
    assert "fix: container, on node1: systemctl start docker" in out
    assert "audit, 9 programs below /hypermesh" in out
    assert "2 lost" in out
    assert "health 100%" in out


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[api.MuteRequest]:
    """What the leader is asked for; it changes nothing, and knows no node9."""
    requests: list[api.MuteRequest] = []

    async def change(inventory: object, store: object, method: object, request: api.MuteRequest, **more: object) -> api.ChangeReply:
        requests.append(request)
        if request.node == "node9":
            raise InvalidRequest("no node is called 'node9'", host="node1", fix="hmctl node ls")
        return api.ChangeReply(index=7, changed=False)

    async def known_mutes(*given: object, **more: object) -> dict[str, Mute]:
        mutes = [Mute(check="disk", reason="on its way"), Mute(check="memory", node="node1", reason="known")]
        return {mute.key: mute for mute in mutes}

    monkeypatch.setattr(changes, "change", change)
    monkeypatch.setattr(changes, "known_mutes", known_mutes)
    return requests


@pytest.mark.parametrize(
    ("words", "reason", "told"),
    [
        (["disk"], "on its way", "its reason stays: on its way (--reason '' erases it)\n"),
        (["disk", "--reason", ""], "", ""),
        (["disk", "--reason", "other"], "other", ""),
        (["disk", "--node", "node1"], "", ""),  # another mute than that of all nodes
        (["memory", "--node", "node1"], "known", "its reason stays: known (--reason '' erases it)\n"),
    ],
)
def test_who_mutes_again_without_a_reason_erases_none(
    words: list[str], reason: str, told: str, cluster: Cluster, asked: list[api.MuteRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["health", "mute", *words]) == 0
    assert asked[0].reason == reason
    assert capsys.readouterr().err == told
    assert main.run(["health", "mute", *words, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == reason


@pytest.mark.parametrize(
    ("words", "mutes", "said"),
    [
        (["disk", "--node", "node1"], [Mute(check="disk")], "disk is muted everywhere fix: hmctl health unmute disk"),
        (["disk"], [Mute(check="disk", node="node1")], "disk is muted on node1 fix: hmctl health unmute disk --node node1"),
        (["disk", "--node", "node1"], [Mute(check="disk", node="node2"), Mute(check="memory")], ""),
    ],
)
def test_what_is_muted_in_another_way_is_said(
    words: list[str], mutes: list[Mute], said: str, cluster: Cluster, asked: list[api.MuteRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    ailing(cluster, *mutes)
    assert main.run(["health", "unmute", *words]) == 0
    assert " ".join(capsys.readouterr().err.removeprefix("warning: ").split()) == said


@pytest.mark.parametrize(
    ("word", "check"), [("quorum", "cluster.quorum"), ("clocks", "cluster.clocks"), ("security", "component.security"), ("disk", "disk")]
)
def test_the_names_that_status_prints_will_do(word: str, check: str, cluster: Cluster, asked: list[api.MuteRequest]) -> None:
    assert main.run(["health", "mute", word]) == 0
    assert asked[0].check == check


def test_what_a_mute_will_not_do_is_said(cluster: Cluster, asked: list[api.MuteRequest], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["health", "mute", "cluster.quorum"]) == 0
    assert "an error of cluster.quorum is told all the same" in " ".join(capsys.readouterr().err.split())
    assert main.run(["health", "mute", "cluster.clocks"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["mute", "quorun"], "did you mean cluster.quorum?"),
        (["mute", "component.contaner"], "did you mean component.container"),
        (["mute", "zzz"], "hmctl health --all lists them"),
        (["mute", "disk", "--node", "node7"], "did you mean node"),
    ],
)
def test_what_there_is_not_is_a_usage_error(
    words: list[str], fix: str, cluster: Cluster, asked: list[api.MuteRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["health", *words]) == 2
    assert fix in capsys.readouterr().err
    assert asked == []


def test_who_answered_has_no_part_in_a_refusal(cluster: Cluster, asked: list[api.MuteRequest], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["health", "unmute", "disk", "--node", "node9"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: no node is called")
    assert "hmctl node ls" in err


def test_all_names_are_listed(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    ailing(cluster)
    assert main.run(["health", "--help"]) == 0
    assert "--all" in shown(capsys)  # what the errors and the help of mute name
    assert main.run(["health", "--all"]) == 3
    out = shown(capsys)
    for name in ("cluster.quorum", "cluster.clocks", "component.transport", "certificate"):
        assert name in out
