"""What our table holds by nft's own word, and the transactions that make of it what shall be. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from node_agent.network.ruleset import (
    REFUSED,
    SERVICE,
    TABLE,
    VERSION,
    Base,
    Service,
    chains,
    elements,
    fixed_chains,
    kind,
    members,
    refreshed,
    version,
    whole,
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the table holds. `answers`: by element, the chain that it leads to; empty: connections are refused. `chains`: the published
    ports', used or not. `rules`: their number, by chain, of any kind. `nodes`: see ruleset.Base."""

    version: str
    answers: Mapping[str, str]
    chains: frozenset[str]
    rules: Mapping[str, int] = field(default_factory=dict)
    nodes: frozenset[str] = frozenset()


def update(base: Base, services: Iterable[Service], loaded: Loaded | None) -> tuple[str, ...]:
    """The transactions that make of what is `loaded` (None: nothing) what shall be, to be carried out one by one; none if it is so.

    Connections that begin meanwhile find the old endpoints or the new ones. That takes three transactions: chains that are new, then the
    elements that lead to them, then chains that nothing leads to any more. Only where the table is not of our kind all of it is made anew.
    """
    wanted = {each.element: each for each in services}
    if loaded is None or _foreign(base, loaded):
        return (whole(base, wanted.values()),)
    fixed = refreshed(base, loaded.version) if _spoilt(base, loaded) else []
    nodes = [*members("delete", loaded.nodes - {*base.nodes}), *members("add", {*base.nodes} - loaded.nodes)]
    new = [each for each in wanted.values() if each.chain and each.chain not in loaded.chains]
    turned = {name: each.chain for name, each in wanted.items() if loaded.answers.get(name) != each.chain}
    left = {name: chain for name, chain in loaded.answers.items() if name in turned or name not in wanted}
    stale = sorted(loaded.chains - {each.chain for each in wanted.values()})
    steps = (
        [*fixed, *nodes, *chains(new)],
        [*elements("delete", left), *elements("add", turned)],
        [f"delete chain {TABLE} {name}" for name in stale],
    )
    return tuple("\n".join((*lines, "")) for lines in steps if lines)


def moved(services: Iterable[Service], loaded: Loaded | None) -> tuple[tuple[int, frozenset[str]], ...]:
    """UDP ports that lead elsewhere than they did, and the addresses that answer there from now on."""
    wanted = {each.element: each for each in services}
    before = {} if loaded is None else loaded.answers
    changed = {name for name in wanted.keys() | before.keys() if name not in wanted or before.get(name) != wanted[name].chain}
    ports = sorted({int(name.rpartition(" ")[2]) for name in changed if " . udp . " in f" . {name}"})
    answering = [(int(each.element.rpartition(" ")[2]), each.addresses) for each in wanted.values() if " . udp . " in f" . {each.element}"]
    return tuple((port, frozenset[str]().union(*(found for number, found in answering if number == port))) for port in ports)


def _foreign(base: Base, loaded: Loaded) -> bool:
    """Whether it is of another kind than ours, or somebody has put rules in places where none of ours are kept."""
    elsewhere = {chain: number for chain, number in loaded.rules.items() if chain not in _counts(base)}
    return not loaded.version.startswith(kind(base)) or elsewhere != dict.fromkeys(loaded.chains, 1)


def _spoilt(base: Base, loaded: Loaded) -> bool:
    """Whether the fixed chains' rules are others, or somebody has taken some out or put some in."""
    return loaded.version != version(base) or any(loaded.rules.get(chain, 0) != number for chain, number in _counts(base).items())


def _counts(base: Base) -> dict[str, int]:
    """Rules of the fixed chains."""
    return {chain.partition(" ")[0]: len(rules) for chain, rules in fixed_chains(base).items()}


def loaded_of(listing: object) -> Loaded | None:
    """What `nft -j list table ip hm_net` says. Total: from what is not as we write it comes another version, hence everything anew."""
    entries = listing.get("nftables") if isinstance(listing, dict) else None
    if not isinstance(entries, list):
        return None
    versions: list[str] = []
    services: set[str] = set()
    answers: dict[str, str] = {}
    rules: dict[str, int] = {}
    nodes: set[str] = set()
    for entry in entries:
        match entry:
            case {"chain": {"name": str(name)}} if name.startswith(VERSION):
                versions.append(name)
            case {"chain": {"name": str(name)}} if name.startswith(SERVICE):
                services.add(name)
            case {"rule": {"chain": str(name)}}:
                rules[name] = rules.get(name, 0) + 1
            case {"map": {"name": str(name), "elem": list(found)}} if name in REFUSED:
                answers |= dict(filter(None, map(_answer, found)))
            case {"set": {"name": "nodes", "elem": list(found)}}:
                nodes |= {each for each in found if isinstance(each, str)}
            case {"set": {"name": str(name), "elem": list(found)}} if name in REFUSED.values():
                answers |= {name: "" for name in map(_element, found) if name}
    return Loaded(versions[0] if len(versions) == 1 else "", answers, frozenset(services), rules, frozenset(nodes))


def _answer(element: object) -> tuple[str, str] | None:
    match element:
        case [key, {"goto": {"target": str(chain)}}] if name := _element(key):
            return name, chain
    return None


def _element(key: object) -> str:
    """As ruleset.Service has it; empty: it is none of ours."""
    match key:
        case {"concat": ["tcp" | "udp" as protocol, int(port)]}:
            return f"{protocol} . {port}"
        case {"concat": [str(address), "tcp" | "udp" as protocol, int(port)]}:
            return f"{address} . {protocol} . {port}"
    return ""
