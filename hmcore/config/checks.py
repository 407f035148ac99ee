"""What must fit together in an inventory although each part is fine by itself. Pure: hosts in, mistakes and warnings out."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from hmcore.config import hostspec
from hmcore.config.presets import Preset
from hmcore.config.problems import FromEnvironment, Mistake, spell
from hmcore.config.settings import Settings
from hmcore.config.targets import Draft, SshTarget
from hmcore.records import Role

SSH_PORT = 22
MOST_CONTROL_NODES = 5


def check_hosts(drafts: Sequence[Draft], preset: Preset | None, settings: Settings, *, complete: bool) -> list[Mistake]:
    """Duplicates, ports, and roles. `complete` is False when something is wrong with hosts themselves: then nothing is said about counts,
    nor when the `preset` is not known."""
    wrong = [*_duplicates(drafts), *_ports(drafts, settings)]
    if len(drafts) > 1 or not complete:
        wrong += _loopback(drafts)
    if complete and drafts and preset is not None:
        wrong += _control_nodes(drafts, preset)
    if complete and drafts:
        wrong += _apps(drafts)
    return wrong


def check_secrets(value: dict[str, Any]) -> Iterator[Mistake]:
    """A warning for each password that stands in the document itself. `value` is the document as written."""
    hosts = value.get("hosts")
    owners = [((), value), *((("hosts", index), host) for index, host in enumerate(hosts if isinstance(hosts, list) else []))]
    for place, owner in owners:
        ssh = owner.get("ssh") if isinstance(owner, dict) else None
        password = ssh.get("sudo_password") if isinstance(ssh, dict) else None
        if isinstance(password, str) and not isinstance(password, FromEnvironment):
            message = "everyone who can read this file can read the password"
            yield Mistake((*place, "ssh", "sudo_password"), message, "sudo_password: ${SUDO_PASSWORD}", warning=True)


def check_metrics(settings: Settings) -> Iterator[Mistake]:
    """Warnings for figures that strangers can read, and for an address that only one of the nodes can have."""
    metrics = settings.metrics
    address = ipaddress.ip_address(metrics.address)
    if not address.is_loopback and not address.is_unspecified:
        message = f"a node that does not have the address {address} cannot serve its metrics"
        hint = "127.0.0.1, or 0.0.0.0 for all addresses of a node (::, for IPv6, too)"
        yield Mistake(("settings", "metrics", "address"), message, hint, warning=True)
    if metrics.tls == "off" and not address.is_loopback:
        message = f"whoever reaches TCP port {metrics.port} of a node can read its metrics"
        yield Mistake(("settings", "metrics", "address"), message, "settings.metrics.tls: mutual", warning=True)


DOCKER = ipaddress.IPv4Network("172.17.0.0/16")  # of its own bridge, unless it is told otherwise


def check_network(drafts: Sequence[Draft], settings: Settings) -> Iterator[Mistake]:
    """Addresses that hosts and containers cannot both have, and subnets that are too few."""
    network = settings.network
    whole = ipaddress.IPv4Network(network.cidr)
    place = ("settings", "network", "cidr")
    for draft in drafts:
        ip = hostspec.as_ip(draft.host.address)
        if isinstance(ip, ipaddress.IPv4Address) and ip in whole:
            message = f"{ip} is in settings.network.cidr ({whole}), whose addresses are the containers'"
            yield Mistake((*draft.place, "address"), message, "another settings.network.cidr, that is in use nowhere")
        if draft.host.port == network.vxlan_port != settings.transport.port:  # else the settings are at fault, and say so
            message = f"port {draft.host.port} is settings.network.vxlan_port"
            yield Mistake((*draft.place, "port"), message, "another port here, or another settings.network.vxlan_port")
    if network.subnet_prefix >= whole.prefixlen and len(drafts) > (room := 1 << (network.subnet_prefix - whole.prefixlen)):
        message = f"{whole} has room for {room} subnets of /{network.subnet_prefix}, there are {len(drafts)} hosts"
        yield Mistake(place, message, "a larger network, or a longer settings.network.subnet_prefix")
    if whole.overlaps(DOCKER):
        message = f"{whole} overlaps with {DOCKER}, which Docker takes for itself unless it is told otherwise"
        yield Mistake(place, message, "a network that is in use nowhere, such as 10.77.0.0/16", warning=True)


def _duplicates(drafts: Sequence[Draft]) -> Iterator[Mistake]:
    yield from _repeated(drafts, "name", lambda draft: draft.host.name, "two nodes cannot share a name; write name: in the longer form")
    yield from _repeated(drafts, "address", lambda draft: draft.host.address, "one machine is one node")
    apart = [draft for draft in drafts if draft.host.ssh.address != draft.host.address]
    yield from _repeated(apart, "ssh.address", lambda draft: _endpoint(draft.host.ssh), "two hosts cannot be behind one SSH endpoint")


def _repeated(drafts: Sequence[Draft], what: str, key: Callable[[Draft], Hashable], hint: str) -> Iterator[Mistake]:
    first: dict[Hashable, Draft] = {}
    for draft in drafts:
        earlier = first.setdefault(key(draft), draft)
        if earlier is not draft:
            value = {"name": draft.host.name, "address": draft.host.address}.get(what, str(draft.host.ssh))
            message = f"{value} is already used by {spell(earlier.place)}"
            if what == "address" and draft.host.port != earlier.host.port:
                message += f"; another port ({draft.host.port} beside {earlier.host.port}) does not make it another machine"
            yield Mistake((*draft.place, *what.split(".")), message, hint)


def _endpoint(target: SshTarget) -> Hashable:
    """What tells machines apart to SSH: behind different bastions the same private address is a different machine."""
    return target.address, target.port or SSH_PORT, str(target.bastion)


def _ports(drafts: Sequence[Draft], settings: Settings) -> Iterator[Mistake]:
    metrics = settings.metrics.port
    for draft in drafts:
        host = draft.host
        if host.ssh.address == host.address and host.port == (host.ssh.port or SSH_PORT):
            message = f"port {host.port} is where this host's SSH server listens"
            yield Mistake(
                (*draft.place, "port"), message, "another port for the agent (default 7443): port: here, or settings.transport.port"
            )
        if host.port == metrics != settings.transport.port:  # else the settings are at fault, and say so
            message = f"port {host.port} is settings.metrics.port: the agent's TCP port is for bulk content"
            yield Mistake((*draft.place, "port"), message, "another port here, or another settings.metrics.port")
        if host.ssh.address == host.address and metrics == (host.ssh.port or SSH_PORT):
            message = f"port {metrics}, settings.metrics.port, is where this host's SSH server listens"
            yield Mistake(draft.place, message, "another settings.metrics.port")


def _loopback(drafts: Sequence[Draft]) -> Iterator[Mistake]:
    for draft in drafts:
        ip = hostspec.as_ip(draft.host.address)
        if draft.host.address == "localhost" or (ip is not None and ip.is_loopback):
            hint = "the address in the network that the nodes share; ssh.address may differ from it"
            yield Mistake((*draft.place, "address"), "the other nodes cannot reach a loopback address", hint)


def _control_nodes(drafts: Sequence[Draft], preset: Preset) -> Iterator[Mistake]:
    count = sum(draft.host.role is Role.CONTROL for draft in drafts)
    where = ("hosts",)
    if not any(draft.role_given for draft in drafts) and len(drafts) > 1:
        hint = "role: control or role: worker on each host, so that adding a host changes no other"
        yield Mistake(where, f"no host has a role: the first {count} are taken as control nodes", hint, warning=True)
    if count == 0:
        yield Mistake(where, "no host is a control node", "role: control on 1, 3 or 5 of them")
    elif count < preset.control_minimum:
        hint = f"{preset.control_nodes} of them; or a preset that is content with fewer: balanced"
        yield Mistake(where, f"preset {preset.name} needs at least {preset.control_minimum} control nodes, there are {count}", hint)
    elif count % 2 == 0:
        message = f"{count} control nodes survive no more failures than {count - 1}, and are slower"
        yield Mistake(where, message, f"an odd number: {count - 1} or {count + 1}", warning=True)
    elif count > MOST_CONTROL_NODES:
        yield Mistake(where, f"{count} control nodes make every change slower", "1, 3 or 5; the others as role: worker", warning=True)
    elif count < preset.control_nodes:
        survives = "none of them may fail" if count == 1 else f"{count // 2} of them may fail"
        message = f"preset {preset.name} is made for {preset.control_nodes} control nodes, there {'is' if count == 1 else 'are'} {count}"
        yield Mistake(where, f"{message}: {survives}", f"role: control on {preset.control_nodes} hosts", warning=True)


def _apps(drafts: Sequence[Draft]) -> Iterator[Mistake]:
    if not any(draft.host.apps for draft in drafts):
        message = "no host runs apps: every one has apps: false, and what is deployed waits for ever"
        yield Mistake(("hosts",), message, "leave apps: false out where replicas may run", warning=True)
