"""What systemd and its journal get to see."""

from __future__ import annotations

import logging
import os
import socket

import pytest

from node_agent.notify import notify, watchdog_interval
from node_agent.platform.logs import JournalFormatter


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_reaches_the_service_manager(tmp_path, monkeypatch, abstract):
    name = f"@hypermesh-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_without_a_service_manager_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "interval"), [("10000000", None, 5.0), ("10000000", "1", None), ("0", None, None), ("soon", None, None)]
)
def test_the_watchdog_is_fed_twice_as_often_as_it_asks(monkeypatch, usec, pid, interval):
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert watchdog_interval() == interval


def _record(level: int, message: str, error: Exception | None = None) -> logging.LogRecord:
    return logging.LogRecord("node_agent.x", level, "f.py", 1, message, None, (type(error), error, None) if error else None)


@pytest.mark.parametrize(("level", "priority"), [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3)])
def test_an_event_is_one_line_with_its_priority(level, priority):
    formatted = JournalFormatter(prioritized=True).format(_record(level, "first\n\nsecond\n"))
    assert formatted == f"<{priority}>first; second"


def test_a_traceback_keeps_the_priority_on_every_line():
    formatted = JournalFormatter(prioritized=True).format(_record(logging.ERROR, "failed", ValueError("a\nb")))
    lines = formatted.splitlines()
    assert lines[0] == "<3>failed"
    assert len(lines) > 2
    assert all(line.startswith("<3>") for line in lines)


def test_on_a_terminal_it_carries_the_time_instead():
    assert JournalFormatter(prioritized=False).format(_record(logging.WARNING, "careful")).endswith(" warning careful")
