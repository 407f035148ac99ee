"""Tells that somebody changed links, addresses, routes or packet filters of this node: that something did, not what.

Two netlink sockets that join the kernel's groups (rtnetlink(7), nfnetlink). Their messages are thrown away: what there is is looked at
anyhow. Only of neighbours, who come and go all the time, it matters whether they are the tunnel's. A socket that overflowed has something
to tell, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Callable

from hmcore.errors import LayerDown
from node_agent.network.facts import TUNNEL

_ROUTE, _NETFILTER = 0, 12  # NETLINK_*
_LINKS, _NEIGHBOURS, _ADDRESSES, _ROUTES = 0x1, 0x4, 0x10, 0x40  # RTMGRP_LINK, RTMGRP_NEIGH, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE
_OF_NEIGHBOURS = (28, 29)  # RTM_NEWNEIGH, RTM_DELNEIGH
_HEAD = struct.Struct("=4xH14xi")  # of a message, and of what it says of a neighbour: the device's index comes last
_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES = 270, 1, 7  # NFNLGRP_NFTABLES
_MOST = 64  # messages that are read before others get their turn


class Notices:
    """Between `open` and `close`, `on_change` is called for each burst of messages."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._sockets: list[socket.socket] = []

    def open(self) -> None:
        """Raises LayerDown where the kernel does not let us listen."""
        try:
            self._listen(_ROUTE, groups=_LINKS | _NEIGHBOURS | _ADDRESSES | _ROUTES)
            self._listen(_NETFILTER, membership=_NFTABLES)
        except OSError as error:
            self.close()
            fix = "run the agent as root, with CAP_NET_ADMIN" if error.errno == errno.EPERM else None
            raise LayerDown(f"changes of the network are not told: {error.strerror}", fix=fix) from error

    def close(self) -> None:
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each)
            each.close()
        self._sockets = []

    def _listen(self, protocol: int, *, groups: int = 0, membership: int = 0) -> None:
        found = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
        try:
            found.bind((0, groups))
            if membership:
                found.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, membership)
        except OSError:
            found.close()
            raise
        self._sockets.append(found)
        asyncio.get_running_loop().add_reader(found, self._readable, found)

    def _readable(self, found: socket.socket) -> None:
        matters = False
        with contextlib.suppress(BlockingIOError):
            for _ in range(_MOST):
                try:
                    matters = _matters(found.recv(_HEAD.size)) or matters  # the rest of a message is dropped
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # messages were lost, and the socket goes on
                        raise
                    matters = True
        if matters:
            self._on_change()


def _matters(head: bytes) -> bool:
    if len(head) < _HEAD.size:
        return True
    kind, index = _HEAD.unpack(head)
    if kind not in _OF_NEIGHBOURS:
        return True
    try:
        return bool(index == socket.if_nametoindex(TUNNEL))
    except OSError:  # there is none
        return False
