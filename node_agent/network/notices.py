"""Tells that somebody changed links, addresses, routes or packet filters of this node: that something did, not what.

Two netlink sockets that join the kernel's groups (rtnetlink(7), nfnetlink). What there is is looked at anyhow, which takes the start of
several programs; so it is not told of what comes and goes all the time, and changes nothing that matters:

- neighbours, but for the tunnel's, and links that are as they were in all that matters here;
- the ends of containers' links (veth devices that are a bridge's ports, or are named as Docker names them). That a new port of our bridge
  shall reflect (plan.difference) is seen to here, at once;
- what our own `nft` and `iptables` did.

A socket that overflowed has something to tell, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Callable

from hmcore.errors import LayerDown
from node_agent.network import link_messages
from node_agent.network.facts import BRIDGE, TUNNEL
from node_agent.network.link_messages import LinkMessage

_ROUTE, _NETFILTER = 0, 12  # NETLINK_*
_LINKS, _NEIGHBOURS, _ADDRESSES, _ROUTES = 0x1, 0x4, 0x10, 0x40  # RTMGRP_LINK, RTMGRP_NEIGH, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE
_OF_NEIGHBOURS = (28, 29)  # RTM_NEWNEIGH, RTM_DELNEIGH
_HEAD = struct.Struct("=4xHH4xI")  # of a message: what it is, its flags, and whose change it tells
_ASKED_FOR = 0x2  # NLM_F_MULTI
_NEIGHBOUR = struct.Struct("=20xi")  # the device's index
_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES = 270, 1, 7  # NFNLGRP_NFTABLES
_LONGEST = 32768  # bytes that the kernel tells at a time
_MOST = 64  # messages that are read before others get their turn
_SETTLE = 0.05  # seconds until it is looked at whose change it was: the program that made it may not be known yet
_CONTAINERS = "veth"  # a kind of link, and how the names of those begin that Docker makes

Matters = Callable[[socket.socket, bytes], bool]  # whether a message says that something may not be as it shall be


class Notices:
    """Between `open` and `close`, `on_change` is called for each burst of messages that matter. `ours`: whether a process of this id is one
    that changes the packet filter for us."""

    def __init__(self, on_change: Callable[[], None], ours: Callable[[int], bool] = lambda process: False) -> None:
        self._on_change = on_change
        self._ours = ours
        self._sockets: list[socket.socket] = []
        self._links: dict[int, LinkMessage] = {}  # what was told last of each, by its index
        self._changers: set[int] = set()  # processes that changed the packet filter a moment ago
        self._asking: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Raises LayerDown where the kernel does not let us listen."""
        try:
            self._listen(_ROUTE, self._of_routes, groups=_LINKS | _NEIGHBOURS | _ADDRESSES | _ROUTES).send(link_messages.asking())
            self._listen(_NETFILTER, self._of_filters, membership=_NFTABLES)
        except OSError as error:
            self.close()
            fix = "run the agent as root, with CAP_NET_ADMIN" if error.errno == errno.EPERM else None
            raise LayerDown(f"changes of the network are not told: {error.strerror}", fix=fix) from error

    def close(self) -> None:
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each)
            each.close()
        self._sockets = []
        if self._asking is not None:
            self._asking.cancel()
        self._asking, self._changers, self._links = None, set(), {}

    def _listen(self, protocol: int, matters: Matters, *, groups: int = 0, membership: int = 0) -> socket.socket:
        found = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
        try:
            found.bind((0, groups))
            if membership:
                found.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, membership)
        except OSError:
            found.close()
            raise
        self._sockets.append(found)
        asyncio.get_running_loop().add_reader(found, self._readable, found, matters)
        return found

    def _readable(self, found: socket.socket, matters: Matters) -> None:
        told = False
        with contextlib.suppress(BlockingIOError):
            for _ in range(_MOST):
                try:
                    told = any([matters(found, message) for message in link_messages.split(found.recv(_LONGEST))]) or told
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # messages were lost, and the socket goes on
                        raise
                    self._links.clear()
                    told = True
        if told:
            self._on_change()

    def _of_filters(self, _: socket.socket, message: bytes) -> bool:
        if len(message) < _HEAD.size:
            return True
        self._changers.add(_HEAD.unpack_from(message)[2])
        if self._asking is None:
            self._asking = asyncio.get_running_loop().call_later(_SETTLE, self._settled)
        return False

    def _settled(self) -> None:
        changers, self._changers, self._asking = self._changers, set(), None
        if not all(map(self._ours, changers)):
            self._on_change()

    def _of_routes(self, found: socket.socket, message: bytes) -> bool:
        if len(message) < _HEAD.size:
            return True
        kind, flags, _ = _HEAD.unpack_from(message)
        if kind == link_messages.DONE:
            return False
        if kind in _OF_NEIGHBOURS:
            return len(message) < _NEIGHBOUR.size or bool(_NEIGHBOUR.unpack_from(message)[0] == _index(TUNNEL))
        link = link_messages.read(message)
        if link is None:
            return True
        if kind == link_messages.NEW and link.reflects is False and link.master == _index(BRIDGE):
            return not _told(found, link_messages.reflecting(link.index))
        if link.of_port or (link.kind == _CONTAINERS and (link.master or link.name.startswith(_CONTAINERS))):
            return False
        if kind == link_messages.GONE:
            self._links.pop(link.index, None)
            return True
        known, self._links[link.index] = self._links.get(link.index), link
        return known != link and not flags & _ASKED_FOR


def _told(kernel: socket.socket, message: bytes) -> bool:
    """What the kernel says against it comes as a message that matters."""
    try:
        return kernel.send(message) == len(message)
    except OSError:
        return False


def _index(device: str) -> int:
    """0: there is none."""
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return 0
