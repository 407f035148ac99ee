"""What a narrow terminal shows: fewer columns, and never a part of what tells nodes and containers apart. A pipe gets all."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from answering import NAMES, Cluster
from memory_fleet import Fleet, flow

from hmcore import api
from hmcore.records import Instance, InstanceHealth
from hmctl import client
from hmctl.actions import agents, service
from hmctl.actions.service import Seen
from hmctl.bundle.store import Release, ReleaseStore
from hmctl.cli import main
from hmctl.client import Access

WIDTHS = (40, 60, 80, 120)


class Terminal:
    """Runs commands as in a terminal of `width` columns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, width: int, *words: str, lines: int = 24) -> list[str]:
        with self._monkeypatch.context() as patch:
            patch.setattr(sys.stdout, "isatty", lambda: True)
            for name, value in (("COLUMNS", str(width)), ("LINES", str(lines)), ("NO_COLOR", "1")):
                patch.setenv(name, value)
            main.run(list(words))
        shown = self._capsys.readouterr().out.splitlines()
        assert all(len(line) <= width for line in shown), shown
        return shown


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capsys)


def table(lines: list[str], title: str) -> list[list[str]]:
    first = next(number for number, line in enumerate(lines) if line.startswith(title))
    return [line.split() for line in lines[first:]]


@pytest.mark.parametrize(
    ("width", "titles", "missing"),
    [
        (35, "NODE STATE HEALTH", "no room for ADDRESS, ROLE, CONTAINERS, UPTIME, RTT"),
        (40, "NODE ADDRESS STATE HEALTH", "no room for ROLE, CONTAINERS, UPTIME, RTT"),
        (60, "NODE ADDRESS ROLE STATE HEALTH CONTAINERS", "no room for UPTIME, RTT"),
        (80, "NODE ADDRESS ROLE STATE HEALTH CONTAINERS UPTIME RTT", ""),
    ],
)
@pytest.mark.parametrize("words", [("status",), ("node", "ls")])
def test_nodes(words: tuple[str, ...], width: int, titles: str, missing: str, cluster: Cluster, terminal: Terminal) -> None:
    cluster.silence(["node2"])
    head, first, second, third, *rest = table(terminal.run(width, *words), "NODE")
    assert " ".join(head) == titles
    assert [row[0] for row in (first, second, third)] == list(NAMES)
    assert "unreachable" in second
    assert "100%" in first
    assert " ".join(word for row in rest for word in row) == missing


def test_a_pipe_gets_every_column(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    main.run(["node", "ls"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NODE", "ADDRESS", "ROLE", "STATE", "HEALTH", "CONTAINERS", "UPTIME", "RTT"]
    assert len(lines) == 4


def test_watching_in_a_low_terminal_says_how_much_it_does_not_show(cluster: Cluster, terminal: Terminal) -> None:
    def interrupt() -> None:
        if len(cluster.asked) == 2:
            raise KeyboardInterrupt

    cluster.before_answering = interrupt
    shown = terminal.run(200, "status", "--watch", "--interval", "0.2", lines=10)
    assert shown[8].removesuffix("\x1b[K").endswith("more lines")
    assert shown[9:] == ["\x1b[J"]


@pytest.mark.parametrize("width", WIDTHS)
def test_flows(width: int, cluster: Cluster, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet()
    monkeypatch.setattr(agents, "connect", fleet.connect)
    monkeypatch.setattr(client.Access, "of", lambda store, via: Access(store.cluster, store.known_hosts))
    long = "shop-web-frontend-1"
    fleet.flows["node1"] = [
        flow("node1", "web", "10.0.0.2", service="shop/web", bytes_in=903_500, packets_in=640, connections_in=3, connections_out=12),
        flow("node1", long, "2001:db8:85a3:1234:5678:8a2e:370:7334", service="shop/web", bytes_in=1),
    ]
    text = "\n".join(terminal.run(width, "flows"))
    assert "node1/web" in text
    assert f"node1/{long}" in text
    assert "2001:db8:85a3:1234:5678:8a2e:370:7334" in text
    assert "903.5 kB" in text
    assert ("no room for SERVICE" in text) == (width < 120)
    fleet.flows["node1"] = fleet.flows["node1"][:1]
    head, row, *_ = table(terminal.run(width, "flows"), "CONTAINER")
    assert row[:1] == ["node1/web"]
    assert ("SERVICE" in head, "CONNECTIONS" in head) == (width >= 80, width >= 60)


@pytest.mark.parametrize("width", WIDTHS)
def test_services_keep_how_many_are_fit(width: int, cluster: Cluster, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    instances = [
        Instance(id=f"{node}/agent", service="hypermesh/consensus", node=node, address="", port=0, health=health, version="0.1.0")
        for node, health in zip(NAMES, (InstanceHealth.HEALTHY, InstanceHealth.HEALTHY, InstanceHealth.UNHEALTHY), strict=True)
    ]

    async def look(*given: Any, **more: Any) -> Seen:
        return Seen(told_by="node1", leader=True, reply=api.RegistryReply(index=1, instances=instances, maintenance=[]))

    monkeypatch.setattr(service, "look", look)
    monkeypatch.setattr(client.Access, "of", lambda store, via: Access(store.cluster, store.known_hosts))
    head, row, *_ = table(terminal.run(width, "service", "ls"), "SERVICE")
    assert row[:2] == ["hypermesh/consensus", "2/3"]
    assert head[:2] == ["SERVICE", "FIT"]
    assert ("VERSION" in head) == (width >= 80)


@pytest.mark.parametrize("width", WIDTHS)
def test_releases(width: int, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = Release(
        digest="c9762293f5da" + "0" * 52,
        version="0.1.0",
        python="3.11",
        arch="x86_64",
        compiled=True,
        size=18_100_000,
        unpacked=50_000_000,
        checksum="",
        built=time.time() - 591,
        archive=tmp_path,
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ReleaseStore, "list", lambda store: [release])
    monkeypatch.setattr(ReleaseStore, "cached", lambda store, target: release)
    head, row, *rest = table(terminal.run(width, "bundle", "ls"), "RELEASE")
    assert row[0] == "c9762293f5da"
    assert row[-1] == "current"
    assert ("VERSION" in head, "BUILT" in head) == (width >= 80, width >= 60)
    assert bool(rest) == (width < 80)


@pytest.mark.parametrize("width", WIDTHS)
def test_presets(width: int, terminal: Terminal) -> None:
    lines = terminal.run(width, "config", "presets")
    assert not any("…" in line for line in lines)
    settings = [line.split() for line in lines if line.startswith("raft.election_min")]
    assert [value for row in settings for value in row[1:] if value != "s"] == ["1", "1", "0.5", "2.5"]
    assert len(settings) == {40: 4, 60: 2, 80: 2, 120: 1}[width]
