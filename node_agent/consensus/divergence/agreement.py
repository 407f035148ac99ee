"""Do all hold the same state? Each control node tells hashes of its own at log indexes, all compare at equal index (docs/adr/0075). Pure.

Two are told: of the latest index, where an idle cluster meets, and of the latest checkpoint, where a busy one does. The hash is also of all
that was answered and recorded before; a record that was wrong, and was overwritten on all nodes before anybody compared, is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from node_agent.consensus.statemachine.checkpoints import Claim

KEPT_OF_OTHERS = 16  # of each


@dataclass(frozen=True, slots=True)
class Odd:
    """At log index `index` a majority of the voters, `others`, hold the state of hash `agreed`, and `node` another."""

    node: str
    index: int
    hash: str
    agreed: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """At log index `index` there are several states, and no majority for any. `sides`: each hash, and who holds it."""

    index: int
    sides: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    odd: tuple[Odd, ...] = ()
    split: Split | None = None


def judge(told: Mapping[str, Mapping[int, str]], voters: Sequence[str], learners: Iterable[str] = ()) -> Judgement:
    """Who holds another state than the majority of `voters`, by what each has `told`: hashes by index. Of a node the latest index that can
    be judged counts: it may have taken the others' state since."""
    quorum = len(voters) // 2 + 1
    names = sorted({*voters, *learners})
    agreed: dict[int, tuple[str, tuple[str, ...]]] = {}
    torn: dict[int, dict[str, tuple[str, ...]]] = {}
    for index in {index for name in names for index in told.get(name, ())}:
        sides: dict[str, tuple[str, ...]] = {}
        for name in sorted(voters):
            if (said := told.get(name, {}).get(index)) is not None:
                sides[said] = (*sides.get(said, ()), name)
        largest = max(sides, key=lambda side: len(sides[side]), default="")
        if sides and len(sides[largest]) >= quorum:
            agreed[index] = largest, sides[largest]
        elif len(sides) > 1:
            torn[index] = sides
    odd = tuple(found for name in names if (found := _odd(name, told.get(name, {}), agreed)) is not None)
    return Judgement(odd, _split(torn, agreed, {found.node for found in odd}))


def _odd(name: str, told: Mapping[int, str], agreed: Mapping[int, tuple[str, tuple[str, ...]]]) -> Odd | None:
    """Since when the node differs, as far back as that is known."""
    found: Odd | None = None
    for index in sorted(told.keys() & agreed.keys(), reverse=True):
        theirs, others = agreed[index]
        if told[index] == theirs:
            break
        found = Odd(name, index, told[index], theirs, others)
    return found


def _split(torn: Mapping[int, Mapping[str, tuple[str, ...]]], agreed: Iterable[int], odd: set[str]) -> Split | None:
    """The latest index at which those who are not known to be odd differ, unless a majority has agreed behind it."""
    since = max(agreed, default=0)
    for index in sorted(torn, reverse=True):
        sides = {said: names for said, names in torn[index].items() if set(names) - odd}
        if index > since and len(sides) > 1:
            return Split(index, tuple(sorted(torn[index].items())))
    return None


class Ledger:
    """What was told lately, by whom."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._told: dict[str, dict[int, str]] = {}
        self._last: dict[str, tuple[Claim, ...]] = {}

    def hear(self, name: str, claims: Iterable[Claim]) -> bool:
        """Returns whether it is news."""
        said = tuple(claims)
        if self._last.get(name) == said:
            return False
        self._last[name] = said
        told = self._told.setdefault(name, {})
        for index, hash_ in said:
            told.pop(index, None)
            told[index] = hash_
        for forgotten in list(islice(told, max(0, len(told) - KEPT_OF_OTHERS))):
            del told[forgotten]
        return True

    def judge(self, own: Mapping[int, str], voters: Sequence[str], learners: Iterable[str] = ()) -> Judgement:
        """`own`: the hashes that we hold ourselves; of ours, they count wherever another has told one."""
        others = {name: told for name, told in self._told.items() if name != self._me}
        indexes = {index for told in others.values() for index in told}
        mine = {index: own[index] for index in indexes if index in own}
        return judge({**others, self._me: mine}, voters, learners)
