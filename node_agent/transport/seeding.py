"""Which node to take content from, and which nodes shall have it. Pure.

Ties are broken by rendezvous hashing (Thaler and Ravishankar, 1998), with the taker in it: each node has an order of its own, so that many
who want the same spread over all who have it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from hashlib import blake2b

COPIES = 3  # nodes that keep an image, whether they run it or not: two may die


@dataclass(frozen=True, slots=True)
class Search:
    """For one content, by the node `me`. `holders`: those of whom it is said that they have it. `missed`: those that have it not, or could
    not be reached, or sent something else. `busy`: those that had too much to do, for now."""

    me: str
    digest: str
    holders: AbstractSet[str] = frozenset()
    missed: Mapping[str, str] = field(default_factory=dict)  # and why
    busy: AbstractSet[str] = frozenset()

    def choose(self, nodes: Iterable[str], loads: Mapping[str, int]) -> str | None:
        """Whom to ask now; None: nobody is left but those that are busy, if any. `loads`: contents that we take from each just now.

        Those that are said to have it come first; of these, whom we take the least from.
        """
        open_to_us = [node for node in nodes if node != self.me and node not in self.missed and node not in self.busy]
        return min(
            open_to_us,
            key=lambda node: (node not in self.holders, loads.get(node, 0), _rank(self.me, self.digest, node)),
            default=None,
        )


def keepers(image: str, nodes: Collection[str], copies: int = COPIES) -> frozenset[str]:
    """Of `nodes`, those that shall keep the image with this id: the same everywhere, and for as long as possible when nodes come and go."""
    return frozenset(sorted(nodes, key=lambda node: _rank("", image, node))[:copies])


def _rank(me: str, digest: str, node: str) -> bytes:
    return blake2b(f"{me}\n{digest}\n{node}".encode(), digest_size=16).digest()
