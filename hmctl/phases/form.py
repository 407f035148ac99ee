"""Form the cluster, once in its life: a majority of the initial voters, together, under one bootstrap id (design section 4).

What makes a second cluster impossible: hmctl never sends `form` once its records say that the cluster was formed; nor when any voter
says so; nor to less than a majority; nor, once it was sent, with other voters (docs/adr/0045); and a node that hears of a formed cluster
never votes on an empty journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hmcore.api import Formation, FormRequest
from hmcore.errors import FormationFailed, HyperMeshError
from hmctl.phases.agents import Agents
from hmctl.text import listed, plural

if TYPE_CHECKING:
    from hmcore.config.inventory import Host

_PATIENCE = 5.0  # seconds for one round of questions


@dataclass(frozen=True, slots=True)
class AlreadyFormed:
    """Nothing to do but to remember it."""


@dataclass(frozen=True, slots=True)
class Form:
    """Send `form` to these voters."""

    voters: tuple[str, ...]


def decide(voters: Sequence[str], bootstrap: str, answers: Mapping[str, Formation | HyperMeshError]) -> AlreadyFormed | Form:
    """What the answers of the initial voters allow. Pure. Raises FormationFailed, with what is in the way."""
    known = {name: answer for name, answer in answers.items() if isinstance(answer, Formation)}
    foreign = sorted(name for name, answer in known.items() if answer.bootstrap != bootstrap and (answer.formed or answer.permitted))
    if foreign:
        raise FormationFailed(
            f"{listed(foreign)} took part in another formation of this cluster; nothing was formed",
            fix=f"if that one is to be given up: hmctl reset --limit {foreign[0]}",
        )
    bound = {name: answer for name, answer in known.items() if (answer.formed or answer.permitted) and answer.voters}
    for name, answer in sorted(bound.items()):
        if set(answer.voters) != set(voters):
            raise FormationFailed(
                f"{name} takes part in forming this cluster with the control nodes {listed(answer.voters)}; nothing was formed",
                fix="give these, and no others, the role control in the inventory; or `hmctl reset` all of them",
            )
    if any(answer.formed and answer.bootstrap == bootstrap for answer in known.values()):
        return AlreadyFormed()
    ours = {name: answer for name, answer in known.items() if answer.bootstrap == bootstrap and set(answer.voters) == set(voters)}
    needed = len(voters) // 2 + 1
    if len(ours) < needed:
        absent = [name for name in voters if name not in ours]
        raise FormationFailed(
            f"the cluster is not formed: {len(ours)} of its {plural(len(voters), 'control node')} answered, and {needed} must. "
            f"Missing: {listed(absent)}; nothing is lost, and nothing was formed",
            fix="when they can be reached: hmctl deploy",
        )
    return Form(tuple(name for name in voters if name in ours))


async def form(hosts: Sequence[Host], bootstrap: str, agents: Agents, begin: Callable[[], None], mark: Callable[[], None]) -> str:
    """Asks the initial voters, and has them form. `begin` records, before any of them is told, that these may form the cluster and no
    others; `mark` that the cluster exists. What was done, in words.

    Raises FormationFailed. Interrupted anywhere, running it again goes on: `form` is the same for who has heard it before.
    """
    answers = await agents.formation(hosts, timeout=_PATIENCE)
    match decide([host.name for host in hosts], bootstrap, answers):
        case AlreadyFormed():
            begin()
            mark()
            return "it was formed before"
        case Form(voters):
            chosen = [host for host in hosts if host.name in voters]
            begin()
            request = FormRequest(bootstrap=bootstrap, voters=[host.name for host in hosts])
            told = await agents.form(chosen, request, timeout=_PATIENCE)
            took = [name for name, answer in told.items() if isinstance(answer, Formation)]
            if len(took) < len(hosts) // 2 + 1:
                reasons = "; ".join(str(answer) for answer in told.values() if isinstance(answer, HyperMeshError))
                raise FormationFailed(f"only {listed(took)} of {plural(len(hosts), 'control node')} agreed: {reasons}", fix="hmctl deploy")
            return f"by {listed(took)}"
