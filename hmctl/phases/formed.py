"""What is known of the formation before anything is planned: the agents that run already were asked, where our own records say nothing.

An operator who left just after the cluster was formed has no record of it; and who may form it depends on who runs already.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hmcore.api import Formation
from hmcore.errors import HyperMeshError
from hmctl.text import listed, plural


@dataclass(frozen=True, slots=True)
class Known:
    """`formed`: by this bootstrap id. `running`: initial voters whose agents would take part."""

    formed: bool = False
    running: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Short:
    """Why these hosts can never form the cluster, and what would."""

    error: str
    fix: str


def known(bootstrap: str, answers: Mapping[str, Formation | HyperMeshError]) -> Known:
    """From the answers of agents. Pure."""
    ours = {name: said for name, said in answers.items() if isinstance(said, Formation) and said.bootstrap == bootstrap}
    return Known(any(said.formed for said in ours.values()), frozenset(ours))


def short(voters: Sequence[str], chosen: Collection[str], known: Known, limit: str) -> Short | None:
    """None, unless a majority of the initial voters is out of reach with this --limit. Pure."""
    needed = len(voters) // 2 + 1
    present = [name for name in voters if name in chosen or name in known.running]
    if known.formed or len(present) >= needed:
        return None
    absent = [name for name in voters if name not in present]
    error = (
        f"the cluster cannot be formed with --limit {limit}: that takes a majority, {needed} of its {plural(len(voters), 'control node')}, "
        f"and {listed(absent)} would be missing; nothing was changed"
    )
    return Short(error, f"without --limit, or with at least {needed - len(present)} more of {listed(absent)}")
