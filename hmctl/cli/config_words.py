"""What config diff and config apply say to people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hmctl.actions.config_diff import ConfigDiff, outside_common
from hmctl.text import Styled, duration, listed, plural

if TYPE_CHECKING:
    from hmctl.actions.config_diff import Change, NodeDiff
    from hmctl.actions.config_report import ConfigReport
    from hmctl.output import Output


def show_diff(output: Output, diff: ConfigDiff) -> None:
    """The result of config diff: what all share once, then node by node, then what must be known about it."""
    show_changes(output, diff, result=True)
    for refusal in diff.refusals:
        output.line(Styled("✗ ", "bad"), f"{refusal.path}: {refusal.message}")
        if refusal.fix:
            output.line(Styled("    fix: ", "accent"), refusal.fix)
    due = [node.name for node in diff.nodes if node.restart]
    same = [node.name for node in diff.nodes if node.status == "same"]
    if due and not diff.refusals:
        line = f"To apply: hmctl config apply restarts {listed(due)}, one after the other; containers go on running."
        output.line(line)
    elif not diff.changed and same:
        output.line(Styled("No changes.", "good") if len(same) == len(diff.nodes) else f"{listed(same)}: no changes")
    if any(node.elsewhere for node in diff.nodes):
        output.line("What is not settings is left to: hmctl deploy")


def show_changes(output: Output, diff: ConfigDiff, *, result: bool) -> None:
    """The differences; as the command's result, or on the way to it."""
    write = output.line if result else output.note
    compared = [node for node in diff.nodes if node.status in ("same", "differs")]
    if diff.common:
        write(Styled("all nodes" if len(compared) == len(diff.nodes) > 1 else listed([node.name for node in compared]), "strong"))
        _lines(write, diff.common)
    for node in diff.nodes:
        own = outside_common(node, diff.common)
        if own or node.drift or node.elsewhere or node.error or (node.restart and not node.changes):
            write(Styled(node.name, "strong"))
            _lines(write, own)
            _remarks(write, node)


def _lines(write: Callable[..., None], changes: Sequence[Change]) -> None:
    for change in changes:
        write(Styled("  ~ ", "accent"), str(change))


def _remarks(write: Callable[..., None], node: NodeDiff) -> None:
    for drift in node.drift:
        write(Styled("  ! ", "warning"), drift)
    if node.restart and not node.changes:
        write(Styled("  ~ ", "accent"), "restart the agent")
    for other in node.elsewhere:
        write(Styled("  · ", "dim"), other, Styled(" (hmctl deploy)", "dim"))
    if node.error:
        write(Styled("  ✗ ", "bad"), node.error)
        if node.fix:
            write(Styled("    fix: ", "accent"), node.fix)


def show_plan(output: Output, diff: ConfigDiff, order: Sequence[str]) -> None:
    """Before consent."""
    show_changes(output, diff, result=False)
    output.note(Styled("order: ", "strong"), ", then ".join(order))


def show_report(output: Output, report: ConfigReport) -> None:
    for node in report.nodes:
        if node.error is None:
            continue
        bad = node.status in ("stuck", "untouched", "restored")
        output.line(Styled("✗ " if bad else "- ", "bad" if bad else "warning"), f"{node.name}: {node.error}")
        for line in node.log:
            output.line(Styled("    | ", "dim"), line)
        if node.fix and node.fix != report.fix:
            output.line(Styled("    fix: ", "accent"), node.fix)
    for problem in report.problems:
        output.warn(problem)
    for status, words in _SAID.items():
        if names := [node.name for node in report.nodes if node.status == status]:
            output.line(f"{listed(names)}: {words}")
    if report.error is not None:
        output.line(Styled("failed: ", "bad"), report.error)
        if report.fix:
            output.line(Styled("  fix: ", "accent"), report.fix)
    elif report.dry_run:
        output.line("Nothing was changed." if report.changed else Styled("No changes.", "good"))
    else:
        output.line(*_summary(report))


_SAID = {
    "restored": "previous settings again",
    "stuck": "could not be taken back, see above",
    "untouched": "not changed",
}


def _summary(report: ConfigReport) -> list[Styled | str]:
    changed = [node.name for node in report.nodes if node.status == "changed"]
    left = [node.name for node in report.nodes if node.status == "left"]
    what = f"{plural(len(changed), 'node')} changed" if changed else "No changes"
    parts: list[Styled | str] = [Styled(f"{report.cluster}: ", "strong"), Styled(what, "good" if changed else "dim")]
    if report.healthy is not None:
        parts += [
            "; ",
            Styled(f"healthy, leader {report.leader}" if report.healthy else "not healthy", "good" if report.healthy else "warning"),
        ]
    if left:
        parts.append(Styled(f"; left out: {listed(left)}", "bad"))
    parts.append(Styled(f"  ({duration(report.seconds)})", "dim"))
    return parts
