"""What `hmctl config diff` says of what is no setting."""

from __future__ import annotations

import json
from io import StringIO

import pytest

from hmctl.actions.config_diff import Change, ConfigDiff, NodeDiff
from hmctl.cli.config_words import show_diff
from hmctl.output import Output
from hmctl.phases.configure import differences

VOTERS = "voters node1(10.0.0.1:7443),node3(10.0.0.3:7443) -> node1(10.0.0.1:7443),node4(10.0.0.3:7443)"
UNIT = "its unit is not the one that this hmctl writes"
CHANGE = Change("settings.raft.heartbeat", 0.2, 10.0)


def said(*nodes: NodeDiff, common: tuple[Change, ...] = ()) -> str:
    out = StringIO()
    diff = ConfigDiff("lab", any(node.changes for node in nodes), common, nodes, ())
    show_diff(Output(stdout=out, stderr=StringIO(), environ={}), diff)
    return out.getvalue()


def test_other_control_nodes_are_told_of_once_and_are_no_lack_of_changes() -> None:
    nodes = [NodeDiff(name, "same", elsewhere=(VOTERS,), running=True) for name in ("node1", "node2", "node4")]
    assert said(*nodes) == "No settings differ; the control nodes do: hmctl deploy\n"


def test_with_settings_that_differ_the_control_nodes_are_told_of_as_well() -> None:
    nodes = [NodeDiff(name, "differs", (CHANGE,), elsewhere=(VOTERS,), restart=True, running=True) for name in ("node1", "node2")]
    lines = said(*nodes, common=(CHANGE,)).splitlines()
    assert lines[:2] == ["all nodes", "  ~ settings.raft.heartbeat 0.2 -> 10"]
    assert lines[2] == "The control nodes differ, too: that is no setting, but for hmctl deploy."
    assert not any(VOTERS in line for line in lines)


def test_what_all_nodes_share_is_said_once_and_what_one_has_under_its_name() -> None:
    nodes = [NodeDiff("node1", "same", elsewhere=(UNIT,)), NodeDiff("node2", "same", elsewhere=(UNIT, "port 7443 -> 9000"))]
    assert said(*nodes).splitlines() == [
        "all nodes",
        f"  - {UNIT}: no setting, that is for hmctl deploy",
        "node2",
        "  - port 7443 -> 9000: no setting, that is for hmctl deploy",
        "No settings differ; the rest is for hmctl deploy",
    ]


@pytest.mark.parametrize(
    ("second", "words"),
    [(NodeDiff("node2", "same"), "No changes."), (NodeDiff("node2", "unreachable", error="no answer"), "node1: no changes")],
)
def test_where_nothing_differs_that_is_said(second: NodeDiff, words: str) -> None:
    assert said(NodeDiff("node1", "same"), second).splitlines()[-1] == words


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [(4.0, 10.0, "4 -> 10"), (0.2, 0.1, "0.2 -> 0.1"), (True, False, "true -> false"), (1234567.0, None, "1234567 -> (none)")],
)
def test_deploys_plan_and_config_diff_spell_values_alike(old: object, new: object, words: str) -> None:
    before, after = (json.dumps({"settings": {"soak": value}}).encode() for value in (old, new))
    assert differences(before, after) == [str(Change("settings.soak", old, new))] == [f"settings.soak {words}"]
