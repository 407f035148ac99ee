"""Where a service is on the network, and by which names it is known there. Pure.

All containers share the cluster's network; an app's networks say who finds whom by name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import msgspec

from hmcore.apps.spec import ContainerSpec
from hmctl.compose.parts.files import external_name
from hmctl.compose.parts.names import HOST, KEY
from hmctl.compose.parts.part import Fields, Part

DEFAULT = "default"
_OURS = ("", "bridge", "overlay", "default")
_HOST_GATEWAY = "host-gateway"
_PUBLISHED = "leave it out, and publish ports, or network_mode: host: a container is on its node's own networks then"
_OPEN = "leave it out: all containers are on the cluster's network; what they must not reach is forbidden on the nodes"
_BRIDGE = "com.docker.network.bridge."

Mode = Literal["", "host", "none"]
Links = list[tuple[str, str]]  # of a service: another one, and what it calls that


def mode_of(service: Fields) -> Mode:
    part = service["network_mode"]
    mode = part.text()
    if mode and mode not in ("bridge", "default") and service.given("networks"):
        part.wrong("cannot be together with networks", "one of the two")
    match mode:
        case "host":
            return "host"
        case "none":
            return "none"
        case "" | "bridge" | "default":
            return ""
        case _:
            instead = "leave it out: services of an app reach each other by name, whatever node they are on"
            part.unsupported(
                instead, "a container cannot be in the network of another one" if ":" in mode else "there is no such network mode"
            )
            return ""


def networks_of(service: Fields, mode: Mode, defined: Collection[str], name: str) -> dict[str, tuple[str, ...]]:
    """Each network, and the further names of service `name` there."""
    if mode:
        return {}
    part = service["networks"]
    found: dict[str, tuple[str, ...]] = {}
    entries = part.mapping().items() if isinstance(part.value, Mapping) else [(entry.text(), entry) for entry in part.entries()]
    for network, entry in entries:
        named = network or isinstance(part.value, Mapping) or isinstance(entry.value, str)
        if named and network != DEFAULT and network not in defined:
            entry.wrong(f"there is no network {network} in this file", f"networks: {{{network}: }} at the top level")
        elif network:
            found[network] = entry.of("service.networks")["aliases"].strings(HOST) if isinstance(entry.value, Mapping) else ()
    container = service["container_name"].text(HOST)
    further = (container,) if container and container != name else ()
    return {network: tuple(dict.fromkeys((*aliases, *further))) for network, aliases in (found or {DEFAULT: ()}).items()}


def check_networks(part: Part) -> list[str]:
    """The names of all networks at the top level. What they are made of has no meaning here, and says so; where somebody may rely on it,
    because it keeps out or lets in, it is not supported."""
    names = []
    for name, entry in part.mapping().items():
        if not KEY.holds(name):
            entry.wrong("cannot be the name of a network", KEY.says)
            continue
        names.append(name)
        fields = entry.of("network")
        external = external_name(fields, name)
        if external in ("host", "none"):
            entry.unsupported(
                f"network_mode: {external}, in place of networks:, in the services that are on it",
                f"Docker's own network {external} cannot be one of an app",
                then="it is an ordinary network of the app",
                becomes={},
            )
        elif external is not None:
            entry.warn(
                "is this app's own here: services of other apps are not on it", "put services that must find each other into one app"
            )
        elif fields["name"].text():
            fields["name"].warn("does nothing here", "a network is known by its name in the app")
        _check_driver(fields["driver"])
        _check_options(fields["driver_opts"])
        if fields["internal"].boolean():
            fields["internal"].unsupported("leave it out: containers reach what their node reaches; forbid it there")
        if not fields["enable_ipv4"].boolean(default=True):
            fields["enable_ipv4"].unsupported("leave it out: every container has an IPv4 address")
    return names


def _check_driver(part: Part) -> None:
    driver = part.text()
    if driver in ("host", "none", "null"):
        mode = "none" if driver == "null" else driver
        part.unsupported(f"network_mode: {mode}, in place of networks:, in the services that are on it")
    elif driver in ("macvlan", "ipvlan"):
        part.unsupported(_PUBLISHED)
    elif driver not in _OURS:
        part.unsupported(
            "leave it out: all containers are on the cluster's network, which neither encrypts nor keeps apart",
            "there is no such network driver here",
        )


def _check_options(part: Part) -> None:
    """Those by which a network encrypts, keeps out or lets in. A mapping, of texts, numbers and truth values."""
    useless = False
    for name, entry in part.mapping().items():
        value = entry.scalar().lower()
        off = value in ("false", "0", "f", "no", "off")
        match name.removeprefix(_BRIDGE):
            case "encrypted" if not off:  # Docker takes the option without a value, too
                instead = "leave it out, and have the services use TLS of their own, or the nodes a private link between them"
                entry.unsupported(instead, "nothing is encrypted between the nodes by the containers' network")
            case "enable_icc" | "enable_ip_masquerade" if off:
                entry.unsupported(_OPEN)
            case "inhibit_ipv4" if not off:
                entry.unsupported(_OPEN)
            case "gateway_mode_ipv4" | "gateway_mode_ipv6" if value not in ("", "nat"):
                entry.unsupported(_OPEN)
            case "host_binding_ipv4" if value not in ("", "0.0.0.0"):  # noqa: S104 - it is read
                entry.unsupported(f"leave it out, and publish ports there: ports: ['{value}:8080:80']")
            case "parent" | "macvlan_mode" | "ipvlan_mode":
                entry.unsupported(_PUBLISHED)
            case _:
                useless = True
    if useless:
        part.warn("does nothing here", "a container here has one network, that of the cluster")


def links_of(part: Part) -> Links:
    """`SERVICE` or `SERVICE:NAME`."""
    found = []
    for entry in part.entries():
        service, _, alias = entry.text().partition(":")
        if (alias and not HOST.holds(alias)) or not service:
            entry.wrong("is no link", "SERVICE or SERVICE:NAME")
        else:
            found.append((service, alias or service))
    return found


def linked(containers: Mapping[str, ContainerSpec], links: Mapping[str, Links]) -> dict[str, ContainerSpec]:
    """With the names that links give to services: known to all on a network that both are on."""
    known = dict(containers)
    for owner, wanted in links.items():
        for target, alias in wanted:
            if owner not in known or target not in known or alias == target:
                continue
            shared = known[owner].networks.keys() & known[target].networks.keys()
            networks = {
                name: tuple(dict.fromkeys((*aliases, alias))) if name in shared else aliases
                for name, aliases in known[target].networks.items()
            }
            known[target] = msgspec.structs.replace(known[target], networks=networks)
    return known


def extra_hosts(part: Part) -> tuple[str, ...]:
    """`name:address` each; as a mapping, as `name=address`, or as `name:address`."""
    found: list[str] = []
    for entry, name, address in _hosts(part):
        plain = address.removeprefix("[").removesuffix("]")
        if not address and HOST.holds(name) and entry.value != name:
            entry.warn(f"{name} has no address, so it is left out", "perhaps a variable is empty")
        elif not HOST.holds(name):
            entry.wrong("is for no host name", HOST.says)
        elif plain != _HOST_GATEWAY and not _is_address(plain):
            entry.wrong("has no IP address", f"NAME=ADDRESS, or NAME={_HOST_GATEWAY} for the node's own")
        else:
            found.append(f"{name}:{plain}")
    return tuple(dict.fromkeys(found))


def addresses(part: Part) -> tuple[str, ...]:
    """Of name servers: one, or a list."""
    found = part.one_or_more()
    for address in found:
        if not _is_address(address):
            part.wrong("has what is no IP address", "such as 192.0.2.53")
    return found


def _hosts(part: Part) -> Iterable[tuple[Part, str, str]]:
    if not isinstance(part.value, Mapping):
        for entry in part.entries():
            text = entry.text()
            name, separator, address = text.partition("=" if "=" in text else ":")
            if separator or isinstance(entry.value, str):
                yield entry, name, address
        return
    for name, entry in part.mapping().items():
        for address in entry.one_or_more():
            yield entry, name, address


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
