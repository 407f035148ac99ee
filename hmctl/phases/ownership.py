"""Whose is this host already? A host of another cluster, or of this one under another CA, is never touched. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hmcore import pki
from hmcore.config import yaml12
from hmcore.config.agent import AgentConfig, parse_agent_config
from hmcore.errors import ConfigError, PkiError
from hmctl.facts.gather import HostFacts
from hmctl.phases.electorate import NAME, moved
from hmctl.phases.validate import Check
from hmctl.state import OTHER_VOTERS_FIX, Place, other_voters
from hmctl.text import listed

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory


@dataclass(frozen=True, slots=True)
class Owner:
    """What the operator knows of the cluster: its CA's certificate (None: no CA here), bootstrap id, whether it was formed, and which
    control nodes were asked to form it (None: none yet)."""

    ca: bytes | None
    bootstrap: str | None
    formed: bool
    voters: tuple[Place, ...] | None = None


def examine(inventory: Inventory, owner: Owner, facts: Mapping[str, HostFacts]) -> list[Check]:
    """What forbids to go on, for every host that we could ask, whether it is to be changed now or not."""
    configs = {name: config_of(known) for name, known in facts.items()}
    checks = [check for name, known in facts.items() for check in _host(inventory, owner, known, configs[name])]
    if not checks:
        checks += [*_voters(inventory, owner, facts, configs), *_lost(inventory, owner, facts)]
    return checks


def _host(inventory: Inventory, owner: Owner, facts: HostFacts, config: AgentConfig | None) -> Iterator[Check]:
    agent, name = facts.agent, facts.name
    cluster = config.cluster_id if config else cluster_of(facts)
    if cluster is None:
        return
    if cluster != inventory.id:
        message = f"it belongs to another cluster, {cluster}; this inventory is {inventory.id}"
        yield Check(
            name, "cluster", "error", message, f"take it out of the inventory, or free it with the other one: hmctl reset --limit {name}"
        )
        return
    if owner.ca is None:
        message = (
            f"it belongs to this cluster already, but the cluster's CA is not on this machine; a second one would split {inventory.id}"
        )
        yield Check(name, "cluster", "error", message, "hmctl ca export FILE where the cluster was made, then here: hmctl ca import FILE")
    elif agent.ca is not None and not same_authority(agent.ca, owner.ca):
        message = "it trusts another CA than the one on this machine"
        yield Check(name, "cluster", "error", message, "hmctl ca import the one that the cluster was made with")
    elif agent.journal and config and owner.bootstrap is not None and config.bootstrap != owner.bootstrap:
        message = "it holds the state of an earlier cluster of this name, formed before a reset that it missed"
        yield Check(name, "cluster", "error", message, f"hmctl reset --limit {name}")


def _places(facts: Mapping[str, HostFacts], configs: Mapping[str, AgentConfig | None]) -> list[Place]:
    """Where the control nodes are by the files of those that hold a log: what an operator knows who keeps no record."""
    found = [config for name, config in configs.items() if config is not None and facts[name].agent.journal]
    return [Place(voter.name, voter.address, voter.port) for config in found for voter in config.voters]


def _voters(
    inventory: Inventory, owner: Owner, facts: Mapping[str, HostFacts], configs: Mapping[str, AgentConfig | None]
) -> Iterator[Check]:
    """While the cluster is being formed its control nodes are settled: another list would give it two majorities, from the moment when the
    first of them was asked on; whether they did form it may be more than we heard. Afterwards they change through its log
    (electorate.py), but for where they are.
    """
    if owner.formed:
        yield from moved(inventory, _places(facts, configs) if owner.voters is None else owner.voters)
        return
    wanted = {(host.name, host.address, host.port) for host in inventory.control_hosts}
    # a host's file may be older, from before anybody was asked
    if owner.voters is not None and wanted != {(voter.name, voter.address, voter.port) for voter in owner.voters}:
        yield Check(None, NAME, "error", other_voters(owner.voters), OTHER_VOTERS_FIX)


def _lost(inventory: Inventory, owner: Owner, facts: Mapping[str, HostFacts]) -> Iterator[Check]:
    """A formed cluster of which nothing is left: nodes without a journal would wait for it for ever."""
    control = sorted({host.name for host in inventory.control_hosts} | {place.name for place in owner.voters or ()})
    if owner.formed and control and all(name in facts and not facts[name].agent.journal for name in control):
        message = f"the cluster was formed before, but none of its control nodes holds its state any more ({listed(control)})"
        yield Check(None, "cluster", "error", message, "if that is so on purpose, hmctl reset; the next deploy then forms it anew")


def cluster_of(facts: HostFacts) -> str | None:
    """The id of the cluster that a host belongs to, by whichever of our files is there."""
    if facts.agent.config is not None:
        try:
            document = yaml12.load(facts.agent.config, "agent.yaml").value
        except ConfigError:
            document = None
        if isinstance(document, dict) and isinstance(found := document.get("cluster_id"), str):
            return found
    if facts.agent.ca is not None:
        try:
            return pki.read_authority(facts.agent.ca)
        except PkiError:
            return "of unknown name"
    return None


def config_of(facts: HostFacts) -> AgentConfig | None:
    """The host's present configuration, if it is one that this release understands."""
    if facts.agent.config is None:
        return None
    try:
        return parse_agent_config(facts.agent.config, "agent.yaml")
    except ConfigError:
        return None


def same_authority(one: bytes, other: bytes) -> bool:
    try:
        return pki.fingerprint(one) == pki.fingerprint(other)
    except PkiError:
        return False


def failed(checks: Sequence[Check]) -> bool:
    return any(check.status == "error" for check in checks)
