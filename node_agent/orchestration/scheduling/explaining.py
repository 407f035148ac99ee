"""Why a replica has no place: the filters one after the other, and what each removed. Only asked when none is left, and said once for
all that ask for the same at the same moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial

from msgspec.structs import replace

from hmcore.apps.constraints import parse
from hmcore.apps.explanation import MOST_NAMED, Explanation, Filter, Removal
from hmcore.apps.ports import Number
from hmcore.apps.spec import Resources
from hmcore.errors import UsageError
from node_agent.orchestration.scheduling.fleet import Fleet
from node_agent.orchestration.scheduling.ledger import Ledger
from node_agent.orchestration.scheduling.needs import Needs, Service

_because = partial(Removal, removed=0, of=0)  # its nodes are counted later


class Explainer:
    """Of one plan."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._fixed: dict[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], Sieve] = {}
        self._said: dict[tuple[Needs, int, str, Service | None], Explanation] = {}

    def explain(self, service: Service, needs: Needs, homes: Mapping[str, str], node: str = "") -> Explanation:
        """Why nothing more of the service fits anywhere (or on `node`)."""
        own = bool(needs.max_per_node or needs.taken or needs.published)  # what it says depends on which service asks
        asked = needs, self._ledger.version, node, service if own else None
        said = self._said.get(asked)
        if said is None:
            said = self._said[asked] = self._explain(service, needs, homes, node)
        return said

    def _explain(self, service: Service, needs: Needs, homes: Mapping[str, str], node: str) -> Explanation:
        fleet = self._ledger.fleet
        sieve = Sieve(fleet, fleet.by_name if not node else [fleet.numbers[node]] if node in fleet.numbers else ())
        if rival := self._ledger.rival(service, needs):
            port, owner = rival
            sieve.drop(sieve.left, _because(filter=Filter.PUBLISHED, what=_written(port), owner="/".join(owner)))
            return sieve.explanation()
        if node:
            sift_fixed(sieve, needs)
        else:
            sieve = self._everywhere(needs)
        sift_rest(sieve, self._ledger, service, needs, homes)
        return sieve.explanation()

    def _everywhere(self, needs: Needs) -> Sieve:
        asked = needs.constraints, needs.external, needs.shunned
        if asked not in self._fixed:
            sieve = self._fixed[asked] = Sieve(self._ledger.fleet, self._ledger.fleet.by_name)
            sift_fixed(sieve, needs)
        return self._fixed[asked].copy()


class Sieve:
    """`left`: the numbers of the nodes that have passed so far, by name."""

    def __init__(self, fleet: Fleet, numbers: Iterable[int]) -> None:
        self.fleet = fleet
        self.left = list(numbers)
        self._nodes = len(self.left)
        self._removals: tuple[Removal, ...] = ()

    def copy(self) -> Sieve:
        again = Sieve(self.fleet, self.left)
        again._nodes, again._removals = self._nodes, self._removals
        return again

    def drop(self, gone: list[int], why: Removal) -> None:
        """`gone`, some of those left, did not pass. Their number and names are filled in here."""
        if gone:
            names = tuple(self.fleet.name(number) for number in gone[:MOST_NAMED])
            self._removals += (replace(why, removed=len(gone), of=len(self.left), nodes=names),)
            without = set(gone)
            self.left = [number for number in self.left if number not in without]

    def explanation(self) -> Explanation:
        return Explanation(nodes=self._nodes, fit=len(self.left), removals=self._removals)


def nowhere(fleet: Fleet, needs: Needs, homes: Mapping[str, str]) -> Explanation | None:
    """Why no node could take one of these, were all of them there and empty. None: one could, or has not told yet what it has."""
    candidates = fleet.candidates
    if any(each.capacity == Resources() for each in candidates):
        return None
    sieve = Sieve(fleet, fleet.by_name)
    _sift_lasting(sieve, needs)
    _sift_homes(sieve, needs, homes)
    _sift_room(sieve, Filter.CPUS, needs.cpus, [each.capacity.cpus for each in candidates])
    _sift_room(sieve, Filter.MEMORY, needs.memory, [each.capacity.memory for each in candidates])
    return None if sieve.left else sieve.explanation()


def sift_fixed(sieve: Sieve, needs: Needs) -> None:
    """What depends on nothing that is placed."""
    candidates = sieve.fleet.candidates
    gone = [number for number in sieve.left if candidates[number].obstacle]
    states = Counter(candidates[number].obstacle for number in gone)
    sieve.drop(gone, _because(filter=Filter.READY, states=dict(sorted(states.items()))))
    sieve.drop([number for number in sieve.left if sieve.fleet.name(number) in needs.shunned], _because(filter=Filter.STUCK))
    _sift_lasting(sieve, needs)


def _sift_lasting(sieve: Sieve, needs: Needs) -> None:
    """What a node is told to be, and what it has."""
    candidates = sieve.fleet.candidates
    sieve.drop([number for number in sieve.left if not candidates[number].apps], _because(filter=Filter.ROLE))
    for text in needs.constraints:
        satisfying = sieve.fleet.satisfying(text)
        sieve.drop(
            [number for number in sieve.left if number not in satisfying],
            _because(filter=Filter.CONSTRAINT, what=text, error=_mistake(text)),
        )
    for name in needs.external:
        sieve.drop([number for number in sieve.left if name not in candidates[number].volumes], _because(filter=Filter.VOLUME, what=name))


def sift_rest(sieve: Sieve, ledger: Ledger, service: Service, needs: Needs, homes: Mapping[str, str]) -> None:
    """What depends on what is placed."""
    _sift_homes(sieve, needs, homes)
    if most := needs.max_per_node:
        present = ledger.present(service)
        sieve.drop([number for number in sieve.left if present.get(number, 0) >= most], _because(filter=Filter.MAX_PER_NODE, wanted=most))
    for taken in needs.taken:
        users = ledger.users(taken)
        sieve.drop([number for number in sieve.left if number in users], _because(filter=Filter.PORT, what=_written(taken[0])))
    _sift_room(sieve, Filter.CPUS, needs.cpus, ledger.room.free_cpus)
    _sift_room(sieve, Filter.MEMORY, needs.memory, ledger.room.free_memory)


def _sift_homes(sieve: Sieve, needs: Needs, homes: Mapping[str, str]) -> None:
    for volume in needs.bound:
        if home := homes.get(volume):
            gone = [number for number in sieve.left if sieve.fleet.name(number) != home]
            sieve.drop(gone, _because(filter=Filter.VOLUME, what=volume, owner=home))


def _sift_room(sieve: Sieve, by: Filter, wanted: int, free: list[int]) -> None:
    gone = [number for number in sieve.left if free[number] < wanted] if wanted else []
    if gone:
        best = max(gone, key=free.__getitem__)  # of equal ones the first by name
        sieve.drop(gone, _because(filter=by, wanted=wanted, most=max(0, free[best]), best=sieve.fleet.name(best) if free[best] > 0 else ""))


def _mistake(constraint: str) -> str:
    try:
        parse(constraint)
    except UsageError as error:
        return error.message
    return ""


def _written(port: Number) -> str:
    return f"{port[0]}/{port[1]}"
