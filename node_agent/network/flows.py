"""Ends what the kernel remembers of UDP packets to a published port. It sends all packets of a flow to where it sent the first: whoever
goes on asking from the same port would never be told that the replica has gone.

Messages of ctnetlink, as linux/netfilter/nfnetlink_conntrack.h has them. Bytes from the kernel are read by total functions.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from hmcore.errors import LayerDown

TIMEOUT = 5.0  # seconds for an answer of the kernel
UDP = 17
_NETFILTER = 12  # NETLINK_NETFILTER
_GET, _DELETE = 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300  # NLM_F_*
_ERROR, _DONE = 2, 3  # NLMSG_*
_ORIGINAL, _REPLY, _FILTER = 1, 2, 25  # CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_FILTER
_IP, _PROTO = 1, 2  # CTA_TUPLE_IP, CTA_TUPLE_PROTO
_SOURCE, _DESTINATION = 1, 2  # CTA_IP_V4_SRC, CTA_IP_V4_DST
_NUMBER, _TO_PORT = 1, 3  # CTA_PROTO_NUM, CTA_PROTO_DST_PORT
_BY_NUMBER, _BY_PORT = 1 << 3, 1 << 5  # CTA_FILTER_F_*
_NESTED, _TYPE = 0x8000, 0x3FFF
_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
_FAMILY = struct.pack("=BBH", socket.AF_INET, 0, 0)
_MOST = 1 << 16  # bytes of a message


@dataclass(frozen=True, slots=True)
class Flow:
    """As it began: to `destination` and `port`; `answers`: who answers it. `original`: how the kernel calls it."""

    protocol: int
    destination: str
    port: int
    answers: str
    original: bytes


def end(port: int, to: Collection[str], unless: Collection[str]) -> int:
    """End the UDP flows that began to `port` of an address of `to`, unless one of `unless` answers them. How many there were. Blocks.
    Raises LayerDown."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as link:
            link.bind((0, 0))
            link.settimeout(TIMEOUT)
            found = _found(link, port)
            stale = [flow for flow in found if flow.destination in to and flow.answers not in unless]
            for flow in stale:
                _told(link, _DELETE, _REQUEST | _ACK, _attribute(_ORIGINAL | _NESTED, flow.original))
    except OSError as error:
        raise LayerDown(f"what goes on to UDP port {port} cannot be sent elsewhere: {error.strerror or 'the kernel is silent'}") from error
    return len(stale)


def _found(link: socket.socket, port: int) -> list[Flow]:
    """All to that port. Kernels before 5.8 tell everything."""
    try:
        told = _told(link, _GET, _REQUEST | _DUMP, _asked(port))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        told = _told(link, _GET, _REQUEST | _DUMP, b"")
    flows = (flow_of(each) for each in told)
    return [flow for flow in flows if flow is not None and (flow.protocol, flow.port) == (UDP, port)]


def _asked(port: int) -> bytes:
    proto = _attribute(_NUMBER, struct.pack("=B", UDP)) + _attribute(_TO_PORT, struct.pack(">H", port))
    flags = _attribute(1, struct.pack("=I", _BY_NUMBER | _BY_PORT)) + _attribute(2, struct.pack("=I", 0))
    return _attribute(_ORIGINAL | _NESTED, _attribute(_PROTO | _NESTED, proto)) + _attribute(_FILTER | _NESTED, flags)


def _told(link: socket.socket, kind: int, flags: int, attributes: bytes) -> list[bytes]:
    """The messages that the kernel answers with, without their headers. Raises OSError as it says; one that has gone is fine."""
    link.send(_HEADER.pack(_HEADER.size + len(_FAMILY) + len(attributes), kind, flags, 1, 0) + _FAMILY + attributes)
    found: list[bytes] = []
    while True:
        for kind_of, body in messages(link.recv(_MOST)):
            if kind_of == _DONE:
                return found
            if kind_of == _ERROR:
                (number,) = struct.unpack_from("=i", body.ljust(4, b"\0"))
                if number and -number != errno.ENOENT:
                    raise OSError(-number, os.strerror(-number))
                return found
            found.append(body)


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Those of a datagram, by their types. Total."""
    while len(data) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(data)
        if not _HEADER.size <= length <= len(data):
            return
        yield kind, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def flow_of(body: bytes) -> Flow | None:
    """Of a message; None if it tells of none that is ours to end. Total."""
    found = _attributes(body[len(_FAMILY) :])
    original, reply = _attributes(found.get(_ORIGINAL, b"")), _attributes(found.get(_REPLY, b""))
    proto = _attributes(original.get(_PROTO, b""))
    number, port = proto.get(_NUMBER, b""), proto.get(_TO_PORT, b"")
    destination, answers = _attributes(original.get(_IP, b"")).get(_DESTINATION), _attributes(reply.get(_IP, b"")).get(_SOURCE)
    if len(number) != 1 or len(port) != 2 or destination is None or answers is None or len(destination) != 4 or len(answers) != 4:
        return None
    return Flow(
        number[0],
        str(ipaddress.IPv4Address(destination)),
        int.from_bytes(port, "big"),
        str(ipaddress.IPv4Address(answers)),
        found[_ORIGINAL],
    )


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            break
        found[kind & _TYPE] = data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
    return found


def _attribute(kind: int, content: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(content), kind) + content + bytes(-len(content) % 4)
