"""Which ports a service takes, and where. One rule for the scheduler, which gives a port to one service only, and for a plan, which says so
before. Pure."""

from __future__ import annotations

from ipaddress import ip_address

from hmcore.apps.spec import Port, ServiceSpec

Number = tuple[int, str]  # of a port, and its protocol

ANY = ""  # all addresses of a node


def port_words(protocol: str, port: int, address: str = "") -> str:
    """`tcp port 80`: how a node calls one that it does not answer on."""
    return f"{protocol} port {port}{f' of {address}' if address else ''}"


def published(spec: ServiceSpec) -> set[Number]:
    """On every node, wherever its replicas are."""
    return {(port.published, port.protocol) for port in spec.ports if port.mode == "ingress" and port.published}


def taken(spec: ServiceSpec) -> set[tuple[Number, str]]:
    """On the nodes of its replicas, with the address there. A container in its node's own network takes there what it listens on."""
    match spec.container.network_mode:
        case "none":
            return set()
        case "host":
            return {((port.target, port.protocol), ANY) for port in spec.ports}
        case _:
            return {((port.published, port.protocol), _address(port)) for port in spec.ports if port.mode == "host" and port.published}


def _address(port: Port) -> str:
    try:
        address = ip_address(port.address)
    except ValueError:  # none is given
        return port.address
    return ANY if address.is_unspecified else str(address)
