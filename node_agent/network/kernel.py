"""Reads links, routes and neighbours from the kernel, and does what plan.py says. Decides nothing.

The one home of pyroute2, which blocks and takes 10 MB: netlink.py calls it in a process of its own.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from socket import AF_BRIDGE, AF_INET
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from node_agent.network import actions
from node_agent.network.actions import Action
from node_agent.network.facts import FORWARD, TUNNEL, Forwarding, Link, Neighbour, Route, Seen, Tunnel, sysctl

_LOOPBACK, _POINT_TO_POINT, _UP, _NOARP = 0x8, 0x10, 0x1, 0x80  # IFF_*
_MAIN = 254  # RT_TABLE_MAIN
_UNICAST = 1  # RTN_UNICAST
_ONLINK = 4  # RTNH_F_ONLINK
_PERMANENT = 0x80  # NUD_PERMANENT
_NTF_SELF = 0x02
_EVERYTHING = "0.0.0.0"  # noqa: S104 -- the default route's destination
_ANYONE = "00:00:00:00:00:00"


class Refused(Exception):
    """By the kernel, in words. `errno`: as it says it."""

    def __init__(self, words: str, code: int) -> None:
        super().__init__(words)
        self.errno = code


def observe(sysctls: Path) -> Seen:
    """What this network namespace has. `sysctls`: where they lie as files. Raises Refused."""
    with _asking() as route:
        return _observe(route, sysctls)


def carry_out(planned: Sequence[Action], sysctls: Path) -> None:
    """In this order, until one fails. Raises Refused."""
    with _asking() as route:
        _carry_out(route, planned, sysctls)


@contextlib.contextmanager
def _asking() -> Iterator[Any]:
    try:
        with IPRoute() as route:
            yield route
    except NetlinkError as error:
        raise Refused(_words(error), error.code) from error
    except OSError as error:
        raise Refused(str(error), error.errno or 0) from error


def _words(error: NetlinkError) -> str:
    return f"{os.strerror(error.code)}{''.join(f' ({note})' for note in getattr(error, '__notes__', []))}"


def _observe(route: Any, sysctls: Path) -> Seen:
    addresses: dict[int, list[str]] = {}
    for message in route.get_addr(family=AF_INET):
        local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        addresses.setdefault(message["index"], []).append(f"{local}/{message['prefixlen']}")
    messages = list(route.get_links())
    names = {message["index"]: message.get_attr("IFLA_IFNAME") for message in messages}
    links = {message["index"]: _link(message, addresses.get(message["index"], []), names) for message in messages}
    tunnel = next((index for index, link in links.items() if link.name == TUNNEL and link.tunnel is not None), None)
    return Seen(
        links=tuple(links.values()),
        routes=tuple(_routes(route, names)),
        neighbours=frozenset(_neighbours(route, tunnel)) if tunnel is not None else frozenset(),
        forwardings=frozenset(_forwardings(route, tunnel)) if tunnel is not None else frozenset(),
        sysctls=_read(sysctls, names.values()),
    )


def _link(message: Any, addresses: Sequence[str], names: Mapping[int, str]) -> Link:
    flags, info = message["flags"], message.get_attr("IFLA_LINKINFO")
    port = info.get_attr("IFLA_INFO_SLAVE_DATA") if info is not None and info.get_attr("IFLA_INFO_SLAVE_KIND") == "bridge" else None
    return Link(
        name=message.get_attr("IFLA_IFNAME"),
        up=bool(flags & _UP),
        mtu=message.get_attr("IFLA_MTU") or 0,
        shared=not flags & (_LOOPBACK | _POINT_TO_POINT | _NOARP),
        addresses=tuple(addresses),
        tunnel=_tunnel(message),
        bridge=names.get(message.get_attr("IFLA_MASTER"), "") if port is not None else "",
        reflects=port is not None and bool(port.get_attr("IFLA_BRPORT_MODE")),
    )


def _tunnel(message: Any) -> Tunnel | None:
    info = message.get_attr("IFLA_LINKINFO")
    if info is None or info.get_attr("IFLA_INFO_KIND") != "vxlan":
        return None
    data = info.get_attr("IFLA_INFO_DATA")
    return Tunnel(
        vni=data.get_attr("IFLA_VXLAN_ID"),
        port=data.get_attr("IFLA_VXLAN_PORT"),
        local=data.get_attr("IFLA_VXLAN_LOCAL") or "",
        mac=message.get_attr("IFLA_ADDRESS"),
        mtu=message.get_attr("IFLA_MTU") or 0,
    )


def _routes(route: Any, names: Mapping[int, str]) -> Iterator[Route]:
    """Those of one way each: of several (ECMP), the first counts."""
    for message in route.get_routes(family=AF_INET, table=_MAIN):
        if message["type"] != _UNICAST:
            continue
        hop = (message.get_attr("RTA_MULTIPATH") or [None])[0]
        device = hop["oif"] if hop is not None else message.get_attr("RTA_OIF")
        if device not in names:
            continue
        yield Route(
            destination=f"{message.get_attr('RTA_DST') or _EVERYTHING}/{message['dst_len']}",
            device=names[device],
            gateway=(hop if hop is not None else message).get_attr("RTA_GATEWAY") or ("::" if message.get_attr("RTA_VIA") else ""),
            source=message.get_attr("RTA_PREFSRC") or "",
            onlink=bool(message["flags"] & _ONLINK),
            protocol=message["proto"],
            metric=message.get_attr("RTA_PRIORITY") or 0,
        )


def _neighbours(route: Any, tunnel: int) -> Iterator[Neighbour]:
    for message in route.get_neighbours(family=AF_INET, ifindex=tunnel):
        address, mac = message.get_attr("NDA_DST"), message.get_attr("NDA_LLADDR")
        if message["ifindex"] == tunnel and message["state"] & _PERMANENT and mac:
            yield Neighbour(address, mac)


def _forwardings(route: Any, tunnel: int) -> Iterator[Forwarding]:
    for message in route.fdb("dump", ifindex=tunnel):
        mac, remote = message.get_attr("NDA_LLADDR"), message.get_attr("NDA_DST")
        if message["ifindex"] == tunnel and message["family"] == AF_BRIDGE and remote and mac != _ANYONE:
            yield Forwarding(mac, remote)


def _read(sysctls: Path, devices: Any) -> dict[str, str]:
    names = [FORWARD, *(sysctl(device, key) for device in devices for key in ("rp_filter", "route_localnet"))]
    found = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # the device has gone meanwhile
            found[name] = _file(sysctls, name).read_text().strip()
    return found


def _file(sysctls: Path, name: str) -> Path:
    return sysctls.joinpath(*(part.replace("/", ".") for part in name.split(".")))


def _carry_out(route: Any, planned: Sequence[Action], sysctls: Path) -> None:
    for action in planned:
        try:
            _do(route, action, sysctls)
        except NetlinkError as error:
            error.add_note(str(action))
            raise


def _do(route: Any, action: Action, sysctls: Path) -> None:
    match action:
        case actions.MakeBridge(name, mtu):
            route.link("add", ifname=name, kind="bridge", mtu=mtu)
            route.link("set", index=_index(route, name), state="up")
        case actions.PutAddress(name, address):
            own, _, length = address.partition("/")
            route.addr("add", index=_index(route, name), address=own, prefixlen=int(length), broadcast=True)
        case actions.MakeTunnel(name, tunnel):
            _drop_link(route, name)
            _make_tunnel(route, name, tunnel)
        case actions.DropTunnel(name):
            _drop_link(route, name)
        case actions.RaiseLink(name):
            route.link("set", index=_index(route, name), state="up")
        case actions.PutForwarding(forwarding):
            route.fdb("add", ifindex=_index(route, TUNNEL), lladdr=forwarding.mac, dst=forwarding.remote, flags=_NTF_SELF, state=_PERMANENT)
        case actions.DropForwarding(forwarding):
            route.fdb("del", ifindex=_index(route, TUNNEL), lladdr=forwarding.mac, dst=forwarding.remote)
        case actions.PutNeighbour(neighbour):
            route.neigh("replace", ifindex=_index(route, TUNNEL), dst=neighbour.address, lladdr=neighbour.mac, state=_PERMANENT)
        case actions.DropNeighbour(neighbour):
            route.neigh("del", ifindex=_index(route, TUNNEL), dst=neighbour.address)
        case actions.PutRoute(wanted):
            route.route("replace", **_route(route, wanted))
        case actions.DropRoute(wanted):
            route.route("del", **_route(route, wanted))
        case actions.LetReflect(name):
            route.brport("set", index=_index(route, name), mode=1)
        case actions.SetSysctl(name, value):
            _file(sysctls, name).write_text(value)


def _make_tunnel(route: Any, name: str, tunnel: Tunnel) -> None:
    """Nothing is learnt from what comes in: who has which address stands in our entries."""
    local = {"vxlan_local": tunnel.local} if tunnel.local else {}
    route.link(
        "add",
        ifname=name,
        kind="vxlan",
        vxlan_id=tunnel.vni,
        vxlan_port=tunnel.port,
        vxlan_learning=0,
        address=tunnel.mac,
        mtu=tunnel.mtu,
        **local,
    )
    route.link("set", index=_index(route, name), state="up")


def _drop_link(route: Any, name: str) -> None:
    for index in route.link_lookup(ifname=name):
        route.link("del", index=index)


def _index(route: Any, name: str) -> int:
    found = route.link_lookup(ifname=name)
    if not found:
        raise NetlinkError(errno.ENODEV, name)
    index: int = found[0]
    return index


def _route(route: Any, wanted: Route) -> dict[str, Any]:
    request: dict[str, Any] = {
        "family": AF_INET,
        "dst": str(ipaddress.IPv4Network(wanted.destination)),
        "oif": _index(route, wanted.device),
        "proto": wanted.protocol,
        "table": _MAIN,
    }
    if wanted.gateway:
        request["gateway"] = wanted.gateway
    if wanted.source:
        request["prefsrc"] = wanted.source
    if wanted.onlink:
        request["flags"] = _ONLINK
    if wanted.metric:
        request["priority"] = wanted.metric
    return request
