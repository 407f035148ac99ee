"""What `hmctl deploy` says after a Ctrl-C."""

from __future__ import annotations

from io import StringIO

import pytest

from hmctl.actions.report import HostReport, Report
from hmctl.cli.deploy import after_interruption, show
from hmctl.output import Output


def test_the_command_that_goes_on_names_the_same_inventory() -> None:
    assert "`hmctl deploy`" in after_interruption(None, begun=True)
    assert "`hmctl -i 'my lab.yaml' deploy`" in after_interruption("my lab.yaml", begun=True)


def test_where_nothing_was_begun_nothing_is_to_be_finished() -> None:
    assert after_interruption("lab.yaml", begun=False) == "nothing was changed"


@pytest.mark.parametrize(
    ("unreached", "said"), [((), "No changes.\n"), (("node2",), "node1: no changes\n✗ node2: no answer\n"), (("node1", "node2"), "✗ ")]
)
def test_a_dry_run_says_no_changes_only_of_what_it_reached(unreached: tuple[str, ...], said: str) -> None:
    hosts = tuple(
        HostReport(name, "unreachable", error="no answer") if name in unreached else HostReport(name, "unchanged")
        for name in ("node1", "node2")
    )
    out = StringIO()
    report = Report(cluster="lab", dry_run=True, changed=False, healthy=None, leader=None, hosts=hosts)
    show(Output(stdout=out, stderr=StringIO(), environ={}), report, timings=False)
    assert out.getvalue().startswith(said)
