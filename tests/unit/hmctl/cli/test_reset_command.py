"""hmctl reset: when it may be said that nothing but the CA is left."""

from __future__ import annotations

import pytest

from hmctl.actions.hosts import Options
from hmctl.actions.report import HostReport, Report
from hmctl.cli.reset import cleared


@pytest.mark.parametrize(
    ("statuses", "limit", "dry_run", "all_gone"),
    [
        (["changed", "unchanged"], None, False, True),
        (["changed", "unreachable"], None, False, False),
        (["failed"], None, False, False),
        (["changed"], "node1", False, False),
        (["planned"], None, True, False),
        (["unchanged"], None, True, False),
    ],
)
def test_the_ca_is_spoken_of_only_when_every_host_is_done(statuses: list[str], limit: str | None, dry_run: bool, all_gone: bool) -> None:
    hosts = tuple(HostReport(f"node{number}", status) for number, status in enumerate(statuses))  # type: ignore[arg-type]
    report = Report(cluster="c", dry_run=dry_run, changed=False, healthy=None, leader=None, hosts=hosts, cluster_changes=(), seconds=0.1)
    assert cleared(report, Options(limit=limit, dry_run=dry_run)) is all_gone
