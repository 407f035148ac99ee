"""hmctl status and hmctl node, as typed."""

from __future__ import annotations

import json

import pytest
import yaml
from answering import NAMES, Cluster, node_report

from hmcore.api import StateReply
from hmcore.errors import NoQuorum
from hmcore.records import Maintenance, Mute, Node, Role
from hmctl.actions.status import Answer, Silence
from hmctl.cli import main
from hmctl.client import Via


def test_a_healthy_cluster_is_0_and_says_so_first(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["status"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split()[1] == "healthy"
    assert lines[2].startswith("✓ quorum")
    assert any(line.split()[:4] == ["node1", "10.0.0.1", "control", "ready"] for line in lines)
    assert err == ""
    assert "\x1b" not in out
    assert cluster.asked == [(Via.AUTO, None)]


def test_a_lost_node_is_3_and_its_fix_is_shown(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.silence(["node3"])
    assert main.run(["status"]) == 3
    out = capsys.readouterr().out
    assert "warning" in out.splitlines()[0]
    assert "hmctl logs node3" in out


def test_nobody_there_is_4(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.silence(NAMES)
    assert main.run(["status", "-o", "json"]) == 4
    document = json.loads(capsys.readouterr().out)
    assert document["health"] == "critical"
    assert {node["state"] for node in document["nodes"]} == {"unreachable"}


def test_json_and_yaml_say_the_same(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    main.run(["status", "-o", "json"])
    as_json = json.loads(capsys.readouterr().out)
    main.run(["-o", "yaml", "status"])
    assert yaml.safe_load(capsys.readouterr().out) == as_json


def test_options_reach_the_survey(cluster: Cluster) -> None:
    main.run(["status", "--via", "ssh", "--timeout", "0.5"])
    assert cluster.asked == [(Via.SSH, 0.5)]


def test_watch_asks_again_until_interrupted(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        if len(cluster.asked) == 3:
            raise KeyboardInterrupt
        cluster.silence(NAMES[: len(cluster.asked)])

    cluster.before_answering = interrupt
    assert main.run(["status", "--watch", "--interval", "0.2", "-o", "json"]) == 0
    out = capsys.readouterr().out
    decoder, documents = json.JSONDecoder(), []
    while out.strip():
        document, end = decoder.raw_decode(out.lstrip())
        documents.append(document["health"])
        out = out.lstrip()[end:]
    assert documents == ["warning", "critical"]


def test_mixed_releases_get_a_column(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.answers["node2"] = Answer(node_report("node2", release="r2"), 0.001)
    assert main.run(["node", "ls"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[-1] == "RELEASE"
    assert [row.split()[-1] for row in rows] == ["r1", "r2", "r1"]


def test_node_ls_of_a_dead_cluster_is_4(cluster: Cluster) -> None:
    cluster.silence(NAMES)
    assert main.run(["node", "ls"]) == 4


def test_inspect_shows_components_start_up_and_peers(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["node", "inspect", "node2"]) == 0
    out = capsys.readouterr().out
    identity, container = (next(line for line in out.splitlines() if line.startswith(name)) for name in ("identity", "container"))
    assert identity.split() == ["identity", "━━━", "0.10", "s"]
    assert container.split()[1:3] == ["━" * 27, "0.90"]
    assert container.index("━") == identity.index("━") + 3
    assert "node9  10.0.0.9:7443  broken    -  no answer" in out
    assert "consensus follower, leader node1, term 3" in out


def test_a_node_that_runs_no_apps_is_called_so(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.answers["node2"] = Answer(node_report("node2", apps=False), 0.001)
    cluster.silence(["node3"])
    main.run(["status"])
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("node")}
    assert [name for name, row in rows.items() if "control, no apps" in row] == ["node2"]
    main.run(["node", "ls", "-o", "json"])
    assert [node["apps"] for node in json.loads(capsys.readouterr().out)["nodes"]] == [True, False, None]
    main.run(["node", "inspect", "node2"])
    assert "node2: ready   control that runs no apps at 10.0.0.1" in capsys.readouterr().out


def test_inspect_of_a_silent_node_says_why(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.answers["node2"] = Silence("the certificate was signed by another CA", fix="hmctl ca import FILE", reached=True)
    assert main.run(["node", "inspect", "node2"]) == 1
    assert capsys.readouterr().err == (
        "error: node2: cannot look into it: the certificate was signed by another CA\n  fix: hmctl ca import FILE\n"
    )


def test_inspect_of_an_unknown_node_names_the_nearest(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["node", "inspect", "nod2"]) == 2
    assert "node2" in capsys.readouterr().err
    assert cluster.asked == []


def test_what_operators_set_aside_is_in_sight_though_all_is_well(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["status"]) == 0
    assert not {"maintenance", "muted"} & set(capsys.readouterr().out.split())
    for name in NAMES:
        maintenance = [Maintenance(target="node2/", reason="new disk", author="ann"), Maintenance(target="node3/web")]
        mutes = [Mute(check="disk", author="bob"), Mute(check="memory", node="node1", reason="known")]
        cluster.answers[name] = Answer(node_report(name, maintenance=maintenance, mutes=mutes), 0.001)
    assert main.run(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "maintenance  node2/ (by ann: new disk); node3/web" in lines
    assert "muted  disk everywhere (by bob); memory on node1 (known)" in lines
    assert main.run(["status", "-o", "json"]) == 0
    assert [entry["target"] for entry in json.loads(capsys.readouterr().out)["maintenance"]] == ["node2/", "node3/web"]


def test_a_consistent_status_shows_what_the_cluster_agrees_on_and_since_when(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    members = [Node(name=name, address="10.0.0.1", port=7443, role=Role.CONTROL, release="r1") for name in NAMES]
    now = Mute(check="disk", reason="known", author="ann", index=40)
    cluster.sure = StateReply(index=41, leader="node1", term=3, nodes=members, mutes=[now], consistent=True)
    assert main.run(["status", "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["consistent"], document["mutes"]) == (None, [])
    assert main.run(["status", "--consistent", "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["consistent"], document["index"], document["mutes"][0]["author"]) == (True, 41, "ann")
    assert main.run(["status", "--consistent"]) == 0
    assert "all that was changed before you asked is in this: log index 41" in " ".join(capsys.readouterr().out.split())


def test_a_consistent_status_that_cannot_be_had_is_4_and_says_why(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.sure = NoQuorum("no quorum: 1 of 3 voters reachable", host="node1", fix="hmctl status says who is missing")
    assert main.run(["status", "--consistent", "-o", "json"]) == 4
    document = json.loads(capsys.readouterr().out)
    check = next(check for check in document["checks"] if check["name"] == "consistent")
    assert (document["health"], document["consistent"], check["status"]) == ("critical", False, "error")
    assert "node1: no quorum: 1 of 3 voters reachable; what is shown may be old" in check["message"]
    assert main.run(["status", "--consistent"]) == 4
    assert "what is true now cannot be told" in " ".join(capsys.readouterr().out.split())
    assert main.run(["status"]) == 0  # what was not asked for is not missed
