"""docs/json.md is a promise: its tables name exactly the fields that the commands print."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import typer
from app_samples import SAMPLES

from hmcore.config.inventory import Inventory, load_inventory
from hmcore.records import (
    ComponentReport,
    ComponentState,
    Divergence,
    Instance,
    Maintenance,
    Mute,
    Node,
    NodeReport,
    NodeState,
    PeerReport,
    PhaseReport,
    RaftReport,
    Role,
    SecurityReport,
)
from hmctl.actions.checks import judge
from hmctl.actions.health import health_report
from hmctl.actions.inspect import inspection
from hmctl.actions.status import Answer, AppStatus, Expected, ServiceStatus, Silence, Status
from hmctl.cli import main
from hmctl.cli.context import current
from hmctl.cli.health import Muting
from hmctl.cli.logs import Line
from hmctl.cli.node import NodeList
from hmctl.document import Format, dump

ROOT = Path(__file__).parents[4]
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def documented() -> dict[str, set[str]]:
    """By heading: the fields of its table."""
    fields: dict[str, set[str]] = {}
    for section in re.split(r"^## ", (ROOT / "docs/json.md").read_text(), flags=re.MULTILINE)[1:]:
        rows = re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)
        assert len(rows) == len(set(rows)), f"a field stands twice in {section.splitlines()[0]}"
        fields[section.splitlines()[0]] = set(rows)
    return fields


def fields_of(document: object, known: set[str], path: str = "") -> Iterator[str]:
    """The paths of all leaves of `document`, in the words of `known` where these have a `*` or `**` for them."""
    subtree = f"{path}.**" if path else "**"
    if subtree in known or (path.endswith("*") and subtree in known):
        yield subtree
        return
    match document:
        case dict():
            wild = any(field.startswith(f"{path}.*" if path else "*") for field in known)
            for key, value in document.items():
                step = "*" if wild else key
                yield from fields_of(value, known, f"{path}.{step}" if path else step)
        case list():
            for value in document:
                yield from fields_of(value, known, f"{path}[]")
        case _:
            yield path


def report() -> NodeReport:
    return NodeReport(
        cluster="hm-abc123defg",
        name="node1",
        address="198.18.0.1",
        role=Role.CONTROL,
        release="r1",
        uptime_seconds=12.5,
        health_score=0.5,
        reasons=["container: Docker does not answer"],
        containers=None,
        components={"container": ComponentReport(state=ComponentState.DEGRADED, init_seconds=0.2, error="Docker does not answer")},
        raft=RaftReport(
            role="leader",
            leader="node1",
            term=3,
            voters=["node1"],
            reachable_voters=["node1"],
            learners=["node4"],
            divergences=[Divergence(node="node2", index=9, hash="1f", agreed="2e", others=["node1"])],
        ),
        formed=True,
        members=[Node(name="node1", address="198.18.0.1", port=7443, role=Role.CONTROL, release="r1", state=NodeState.READY)],
        peers=[PeerReport(name="node2", address="198.18.0.2:7443", state="connected", rtt_ms=0.5)],
        phases=[PhaseReport(name="identity", began_seconds=0.0, seconds=0.1, outcome="ok")],
        security=SecurityReport(mode="enforce", programs=9),
        mutes=[Mute(check="disk", node="node1", reason="a test", author="me", index=7)],
        maintenance=[Maintenance(target="node2/", reason="a test", author="me", index=8)],
    )


def status() -> Status:
    answers = {"node1": Answer(report(), 0.001), "node2": Silence("no answer")}
    expected = [Expected(name, "198.18.0.1", Role.CONTROL) for name in answers]
    found = judge(cluster="lab", expected=expected, answers=answers, certificate_ends=NOW, now=NOW)
    service = ServiceStatus(name="web", desired=2, running=1, healthy=1)
    return msgspec.structs.replace(found, apps=[AppStatus(name="shop", generation=1, services=[service])])


def sample_health() -> object:
    return health_report(status())


def sample_mute() -> object:
    return Muting(check="disk", node="node1", muted=True, changed=True, index=7, reason="known")


def inventory() -> Inventory:
    return load_inventory(ROOT / "inventories/three-nodes.yaml", {"HOME": "/root"})[0]


def sample_node_ls() -> object:
    return NodeList(cluster="lab", leader=None, nodes=status().nodes)


def sample_inspect() -> object:
    return inspection(status().nodes[0], report())


def sample_logs() -> object:
    return Line(time="2026-11-22T08:00:00.000000Z", node="node1", priority=6, message="started")


def sample_flow() -> Any:
    from hmctl.actions.flows import COUNTERS, FlowView

    identity = {name: name for name in ("node", "container", "container_id", "service", "peer", "peer_name", "protocol")}
    return msgspec.convert(identity | dict.fromkeys(COUNTERS, 1), FlowView)


def sample_problem() -> Any:
    from hmctl.actions.flows import Problem

    return Problem(node="node2", error="no answer", fix=None)


def sample_flows() -> object:
    from hmctl.actions.flows import FlowList

    return FlowList(flows=[sample_flow()], omitted=0, problems=[sample_problem()])


def sample_rate() -> object:
    from hmctl.actions.flows import Sample, rates

    return rates(Sample.of(0.0, []), Sample.of(2.0, [sample_flow()]), "2026-11-22T08:00:00Z")[0]


def sample_events() -> object:
    from hmctl.actions.events import EventList, EventView

    event = EventView(time=None, kind="exec", node="node1", message="exec /bin/sh", attributes={"pid": "12"})
    return EventList(events=[event], problems=[sample_problem()])


def sample_lab() -> object:
    from hmctl.lab.lab import HostView, LabView

    host = HostView(name="node1", address="198.18.0.1", state="running")
    return LabView(name="lab", inventory="/home/me/lab.yaml", hosts=[host], partition=[["node1"], ["node2"]])


def sample_labs() -> object:
    return {"labs": [sample_lab()]}


def sample_deploy() -> object:
    from hmctl.actions.report import HostReport, PhaseTime, Report
    from hmctl.phases.validate import Check

    return Report(
        cluster="lab",
        dry_run=False,
        changed=True,
        healthy=True,
        leader="node1",
        hosts=(HostReport("node1", "changed", changes=("upload release",), warnings=("no kernel headers",)),),
        cluster_changes=("form the cluster",),
        checks=(Check("node1", "python", "ok", "3.11"),),
        problems=("node2 is unreachable",),
        timings=(PhaseTime("Upload release", 1.0, "node1", 1.0),),
    )


def sample_release() -> object:
    from hmctl.bundle.store import Release

    return Release("d" * 64, "0.1.0", "3.11", "x86_64", True, 1, 2, "c" * 64, 0.0, Path("/cache/release.tar.gz"))


def sample_releases() -> object:
    return [{"release": sample_release(), "current": True}]


def seen() -> object:
    from hmcore.api import RegistryReply
    from hmctl.actions.service import Seen

    web = Instance(id="node1/web", service="shop/web", node="node1", address="10.0.0.1", tags=["a"], attributes={"image": "web"})
    return Seen(told_by="node1", leader=True, reply=RegistryReply(index=7, instances=[web]))


def sample_services() -> object:
    from hmctl.actions.service import OrphanView, listing

    found: Any = seen()
    document = listing(found)
    service = msgspec.structs.replace(document.services[0], versions=["v1"])
    orphan = OrphanView(target="node1/old", reason="new disk", author="ann")
    return msgspec.structs.replace(document, services=[service], orphans=[orphan])


def sample_resolution() -> object:
    from hmcore.selection import Filter, Strategy
    from hmctl.actions.service import resolution

    found: Any = seen()
    return msgspec.structs.replace(resolution(found, "shop/web", Filter(), Strategy.WEIGHTED), chosen=["node1/web"])


def sample_reseeding() -> object:
    from hmctl.actions.reseed import Reseeded

    return Reseeded(node="node1", kept="/var/lib/hypermesh/raft.aside-1", leader="node2", index=7, seconds=3.5)


def sample_transfer() -> object:
    from hmctl.actions.transfer import Transferred

    return Transferred(before="node1", leader="node2", term=4, changed=True, seconds=0.05, index=9)


def sample_voters() -> object:
    from hmctl.actions.voters import RaftView, VoterView

    told = {"last_index": 9, "lag": 0, "answered": 0.1, "hash": "cafe", "index": 9, "trouble": None}
    node = VoterView(name="node1", role="voter", leader=True, state="leader", **told)  # type: ignore[arg-type]
    voters: Any = {"configured": 3, "committed": True, "voters": ["node1"], "learners": ["node2"], "may_fail": 0, "working": ["node1"]}
    return RaftView(leader="node1", term=4, level=2, told_by="node1", nodes=[node], **voters)


def sample_configured() -> object:
    from hmctl.actions.configure import Configured

    voters: Any = {"before": ["node1"], "voters": ["node1", "node2"], "may_fail": 0, "leader": "node1"}
    return Configured(node="node2", action="add", changed=True, index=7, seconds=1.5, **voters)


def sample_maintenance() -> object:
    from hmctl.actions.service import MaintenanceChange

    return MaintenanceChange(target="node1/", on=True, changed=True, index=7, instances=["node1/web"])


def sample_locks() -> object:
    from hmctl.actions.locks import LockList, LockView

    held = LockView(name="deploy", holder="ann@desk-1", token=4, since=1.5, ttl=30.0, expires_in=21.5, note="deploy", author="ann", index=9)
    return LockList(told_by="node1", leader=True, index=11, locks=[held])


def sample_lock_release() -> object:
    from hmctl.actions.locks import LockRelease

    return LockRelease(name="deploy", holder="ann@desk-1", token=4, changed=True, index=12)


def sample_config_diff() -> object:
    from hmctl.actions.config_diff import Change, ConfigDiff, NodeDiff
    from hmctl.actions.refusal import Refusal

    change = Change("settings.raft.heartbeat", 0.2, 0.1)
    node = NodeDiff("node1", "differs", (change,), drift=("edited",), elsewhere=("role control -> worker",), restart=True)
    return ConfigDiff("lab", True, (change,), (node,), (Refusal("settings.transport.port", "why", "put it back"),), {"node2": "no answer"})


def sample_config_apply() -> object:
    from hmctl.actions.config_report import ConfigReport, NodeOutcome

    node = NodeOutcome("node1", "restored", ("settings.raft.heartbeat 0.2 -> 0.1",), "it did not start", "hmctl logs node1", ("no",))
    refusals = sample_config_diff().refusals  # type: ignore[attr-defined]
    return ConfigReport("lab", False, False, True, None, "node1", (node,), refusals, ("node2: security is degraded",))


def sample_key() -> object:
    from hmcore.records import KeyValue
    from hmctl.actions.keys import view_of

    return view_of("app/a", 7, KeyValue(value=b"1", created=5, changed=6))


def sample_keys() -> object:
    from hmctl.actions.keys import KeyList, ListedKey

    return KeyList(index=7, keys=[ListedKey(key="app/a", created=5, changed=6, size=1)])


def sample_key_change() -> object:
    from hmctl.actions.keys import KeyChange

    return KeyChange(key="app/a", changed=True, index=7, revision=6)


def sample_key_event() -> object:
    from hmctl.actions.keys import KeyEvent

    return KeyEvent(kind="deleted", index=7, key="app/a")


STRUCTURED: dict[str, Callable[[], object]] = {
    "hmctl status": status,
    "hmctl health": sample_health,
    "hmctl health mute": sample_mute,
    "hmctl node ls": sample_node_ls,
    "hmctl node inspect": sample_inspect,
    "hmctl service ls": sample_services,
    "hmctl service resolve": sample_resolution,
    "hmctl service maintain": sample_maintenance,
    "hmctl lock status": sample_locks,
    "hmctl lock release": sample_lock_release,
    "hmctl raft ls": sample_voters,
    "hmctl raft add": sample_configured,
    "hmctl raft rm": sample_configured,
    "hmctl raft transfer": sample_transfer,
    "hmctl raft reseed": sample_reseeding,
    "hmctl deploy": sample_deploy,
    "hmctl reset": sample_deploy,
    "hmctl config diff": sample_config_diff,
    "hmctl config apply": sample_config_apply,
    "hmctl bundle build": sample_release,
    "hmctl bundle ls": sample_releases,
    "hmctl logs": sample_logs,
    "hmctl flows": sample_flows,
    "hmctl flows -f": sample_rate,
    "hmctl events": sample_events,
    **SAMPLES,
    "hmctl kv put": sample_key_change,
    "hmctl kv get": sample_key,
    "hmctl kv ls": sample_keys,
    "hmctl kv watch": sample_key_event,
    "hmctl lab up": sample_lab,
    "hmctl lab ls": sample_labs,
}


@pytest.mark.parametrize("command", STRUCTURED)
def test_the_tables_name_what_the_records_hold(command: str) -> None:
    known = documented()[command]
    assert set(fields_of(json.loads(dump(STRUCTURED[command](), Format.JSON)), known)) == known


PRINTED: dict[str, list[str]] = {
    "hmctl init": ["init", "root@10.0.0.1"],
    "hmctl config validate": ["config", "validate", "-i", "broken.yaml"],
    "hmctl config show": ["config", "show", "-i", "labelled.yaml"],
    "hmctl config render": ["config", "render", "-i", "labelled.yaml"],
    "hmctl config presets": ["config", "presets"],
    "hmctl ca show": ["ca", "show", "-i", "labelled.yaml"],
    "hmctl ca viewer": ["ca", "viewer", "prometheus", "-i", "labelled.yaml"],
}


@pytest.mark.parametrize("command", PRINTED)
def test_the_tables_name_what_the_commands_print(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hmctl.state import OperatorStore

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    whole = (ROOT / "inventories/three-nodes.yaml").read_text()
    (tmp_path / "labelled.yaml").write_text(whole)
    (tmp_path / "broken.yaml").write_text("name: 3\nhosts: []\n")
    OperatorStore.open(inventory().id).create_authority(NOW)
    main.run([*PRINTED[command], "-o", "json"])
    printed: Any = json.loads(capsys.readouterr().out)
    known = documented()[command]
    found = set(fields_of(printed, known))
    optional = {field for field in known if field.endswith("labels.**")}  # a map may be empty
    assert found | optional == known | optional


def test_every_section_is_checked() -> None:
    assert set(documented()) == STRUCTURED.keys() | PRINTED.keys()


def test_the_check_itself_sees_a_field_that_is_missing_or_new() -> None:
    known = {"name", "nodes[].name", "map.*.state", "sub.**"}
    same = {"name": 1, "nodes": [{"name": 1}], "map": {"a": {"state": 1}}, "sub": {"x": [1]}}
    assert set(fields_of(same, known)) == known
    assert set(fields_of({**same, "new": 1}, known)) - known == {"new"}
    assert known - set(fields_of({key: value for key, value in same.items() if key != "nodes"}, known)) == {"nodes[].name"}


def test_the_exact_document_of_status_as_the_design_has_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def command(ctx: typer.Context) -> int:
        found = status()
        current(ctx).output.result(found, lambda: None)
        return found.exit_code

    module = ModuleType("hmctl.cli.status")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hmctl.cli.status", module)
    assert main.run(["status", "-o", "json"]) == 4
    printed = json.loads(capsys.readouterr().out)
    later = ("health_score", "mutes", "maintenance", "cluster_checks", "index", "consistent", "level", "level_known")
    assert [key for key in printed if key not in later] == [
        "cluster", "health", "leader", "term", "release", "checks", "nodes", "apps",
    ]  # fmt: skip
    assert list(printed["nodes"][0]) == [
        "name", "address", "role", "state", "health_score", "reasons", "release", "uptime_seconds", "rtt_ms", "containers", "components",
        "checks", "through", "apps",
    ]  # fmt: skip
    assert printed["nodes"][0]["components"] == {"container": {"state": "degraded", "init_seconds": 0.2, "error": "Docker does not answer"}}
