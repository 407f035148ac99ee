"""Whether agent.yaml's list of voters can work with the one that this node was formed with (design section 4, docs/adr/0045). Pure.

Once the log has changed the voters (docs/adr/0069) the file says no more than where to look for a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable

from hmcore.errors import ConsensusError


def check(name: str, configured: Iterable[str], recorded: Iterable[str]) -> None:
    """`recorded` is empty before this node takes part in a formation: then the configured ones count.

    Raises ConsensusError where that cannot work: two lists within one cluster would be two majorities, so no other list is tried.
    """
    voters = tuple(sorted(set(recorded))) or tuple(sorted(set(configured)))
    if not recorded and name not in voters:
        message = f"{name} is none of the voters ({', '.join(voters)}), and these change only through the cluster's log"
        raise ConsensusError(message, host=name, fix=f"give {name} the role worker in the inventory, then: hmctl deploy")
    missing = sorted(set(voters) - set(configured))
    if missing and name in voters:
        message = f"agent.yaml does not name {', '.join(missing)}; the cluster was formed with the voters {', '.join(voters)}"
        raise ConsensusError(message, host=name, fix="give these the role control in the inventory, then: hmctl deploy")


def disregarded(configured: Iterable[str], voters: Iterable[str]) -> str | None:
    """What to say when agent.yaml names more voters than the cluster was formed with."""
    more = sorted(set(configured) - set(voters))
    if not more:
        return None
    return f"agent.yaml names other voters ({', '.join(more)}): the cluster's own list is used until the log changes it"
