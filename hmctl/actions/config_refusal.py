"""Whether config apply may begin: what cannot be rolled, a cluster that could not bear a restart, nodes that are not well. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hmcore.errors import HyperMeshError
from hmctl.actions.config_diff import ConfigDiff
from hmctl.actions.refusal import Refusal
from hmctl.phases.healthy import Verdict
from hmctl.text import listed, plural

if TYPE_CHECKING:
    from hmcore.config.inventory import Host


def not_well(diff: ConfigDiff, before: Verdict, hosts: Sequence[Host]) -> dict[str, HyperMeshError]:
    """Who is not as it must be before a cluster is touched, by name, whether it is to be changed or not."""
    down: dict[str, HyperMeshError] = {}
    for node in diff.nodes:
        if node.status in ("unreachable", "unreadable"):
            down[node.name] = HyperMeshError(node.error or node.status, host=node.name, fix=node.fix)
        elif node.running is False:
            fix = f"there, as root: systemctl start hypermesh-agent; hmctl logs {node.name} says why it stopped"
            down[node.name] = HyperMeshError("its agent does not run", host=node.name, fix=fix)
    fresh = {node.name for node in diff.nodes if node.status == "new"}
    for host in hosts:
        if host.name in before.waiting and host.name not in down.keys() | fresh:
            down[host.name] = HyperMeshError(before.waiting[host.name], host=host.name)
    return down


def refused(diff: ConfigDiff, before: Verdict, down: Mapping[str, HyperMeshError], *, idle: bool, skip: bool) -> HyperMeshError | None:
    """Why nothing is begun. `idle`: there is nothing to be done on any node that is well. `skip`: nodes that are down may be left out."""
    if diff.refusals:
        first: Refusal = diff.refusals[0]
        more = f" (and {plural(len(diff.refusals) - 1, 'more refusal')})" if len(diff.refusals) > 1 else ""
        return HyperMeshError(f"{first.path}: {first.message}{more}; nothing was changed", fix=first.fix)
    if all(node.status == "new" for node in diff.nodes):
        return HyperMeshError("no node runs yet", fix="hmctl deploy")
    if idle and not down:
        return None
    if before.leader is None:
        return HyperMeshError(
            "the cluster has no leader, so nothing was changed: there is no telling what a restart would cost", fix="hmctl status"
        )
    if skip:
        return None
    if down:
        return _for(diff, down)
    if diff.unasked and not idle:
        names = listed(list(diff.unasked))
        message = f"{names}, left out, cannot be asked for settings that the new ones must go with; nothing was changed"
        reasons = "; ".join(f"{name}: {reason}" for name, reason in diff.unasked.items())
        return HyperMeshError(f"{message} ({reasons})", fix=f"mend that; or vouch for {names}: --skip-unreachable")
    return None


def _for(diff: ConfigDiff, down: Mapping[str, HyperMeshError]) -> HyperMeshError:
    """For the sake of nodes that are not well."""
    if written := [node for node in diff.nodes if node.status == "unreadable" and node.drift]:
        message = f"no agent would start with the file of {listed([node.name for node in written])}; nothing was changed"
        return HyperMeshError(message, fix=f"{written[0].fix}; or leave it out: --skip-unreachable")
    shown = {node.name for node in diff.nodes}  # those stand with their nodes
    unseen = [f"{name}: {error.message}" for name, error in down.items() if name not in shown]
    reasons = f" ({'; '.join(unseen)})" if unseen else ""
    mend = next((error.fix for error in down.values() if error.fix), "hmctl status says more")
    verb, left = ("is", "leave it out") if len(down) == 1 else ("are", "leave them out")
    message = f"{listed(list(down))} {verb} not well{reasons}, and each restart costs one node more; nothing was changed"
    return HyperMeshError(message, fix=f"{mend}; or {left}: --skip-unreachable")
