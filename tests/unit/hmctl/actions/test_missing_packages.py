"""Packages that cannot be had: the rest goes on, it is said, and nobody asks for them again and again."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory_cluster import make, no_probe

from hmctl.phases import probe


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "probe", no_probe)


async def test_what_cannot_be_had_is_asked_for_once_and_warned_of_ever_after(tmp_path: Path) -> None:
    bed = make(tmp_path)
    for machine in bed.world.machines.values():
        machine.docker, machine.bcc, machine.unknown = "missing", False, {"python3-bpfcc"}
    first = await bed.deploy()
    assert "Unable to locate package python3-bpfcc" in first.hosts[0].warnings[0]
    assert (first.healthy, first.exit_code(detailed=False)) == (True, 3)  # Docker came, and not all that was planned
    second = await bed.deploy()
    assert (second.changed, second.healthy, second.exit_code(detailed=False)) == (False, True, 0)
    warned = [check for check in second.checks if check.status == "warn"]
    assert [(check.host, check.name) for check in warned] == [(name, "packages") for name in bed.world.machines]
    dry = await bed.deploy(dry_run=True)
    assert dry.exit_code(detailed=True) == 0


@pytest.mark.parametrize(("mode", "second"), [("off", "changed"), ("audit", "failed")])
async def test_where_every_layer_is_required_a_host_that_cannot_have_its_packages_is_refused(
    tmp_path: Path, mode: str, second: str
) -> None:
    """What BPF programs are compiled with is needed as long as the security layer is on."""
    bed = make(tmp_path, extra=f"settings: {{optional_layers: refuse, security: {{mode: {mode}}}}}\n")
    bed.world.machines["node1"].docker, bed.world.machines["node1"].unknown = "missing", {"docker.io"}
    bed.world.machines["node2"].bcc, bed.world.machines["node2"].unknown = False, {"python3-bpfcc"}
    report = await bed.deploy()
    assert [host.status for host in report.hosts] == ["failed", second, "changed"]
    assert "docker.io cannot be installed" in (report.hosts[0].error or "")
    assert report.hosts[0].fix == "on node1: apt-get install docker.io"
