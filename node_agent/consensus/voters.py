"""Whose votes count: the list that this node was formed with, whatever agent.yaml says by now (design section 4, docs/adr/0045). Pure."""

from __future__ import annotations

from collections.abc import Iterable

from hmcore.errors import ConsensusError


def in_use(name: str, configured: Iterable[str], recorded: Iterable[str]) -> tuple[str, ...]:
    """The voters to run with. `recorded` is empty before this node takes part in a formation: then they are the configured ones.

    Raises ConsensusError where that cannot work: two lists within one cluster would be two majorities, so no other list is tried.
    """
    voters = tuple(sorted(set(recorded))) or tuple(sorted(set(configured)))
    if name not in voters:
        message = f"{name} is none of the voters ({', '.join(voters)}), and these change only through the cluster's log"
        raise ConsensusError(message, host=name, fix=f"give {name} the role worker in the inventory, then: hmctl deploy")
    missing = sorted(set(voters) - set(configured))
    if missing:
        message = f"agent.yaml does not name {', '.join(missing)}; the cluster was formed with the voters {', '.join(voters)}"
        raise ConsensusError(message, host=name, fix="give these the role control in the inventory, then: hmctl deploy")
    return voters


def disregarded(configured: Iterable[str], voters: Iterable[str]) -> str | None:
    """What to say when agent.yaml names more voters than there are."""
    more = sorted(set(configured) - set(voters))
    if not more:
        return None
    return f"agent.yaml names other voters ({', '.join(more)}): the cluster's own list is used until membership changes go through the log"
