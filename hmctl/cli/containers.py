"""What is said of containers that nothing was told of."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from hmctl.output import Output

if TYPE_CHECKING:
    from hmctl.actions.agents import Agents

COUNTED = (
    "of containers, those are watched that bear the cluster's id as their label hypermesh.cluster and run below its cgroup (see README.md)"
)
_ID = 12  # characters of a container's id that name it


async def warn_of_unknown(output: Output, agents: Agents, name: str, told: Collection[str] = ()) -> None:
    """Says so when no container is called `name`: not in the registry, nor among `told` (NODE/NAME). When nobody can tell, it is silent."""
    from hmcore.errors import HyperMeshError
    from hmctl.actions.service import ask

    try:
        registered = {instance.id for instance in (await ask(agents)).reply.instances if not instance.service.startswith("hypermesh/")}
    except HyperMeshError:
        return
    said = unknown(name, registered | set(told))
    if said is not None:
        output.warn(said[0], fix=said[1])


def unknown(name: str, known: Collection[str]) -> tuple[str, str | None] | None:
    """What to say of `name` (NAME, NODE/NAME, an id, or a pattern) when it is none of the `known` containers, and what is near it."""
    from difflib import get_close_matches

    names = set(known) if "/" in name else {each.partition("/")[2] for each in known}
    if any(fnmatchcase(each, name) for each in names):
        return None
    if len(name) >= _ID and all(letter in "0123456789abcdef" for letter in name):
        return f"no container with the id {name} has been heard of", "hmctl service ls --all"
    near = get_close_matches(name, names, n=3) or sorted(each for each in known if each.partition("/")[2] == name.partition("/")[2])[:3]
    return f"no container is known that is called {name}", f"did you mean {' or '.join(near)}?" if near else "hmctl service ls --all"
