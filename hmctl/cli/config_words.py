"""What config diff and config apply say to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from hmctl.actions.config_diff import VOTERS, ConfigDiff, outside_common
from hmctl.text import Cell, Styled, duration, listed, plural

if TYPE_CHECKING:
    from hmctl.actions.config_diff import Change, NodeDiff
    from hmctl.actions.config_report import ConfigReport
    from hmctl.output import Output


class Write(Protocol):
    """Output.paragraph, or the like on the way to the result."""

    def __call__(self, *head: Cell, text: Cell) -> None: ...


def show_diff(output: Output, diff: ConfigDiff) -> None:
    """The result of config diff: what all share once, then node by node, then what must be known about it."""
    show_changes(output, diff, output.paragraph)
    for refusal in diff.refusals:
        output.paragraph(Styled("✗ ", "bad"), text=f"{refusal.path}: {refusal.message}")
        if refusal.fix:
            output.paragraph(Styled("    fix: ", "accent"), text=refusal.fix)
    for name, reason in diff.unasked.items():
        said = f"{name} is left out and cannot be asked for settings that these must go with: {reason}"
        output.paragraph(Styled("! ", "warning"), text=said)
    same = [node.name for node in diff.nodes if node.status == "same"]
    if diff.changed and not diff.refusals:
        _how_to_apply(output, diff)
    elif same and not diff.changed:
        where = "" if len(same) == len(diff.nodes) else f"{listed(same)}: "
        if any(node.elsewhere for node in diff.nodes):
            what = "the control nodes do: hmctl deploy" if any(map(_of_voters, _elsewhere_common(diff))) else "the rest is for hmctl deploy"
            output.line(f"{where}no settings differ; {what}" if where else f"No settings differ; {what}")
        else:
            output.line(f"{where}no changes" if where else Styled("No changes.", "good"))


def _how_to_apply(output: Output, diff: ConfigDiff) -> None:
    down = [node.name for node in diff.nodes if node.status in ("unreachable", "unreadable") or node.running is False]
    due = [node.name for node in diff.nodes if node.restart]
    if due:
        turns = ", one after the other" if len(due) > 1 else ""
        output.paragraph(text=f"To apply: hmctl config apply restarts the agent of {listed(due)}{turns}; containers go on running.")
    elif any(node.status == "differs" and node.running for node in diff.nodes):
        output.line("To apply: hmctl config apply; no agent needs a restart, for all run with this already.")
    if down:
        verb, it = ("is", "it") if len(down) == 1 else ("are", "them")
        first = "It refuses" if due else "To apply: hmctl config apply, which refuses"
        output.paragraph(text=f"{first} while {listed(down)} {verb} not well: mend that first, or leave {it} out with --skip-unreachable.")


def show_changes(output: Output, diff: ConfigDiff, write: Write) -> None:
    """The differences."""
    compared = [node.name for node in diff.nodes if node.status in ("same", "differs")]
    shared = _elsewhere_common(diff)
    said = [other for other in shared if not _of_voters(other)]  # long, and the same from every node: one sentence has it
    if diff.common or said:
        write(text=Styled("all nodes" if len(compared) == len(diff.nodes) > 1 else listed(compared), "strong"))
        _lines(write, diff.common)
        _for_deploy(write, said)
    for node in diff.nodes:
        own, elsewhere = outside_common(node, diff.common), [other for other in node.elsewhere if other not in shared]
        if own or node.drift or elsewhere or node.error or (node.restart and not node.changes):
            write(text=Styled(node.name, "strong"))
            _lines(write, own)
            _remarks(write, node, elsewhere)
    if diff.changed and len(said) < len(shared):
        write(text="The control nodes differ, too: that is no setting, but for hmctl deploy.")


def _elsewhere_common(diff: ConfigDiff) -> list[str]:
    """What is deploy's business on every node that could be compared, in the same words."""
    compared = [node.elsewhere for node in diff.nodes if node.status in ("same", "differs")]
    return [other for other in compared[0] if all(other in each for each in compared)] if compared else []


def _of_voters(other: str) -> bool:
    return other.startswith(VOTERS)


def _for_deploy(write: Write, elsewhere: Sequence[str]) -> None:
    for other in elsewhere:
        write(Styled("  - ", "dim"), text=f"{other}: no setting, that is for hmctl deploy")


def _lines(write: Write, changes: Sequence[Change]) -> None:
    for change in changes:
        write(Styled("  ~ ", "accent"), text=str(change))


def _remarks(write: Write, node: NodeDiff, elsewhere: Sequence[str]) -> None:
    for drift in node.drift:
        write(Styled("  ! ", "warning"), text=drift)
    if node.restart and not node.changes:
        write(Styled("  ~ ", "accent"), text="restart the agent")
    _for_deploy(write, elsewhere)
    if node.error:
        write(Styled("  ✗ ", "bad"), text=node.error)
        if node.fix:
            write(Styled("    fix: ", "accent"), text=node.fix)


def show_plan(output: Output, diff: ConfigDiff, order: Sequence[str]) -> None:
    """Before consent."""
    show_changes(output, diff, lambda *head, text: output.note(*head, text))
    output.note(Styled("order: ", "strong"), ", then ".join(order))


def planned_changes(output: Output, diff: ConfigDiff, order: Sequence[str]) -> None:
    """The plan as the result of a dry run."""
    show_changes(output, diff, output.paragraph)
    output.paragraph(Styled("order: ", "strong"), text=", then ".join(order))


def show_report(output: Output, report: ConfigReport) -> None:
    for node in report.nodes:
        if node.error is None:
            continue
        bad = node.status in ("stuck", "untouched", "restored")
        output.paragraph(Styled("✗ " if bad else "- ", "bad" if bad else "warning"), text=f"{node.name}: {node.error}")
        for line in node.log:
            output.line(Styled("    | ", "dim"), line)
        if node.fix and node.fix != report.fix:
            output.paragraph(Styled("    fix: ", "accent"), text=node.fix)
    for problem in report.problems:
        output.warn(problem)
    for status, words in _SAID.items():
        if names := [node.name for node in report.nodes if node.status == status]:
            output.line(f"{listed(names)}: {words}")
    if report.error is not None:
        output.paragraph(Styled("failed: ", "bad"), text=report.error)
        if report.fix:
            output.paragraph(Styled("  fix: ", "accent"), text=report.fix)
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
        again = ", to be applied again once it is up" if changed else ""
        parts.append(Styled(f"; left out: {listed(left)}{again}", "bad"))
    parts.append(Styled(f"  ({duration(report.seconds)})", "dim"))
    return parts
