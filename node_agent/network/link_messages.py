"""What the kernel tells of a link that has changed, and how it is told that a bridge's port shall reflect. Pure (rtnetlink(7),
linux/if_link.h): any bytes give a message or None."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from socket import AF_BRIDGE, AF_UNSPEC

NEW, GONE = 16, 17  # RTM_NEWLINK, RTM_DELLINK
DONE = 3  # NLMSG_DONE: there was nothing more to tell
_GET, _SET = 18, 19  # RTM_GETLINK, RTM_SETLINK
_REQUEST, _ALL = 0x1, 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_HEAD = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, whose
_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_UP = 0x1  # IFF_UP
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_NESTED, _TYPES = 0x8000, 0x3FFF
_ADDRESS, _NAME, _MTU, _MASTER, _PORT, _INFO = 1, 3, 4, 10, 12, 18  # IFLA_..., of these _PORT is IFLA_PROTINFO, _INFO IFLA_LINKINFO
_KIND, _DATA, _PORT_KIND, _PORT_DATA = 1, 2, 4, 5  # IFLA_INFO_..., of these _PORT_... are IFLA_INFO_SLAVE_...
_MODE = 4  # IFLA_BRPORT_MODE


@dataclass(frozen=True, slots=True)
class LinkMessage:
    """What matters here of a link; a message that equals the last one of its link tells nothing new.

    `kind` is empty for devices of hardware, and where it is not said. `master`: the index of the bridge whose port it is, 0: it is none.
    `reflects`: what came in by that port may leave by it; None: it is not said. `tunnel`: what a VXLAN device is set up with, as the kernel
    has it. `of_port`: only what the bridge has of its port is told."""

    index: int
    name: str = ""
    kind: str = ""
    up: bool = False
    mtu: int = 0
    master: int = 0
    reflects: bool | None = None
    tunnel: bytes = b""
    of_port: bool = False


def read(message: bytes) -> LinkMessage | None:
    """Of one netlink message. None: it is not about a link, or cannot be understood."""
    try:
        _, told, _, _, _ = _HEAD.unpack_from(message)
        if told not in (NEW, GONE):
            return None
        family, _, index, flags, _ = _LINK.unpack_from(message, _HEAD.size)
        said = dict(_attributes(message[_HEAD.size + _LINK.size :]))
        info = dict(_attributes(said.get(_INFO, b"")))
        kind, of_port = _text(info.get(_KIND)), family == AF_BRIDGE
        port = said.get(_PORT, b"") if of_port else info.get(_PORT_DATA, b"") if _text(info.get(_PORT_KIND)) == "bridge" else b""
        mode = dict(_attributes(port)).get(_MODE)
        return LinkMessage(
            index,
            name=_text(said.get(_NAME)),
            kind=kind,
            up=bool(flags & _UP),
            mtu=_number(said.get(_MTU)),
            master=_number(said.get(_MASTER)),
            reflects=None if not mode else bool(mode[0]),
            tunnel=said.get(_ADDRESS, b"") + info.get(_DATA, b"") if kind == "vxlan" else b"",
            of_port=of_port,
        )
    except struct.error:
        return None


def split(datagram: bytes) -> Iterator[bytes]:
    """The messages in it; of what is cut short, the rest as it is."""
    while datagram:
        length = int.from_bytes(datagram[:4], sys.byteorder)
        end = -(-length // 4) * 4 if length >= _HEAD.size else len(datagram)
        yield datagram[:end]
        datagram = datagram[end:]


def asking() -> bytes:
    """The message that has the kernel tell of all links."""
    return _HEAD.pack(_HEAD.size + _LINK.size, _GET, _REQUEST | _ALL, 0, 0) + _LINK.pack(AF_UNSPEC, 0, 0, 0, 0)


def reflecting(index: int) -> bytes:
    """The message that lets the bridge's port with this index reflect (`bridge link set dev NAME hairpin on`)."""
    mode = _attribute(_PORT | _NESTED, _attribute(_MODE, b"\x01"))
    body = _LINK.pack(AF_BRIDGE, 0, index, 0, 0) + mode
    return _HEAD.pack(_HEAD.size + len(body), _SET, _REQUEST, 0, 0) + body


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Raises struct.error where they are cut short."""
    at, end = 0, len(data)
    while at < end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= length <= end - at:
            raise struct.error("an attribute is longer than what holds it")
        yield kind & _TYPES, data[at + _ATTRIBUTE.size : at + length]
        at += -(-length // 4) * 4


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def _text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", sys.byteorder)
