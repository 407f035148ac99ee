"""What the value of a setting may be: types that check it by itself, and marks that say what it counts and what changing it takes."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import msgspec
from pydantic import AfterValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError


class Unit(msgspec.Struct, frozen=True):
    """What a number counts: `s` (seconds), `bytes`, or nothing at all."""

    symbol: str


class HmctlOnly(msgspec.Struct, frozen=True):
    """Marks a setting that only hmctl reads, from the inventory: it is in no node's file, and takes effect at once."""


class Fixed(msgspec.Struct, frozen=True):
    """Marks a setting that a running cluster cannot change (docs/adr/0059)."""


def _batch(value: object) -> int | str:
    """`all`, a number of nodes, or a share such as `25%`."""
    text = str(value).replace(" ", "") if isinstance(value, int | str) else ""
    if text == "all":
        return text
    number = text.removesuffix("%")
    if number.isascii() and number.isdigit() and len(number) <= 6 and int(number) >= 1:
        if text == number:
            return int(number)
        if int(number) <= 100:
            return f"{int(number)}%"
    raise PydanticCustomError("upgrade_batch", 'must be all, a number of nodes from 1, or a share such as "25%"')


def _ip_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise PydanticCustomError("ip_address", "must be an IP address, such as 127.0.0.1 or 0.0.0.0") from None


def _cidr(text: str) -> str:
    """An IPv4 network in which containers can have addresses of their own."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError:
        raise PydanticCustomError("cidr", "must be an IPv4 network without host bits, such as 10.77.0.0/16") from None
    if (
        network.is_loopback
        or network.is_link_local
        or network.is_multicast
        or network.is_reserved
        or network.network_address.packed[0] == 0
    ):
        raise PydanticCustomError("cidr", "is a network in which no host can have an address; such as 10.77.0.0/16")
    return str(network)


Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False), Unit("s")]
IpAddress = Annotated[str, AfterValidator(_ip_address)]
Port = Annotated[int, Field(ge=1, le=65_535)]
Cidr = Annotated[str, AfterValidator(_cidr)]
Batch = Annotated[int | str, PlainValidator(_batch)]
