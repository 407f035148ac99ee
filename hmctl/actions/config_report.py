"""What config apply came to: the document that -o json prints, and the exit code that follows from it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hmcore.errors import HyperMeshError, Interrupted, Unreachable
from hmctl import layout
from hmctl.actions.config_diff import ConfigDiff, NodeDiff
from hmctl.actions.refusal import Refusal
from hmctl.actions.report import DONE, FAILED, PARTLY, PENDING
from hmctl.phases.reconfigure import Fate

# planned: would be changed. changed: runs with the new settings. restored: it had them, and runs with its previous ones again.
# untouched: it was to be changed, and its turn never came, or all was refused. stuck: it could not be taken back. left: down, left out, or
# deploy's business.
Status = Literal["unchanged", "planned", "changed", "restored", "untouched", "stuck", "left"]


@dataclass(frozen=True, slots=True)
class NodeOutcome:
    """`error`: why its change failed, or why it was left out. `log`: the last lines of its journal, where its agent failed."""

    name: str
    status: Status
    changes: tuple[str, ...] = ()
    error: str | None = None
    fix: str | None = None
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigReport:
    cluster: str
    dry_run: bool
    changed: bool  # some node runs with other settings than before, or in a dry run would
    rolled_back: bool
    healthy: bool | None  # None: not looked at
    leader: str | None
    nodes: tuple[NodeOutcome, ...]
    refusals: tuple[Refusal, ...] = ()
    problems: tuple[str, ...] = ()  # why it is not healthy
    error: str | None = None
    fix: str | None = None
    seconds: float = 0.0

    def exit_code(self, *, detailed: bool) -> int:
        """Design section 10."""
        if self.error is not None:
            return FAILED
        if self.healthy is False or any(node.status == "left" for node in self.nodes):
            return PARTLY
        return PENDING if detailed and self.dry_run and self.changed else DONE


def outcomes(
    diff: ConfigDiff,
    fates: Mapping[str, Fate],
    errors: Mapping[str, HyperMeshError],
    left_out: Mapping[str, HyperMeshError],
    *,
    planned: bool,
) -> tuple[NodeOutcome, ...]:
    """`planned`: what has not been done would be, if this were no dry run."""
    return tuple(_outcome(node, fates.get(node.name), errors.get(node.name), left_out.get(node.name), planned) for node in diff.nodes)


def _outcome(
    node: NodeDiff, fate: Fate | None, error: HyperMeshError | None, left_out: HyperMeshError | None, planned: bool
) -> NodeOutcome:
    changes = tuple(map(str, node.changes)) or (
        ("restart the agent",) if node.restart else ("write the file",) if node.status == "differs" else ()
    )
    if error is not None:
        return NodeOutcome(node.name, "untouched", changes, error.message, error.fix)
    if fate is not None and fate.stuck is not None:
        why, fix = _stuck(node.name, fate, fate.stuck)
        return NodeOutcome(node.name, "stuck", changes, why, fix, fate.log)
    if fate is not None and fate.error is not None:
        return NodeOutcome(node.name, fate.state, changes, fate.error.message, fate.error.fix, fate.log)
    if fate is not None:
        return NodeOutcome(node.name, fate.state, changes)
    if left_out is not None:
        return NodeOutcome(node.name, "left", changes, left_out.message, left_out.fix)
    if node.status == "new":
        return NodeOutcome(node.name, "left", changes, node.error, node.fix)
    if not changes:
        return NodeOutcome(node.name, "unchanged")
    return NodeOutcome(node.name, "planned" if planned else "untouched", changes)


def _stuck(name: str, fate: Fate, stuck: HyperMeshError) -> tuple[str, str]:
    """In which state it is, and what mends that."""
    why = f"{fate.error.message}; then " if fate.error else ""
    if fate.put_back and isinstance(stuck, Interrupted | Unreachable):
        again = f"{why}it got its previous file again, but its agent may run with the new settings: {stuck.message}"
        return again, "hmctl config diff shows what it runs with, once it can be reached"
    if fate.put_back:
        same = fate.error is not None and fate.error.message == stuck.message
        again = "the agent does not start with that, either" if same else stuck.message
        return f"{why}it got its previous file again, but {again}", f"hmctl logs {name}"
    by_hand = f"mv {layout.PREVIOUS} {layout.CONFIG} && systemctl restart {layout.UNIT}"
    return f"{why}its previous file could not be put back ({stuck.message}): it may run with the new settings", f"there, as root: {by_hand}"
