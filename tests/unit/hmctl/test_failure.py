from __future__ import annotations

import asyncio

import pytest

from hmcore.config.inventory import load_inventory
from hmcore.errors import CommandFailed, ConfigError, HyperMeshError, Interrupted, Problem, Unreachable, UsageError
from hmctl.failure import exit_code, explain, is_expected


def caused(error: BaseException, *causes: BaseException) -> BaseException:
    """`error`, raised from the first cause, which was raised from the second ..."""
    for outer, inner in zip((error, *causes), causes, strict=False):
        outer.__cause__ = inner
    return error


def test_what_where_why_and_the_fix() -> None:
    error = caused(
        Unreachable("cannot connect to root@10.0.0.1:22", host="node1", fix="is the host up? ping 10.0.0.1"),
        ConnectionRefusedError(111, "Connection refused"),
    )
    assert explain(error) == [
        "node1: cannot connect to root@10.0.0.1:22",
        "  why: Connection refused",
        "  fix: is the host up? ping 10.0.0.1",
    ]


def test_a_cause_that_the_message_already_tells_is_not_told_again() -> None:
    error = caused(HyperMeshError("start failed: no route to host"), HyperMeshError("no route to host"), OSError("no route to host"))
    assert explain(error) == ["start failed: no route to host"]


def test_the_nearest_cause_that_knows_a_fix_is_heard() -> None:
    error = caused(HyperMeshError("deploy failed"), HyperMeshError("the disk is full", fix="free some space"))
    assert explain(error) == ["deploy failed", "  why: the disk is full", "  fix: free some space"]


def test_every_mistake_of_a_document_has_its_line() -> None:
    problems = (
        Problem("cluster.yaml", 3, "hosts[0].adress", "unknown key", "address?"),
        Problem("cluster.yaml", None, "", "an even number of control nodes", warning=True),
    )
    assert explain(ConfigError(problems)) == [
        "1 mistake in the configuration; nothing was done",
        "  cluster.yaml:3: hosts[0].adress: unknown key (address?)",
        "  warning: cluster.yaml: an even number of control nodes",
    ]
    assert str(ConfigError(problems)).splitlines()[1] == "warning: cluster.yaml: an even number of control nodes"
    assert explain(ConfigError(problems, unfinished=True))[3:] == ["  more may be found once these are mended"]


def test_thousands_of_mistakes_are_not_all_shown() -> None:
    lines = explain(ConfigError(tuple(Problem("f", line, "", "bad") for line in range(1, 1001))))
    assert len(lines) == 52
    assert lines[-1] == "  and 950 more"


def test_a_task_group_that_failed_tells_each_failure() -> None:
    group = ExceptionGroup(
        "unhandled", [Unreachable("silent", host="node1"), ExceptionGroup("inner", [Unreachable("silent", host="node2")])]
    )
    assert explain(group) == ["node1: silent", "node2: silent"]
    assert is_expected(group)
    assert exit_code(group) == 1


def test_exit_codes() -> None:
    assert exit_code(UsageError("no")) == 2
    assert exit_code(Interrupted("stop")) == 130
    assert exit_code(CommandFailed("true", 1, "")) == 1
    assert exit_code(ValueError("bug")) == 1
    assert exit_code(ExceptionGroup("", [UsageError("a"), UsageError("b")])) == 2
    assert exit_code(ExceptionGroup("", [UsageError("a"), Unreachable("b")])) == 1


def test_a_bug_is_not_expected_and_names_its_kind() -> None:
    assert not is_expected(KeyError("x"))
    assert not is_expected(ExceptionGroup("", [Unreachable("a"), KeyError("x")]))
    assert explain(ValueError("wrong")) == ["ValueError: wrong"]
    assert explain(ValueError()) == ["ValueError"]


def test_a_remote_host_cannot_steer_the_terminal_through_an_error() -> None:
    assert explain(HyperMeshError("said \x1b[2J")) == ["said [2J"]


def test_a_deadline_that_passed_has_no_words_of_its_own() -> None:
    error = caused(Unreachable("no answer from 10.0.0.1", host="node1"), TimeoutError(), asyncio.CancelledError())
    assert explain(error) == ["node1: no answer from 10.0.0.1"]
    assert explain(caused(HyperMeshError("failed"), TimeoutError("the handshake timed out"))) == [
        "failed",
        "  why: the handshake timed out",
    ]


def test_a_file_that_is_not_there_holds_no_mistakes() -> None:
    with pytest.raises(ConfigError) as caught:
        load_inventory("/nope.yaml", {})
    said = explain(caught.value)
    assert said[0] == "/nope.yaml: cannot be read: No such file or directory"
    assert said[1].startswith("  fix: ")
    assert len(said) == 2
