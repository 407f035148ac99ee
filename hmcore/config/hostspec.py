"""How people write hosts: `user@address:port`, with ranges such as `root@10.0.0.[1-5]`. Pure; raises UsageError with what is allowed.

The grammar is tight on purpose: what passes here may reach a command line, a unit file or a template.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import product

import msgspec

from hmcore.errors import UsageError

MAX_EXPANSION = 1000

_RANGE = re.compile(r"\[([0-9]{1,9}(?:-[0-9]{1,9})?(?:,[0-9]{1,9}(?:-[0-9]{1,9})?)*)\]")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_FORM = "a host is written as user@address:port; user and port may be left out, an IPv6 address with a port stands in [brackets]"


class HostSpec(msgspec.Struct, frozen=True):
    """`address` is an IP address in its shortest form or a host name in lower case. `user` and `port` are None when not given."""

    address: str
    user: str | None = None
    port: int | None = None

    @property
    def name(self) -> str:
        """A node name that stays the same when hosts are added before this one: `web1` for web1.example.org, `node-10-0-0-1` for an IP."""
        if as_ip(self.address) is None:
            return self.address.split(".")[0]
        return "node-" + re.sub(r"[^0-9a-f]", "-", self.address).rstrip("-")

    def __str__(self) -> str:
        return login(self.address, self.user, self.port)


def login(address: str, user: str | None, port: int | None) -> str:
    """`root@10.0.0.1:2222`, `[fd00::1]:22`: the parts put together again."""
    host = f"[{address}]" if ":" in address and port is not None else address
    return (f"{user}@" if user else "") + host + (f":{port}" if port is not None else "")


def parse(text: str) -> HostSpec:
    """One host. Raises UsageError when `text` is none, or still holds a range."""
    user, at, rest = text.rpartition("@")
    if at and not USER.fullmatch(user):
        raise UsageError(f"{user!r} is no user name", fix=_FORM)
    address, port = _split_port(rest)
    return HostSpec(_address(address), user or None, port)


def expand(text: str) -> list[str]:
    """`web[01-03]` is web01, web02 and web03; `10.0.[0-1].[1,5-6]` is six hosts. Text without a range is itself.

    Raises UsageError for a range that runs backwards, or for more than a thousand hosts.
    """
    pieces = _RANGE.split(text)  # text, range, text, range, text ...
    choices = [list(_numbers(piece)) if index % 2 else [piece] for index, piece in enumerate(pieces)]
    total = 1
    for choice in choices:
        total *= len(choice)
    if total > MAX_EXPANSION:
        raise UsageError(f"{text!r} stands for {total} hosts", fix=f"at most {MAX_EXPANSION} at once")
    return ["".join(parts) for parts in product(*choices)]


def as_ip(address: str) -> IPv4Address | IPv6Address | None:
    """The IP address that `address` is, or None for a host name."""
    try:
        return ip_address(address)
    except ValueError:
        return None


def _numbers(piece: str) -> Iterator[str]:
    for part in piece.split(","):
        first, _, last = part.partition("-")
        last = last or first
        if int(first) > int(last):
            raise UsageError(f"the range [{part}] runs backwards", fix=f"[{last}-{first}]")
        if int(last) - int(first) >= MAX_EXPANSION:
            raise UsageError(f"the range [{part}] stands for {int(last) - int(first) + 1} hosts", fix=f"at most {MAX_EXPANSION} at once")
        width = len(first) if first.startswith("0") else 0  # web[01-10] counts 01, 02 ...
        yield from (str(number).zfill(width) for number in range(int(first), int(last) + 1))


def _split_port(rest: str) -> tuple[str, int | None]:
    if rest.startswith("["):
        address, closed, tail = rest[1:].partition("]")
        if not closed or (tail and not tail.startswith(":")) or ":" not in address:
            raise UsageError(f"{rest!r} is no address", fix=_FORM)
        return address, _port(tail[1:]) if tail else None
    if rest.count(":") > 1:  # an IPv6 address by itself
        return rest, None
    address, colon, port = rest.partition(":")
    return address, _port(port) if colon else None


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65_535:
        return int(text)
    raise UsageError(f"{text!r} is no port", fix="a port is a number from 1 to 65535")


def _address(text: str) -> str:
    ip = as_ip(text)
    if ip is not None and "%" not in text:
        if ip.is_unspecified or ip.is_multicast:
            raise UsageError(f"{text} is no address of one host", fix="the IP address or name that other machines reach it at")
        return str(ip)
    if not text:
        raise UsageError("there is no address", fix=_FORM)
    if re.fullmatch(r"[0-9.]+", text) or ":" in text:
        raise UsageError(f"{text!r} is no IP address", fix="such as 10.0.0.1 or fd00::1")
    if not _HOSTNAME.fullmatch(text):
        raise UsageError(f"{text!r} is no address", fix=_FORM)
    return text.lower()
