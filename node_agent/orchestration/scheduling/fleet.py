"""The candidates of one plan, and what does not change while it is made: who runs anything, satisfies a constraint, has an image.

Nodes are numbered in the order of a stable hash of their names: a circle, on which every service begins elsewhere. So equally good nodes
are not all taken in the same order, and the answer depends on no order in which anything was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from hashlib import blake2b

from hmcore.apps.constraints import Constraint, Key, parse, parse_key
from hmcore.errors import UsageError
from node_agent.orchestration.scheduling.bits import bits
from node_agent.orchestration.scheduling.model import Candidate
from node_agent.orchestration.scheduling.needs import Needs

Path = tuple[int, ...]  # the branches that a node is on, the most important label's first

_NONE: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Pool:
    """Numbers of nodes: in order, as a set, and in bits (bits.py)."""

    order: tuple[int, ...]
    members: frozenset[int]
    bits: int


class Fleet:
    def __init__(self, candidates: Iterable[Candidate]) -> None:
        named = {candidate.name: candidate for candidate in candidates}
        self.candidates = tuple(named[name] for name in sorted(named, key=lambda name: (_hash(name), name)))
        self.numbers: Mapping[str, int] = {candidate.name: number for number, candidate in enumerate(self.candidates)}
        self.by_name = tuple(self.numbers[name] for name in sorted(self.numbers))
        self._all = frozenset(self.numbers.values())
        self.open = frozenset(n for n, each in enumerate(self.candidates) if each.open)
        self._images: dict[str, set[int]] = {}
        for number, candidate in enumerate(self.candidates):
            for image in candidate.images:
                self._images.setdefault(image, set()).add(number)
        self._images_bits: dict[str, int] = {}
        self._volumes: dict[str, set[int]] | None = None
        self._circle = list(range(len(self.candidates))) * 2
        self._answers: dict[Key, dict[str, frozenset[int]]] = {}
        self._pools: dict[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], Pool] = {}
        self._paths: dict[tuple[str, ...], list[Path]] = {}
        self._parts: dict[tuple[str, ...], dict[Path, list[int]]] = {}
        self._branches: dict[tuple[str, ...], dict[int, int]] = {}

    def __len__(self) -> int:
        return len(self.candidates)

    def name(self, number: int) -> str:
        return self.candidates[number].name

    def start(self, app: str, service: str) -> int:
        """Where on the circle a service begins."""
        return _hash(f"{app}/{service}") % len(self.candidates)

    def ranks(self, start: int) -> list[int]:
        """How far each node is from there, by number."""
        size = len(self.candidates)
        return self._circle[size - start : 2 * size - start]

    def having(self, image: str) -> Set[int]:
        return self._images.get(image, _NONE)

    def bits_having(self, image: str) -> int:
        """The same in bits."""
        found = self._images_bits.get(image)
        if found is None:
            found = self._images_bits[image] = bits(self.having(image), len(self))
        return found

    def holding(self, volume: str) -> Set[int]:
        """Where a volume of that name (Docker's) is."""
        if self._volumes is None:
            self._volumes = {}
            for number, candidate in enumerate(self.candidates):
                for name in candidate.volumes:
                    self._volumes.setdefault(name, set()).add(number)
        return self._volumes.get(volume, _NONE)

    def usable(self, needs: Needs) -> Pool:
        """Who passes all filters that depend on nothing that is placed."""
        asked = needs.constraints, needs.external, needs.shunned
        pool = self._pools.get(asked)
        if pool is None:
            members = self.open.difference(self.numbers[name] for name in needs.shunned if name in self.numbers)
            for text in needs.constraints:
                members &= self.satisfying(text)
            if needs.external:
                members = frozenset(number for number in members if self.candidates[number].volumes.issuperset(needs.external))
            pool = self._pools[asked] = Pool(tuple(sorted(members)), members, bits(members, len(self)))
        return pool

    def satisfying(self, constraint: str) -> frozenset[int]:
        """Nobody, where the constraint cannot be understood."""
        try:
            asked: Constraint = parse(constraint)
        except UsageError:
            return frozenset()
        found = self._by(asked.key).get(asked.value, frozenset())
        return found if asked.equal else self._all - found

    def paths(self, spread: tuple[str, ...]) -> list[Path]:
        """The branches of each node, by number. Nodes without a label are on one together; what is no label tells no nodes apart."""
        paths = self._paths.get(spread)
        if paths is None:
            columns = [self._column(text) for text in spread]
            known: dict[tuple[str, ...], int] = {}
            paths = self._paths[spread] = []
            for number in range(len(self.candidates)):
                values = tuple(column[number] for column in columns)
                paths.append(tuple(known.setdefault(values[: level + 1], len(known)) for level in range(len(values))))
        return paths

    def parts(self, spread: tuple[str, ...]) -> dict[Path, list[int]]:
        """The nodes of each last branch."""
        parts = self._parts.get(spread)
        if parts is None:
            parts = self._parts[spread] = {}
            for number, path in enumerate(self.paths(spread)):
                parts.setdefault(path, []).append(number)
        return parts

    def branches(self, spread: tuple[str, ...]) -> dict[int, int]:
        """The nodes of each branch, in bits (bits.py)."""
        branches = self._branches.get(spread)
        if branches is None:
            members: dict[int, list[int]] = {}
            for number, path in enumerate(self.paths(spread)):
                for branch in path:
                    members.setdefault(branch, []).append(number)
            branches = self._branches[spread] = {branch: bits(there, len(self)) for branch, there in members.items()}
        return branches

    def _column(self, text: str) -> list[str]:
        try:
            key = parse_key(text)
        except UsageError:
            return [""] * len(self.candidates)
        return [key.of(each.node, each.platform) for each in self.candidates]

    def _by(self, key: Key) -> dict[str, frozenset[int]]:
        """Who answers what."""
        answers = self._answers.get(key)
        if answers is None:
            found: dict[str, set[int]] = {}
            for number, each in enumerate(self.candidates):
                found.setdefault(key.of(each.node, each.platform), set()).add(number)
            answers = self._answers[key] = {value: frozenset(numbers) for value, numbers in found.items()}
        return answers


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
