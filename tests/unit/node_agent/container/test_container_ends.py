"""What ended a container: itself, or the end of Docker or of the machine."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.container import docker_unit
from node_agent.container.ends import STOPPING, Docker, Run, Unit, by_docker, run_of, unit_of


@pytest.mark.parametrize(
    ("started", "finished", "left", "is_dockers"),
    [
        (100.0, 500.0, 499.0, True),  # by the stop signal that Docker sends while it stops
        (100.0, 500.0, 510.0, True),  # Docker was stopped by hand: systemd saw it leave once all had ended
        (100.0, 601.0, 500.0, True),  # Docker crashed, and what outlived it was ended by the new one
        (100.0, 440.0, 500.0, False),  # a job that was done a minute before
        (100.0, 440.0, None, True),  # the same, before the machine was started
        (601.0, 602.0, 500.0, False),  # under the Docker that there is
    ],
)
def test_whose_end_it_is(started: float, finished: float, left: float | None, is_dockers: bool) -> None:
    assert by_docker({"c": Run(started, finished)}, Docker(600.0, left)) == ({"c": 600.0} if is_dockers else {})


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1e9), st.none() | st.floats(0, 1e9))
def test_what_this_docker_started_ends_by_itself_and_what_nobody_saw_leave_by_docker(started, finished, since, left) -> None:
    found = by_docker({"c": Run(started, finished)}, Docker(since, left))
    if started >= since:
        assert not found
    elif left is None or finished > left - STOPPING:
        assert found == {"c": since}


@pytest.mark.parametrize(
    ("said", "unit"),
    [
        ("ActiveState=active\nActiveExitTimestampMonotonic=0\n", Unit()),
        ("ActiveState=active\nActiveExitTimestampMonotonic=2500000\n", Unit(left=2.5)),
        ("ActiveState=deactivating\nActiveExitTimestampMonotonic=2500000\nJob=77\n", Unit(passing=True, left=2.5)),
        ("ActiveState=activating\n", Unit(passing=True)),
        ("ActiveState=active\nJob=77\n", Unit(passing=True)),  # the machine is being stopped, and Docker's turn will come
        ("ActiveState=active\nJob=0\n", Unit()),
        ("ActiveState=inactive\n", Unit()),  # another unit runs it
        ("ActiveExitTimestampMonotonic=٣\nActiveExitTimestampMonotonic\n", Unit()),
        ("", Unit()),
    ],
)
def test_what_systemd_says_of_dockers_unit(said: str, unit: Unit) -> None:
    assert unit_of(said) == unit


@given(st.text())
def test_reading_a_unit_is_total(said: str) -> None:
    unit_of(said)
    unit_of(f"ActiveExitTimestampMonotonic={said}")


def test_a_run_is_as_docker_stamps_it() -> None:
    said = {"State": {"StartedAt": "1970-01-01T00:01:40.123456789Z", "FinishedAt": "1970-01-01T01:01:40.5+01:00"}}
    assert run_of(said) == Run(100.123456, 100.5)


@pytest.mark.parametrize("stamp", ["", "0001-01-01", "yesterday", 7, None])
def test_without_its_stamps_nothing_is_known_of_a_run(stamp: object) -> None:
    assert run_of({"State": {"StartedAt": stamp, "FinishedAt": "1970-01-01T00:00:01Z"}}) is None
    assert run_of({"State": stamp}) is None
    assert run_of(stamp) is None


def test_a_machine_without_systemd_is_not_asked(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(docker_unit, "SYSTEMD", tmp_path / "none")
    monkeypatch.setenv("PATH", "")
    assert docker_unit.look() == Unit()


def test_systemd_is_asked_and_may_not_answer(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(docker_unit, "SYSTEMD", tmp_path)
    monkeypatch.setattr(docker_unit, "TIMEOUT", 20.0)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        '#!/bin/sh\n[ "$*" = "show docker.service --property=ActiveState,Job,ActiveExitTimestampMonotonic" ] && echo Job=5\n'
    )
    systemctl.chmod(0o755)
    assert docker_unit.look() == Unit(passing=True)
    systemctl.write_text("#!/bin/sh\nexit 1\n")
    assert docker_unit.look() == Unit()
    assert "systemd does not tell" in caplog.text

    def hang(*args: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("systemctl", 20)

    monkeypatch.setattr(subprocess, "run", hang)
    assert docker_unit.look() == Unit()
