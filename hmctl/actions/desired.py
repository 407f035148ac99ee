"""What each host shall look like, from the inventory, the operator's store and the host's own facts. Pure but for the templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from hmcore import pki
from hmcore.config.agent import agent_config_for
from hmctl.bundle.build import Target as ReleaseTarget
from hmctl.bundle.store import Release
from hmctl.facts.gather import HostFacts
from hmctl.phases.base import Desired, Target
from hmctl.phases.certificates import needed
from hmctl.phases.packages import to_install
from hmctl.render import Renderer

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, Inventory


@dataclass(frozen=True, slots=True)
class Keys:
    """`ca`: the CA's certificate, None while there is no CA (a dry run makes none)."""

    ca: bytes | None
    bootstrap: str


def release_target(facts: HostFacts) -> ReleaseTarget:
    """What kind of release a host needs. Only for hosts that passed preflight."""
    if facts.python is None:
        raise ValueError(f"{facts.name} passed preflight without Python")
    return ReleaseTarget(facts.python.minor, facts.system.arch)


def targets(
    inventory: Inventory,
    hosts: Sequence[Host],
    facts: Mapping[str, HostFacts],
    releases: Mapping[ReleaseTarget, Release],
    keys: Keys,
    renderer: Renderer,
    now: datetime,
) -> list[Target]:
    """A target for every host that we know the facts of."""
    return [
        Target(host, facts[host.name], _desired(inventory, host, facts[host.name], releases, keys, renderer, now))
        for host in hosts
        if host.name in facts
    ]


def _desired(
    inventory: Inventory,
    host: Host,
    facts: HostFacts,
    releases: Mapping[ReleaseTarget, Release],
    keys: Keys,
    renderer: Renderer,
    now: datetime,
) -> Desired:
    config = agent_config_for(inventory, host, keys.bootstrap)
    python = facts.python.executable if facts.python else ""
    return Desired(
        release=releases[release_target(facts)],
        config=renderer.agent_yaml(config),
        unit=renderer.unit(config, python),
        wrapper=renderer.wrapper(python, host.name),
        ca=keys.ca or b"",
        certificate=needed(facts.agent, keys.ca, pki.Identity(inventory.id, pki.Kind.NODE, host.name), now),
        fence=renderer.fence(python, host.name),
        packages=to_install(facts) if inventory.packages == "install" else (),
    )
