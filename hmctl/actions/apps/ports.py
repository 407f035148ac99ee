"""The published ports of a replica: what its spec says, and what its node gave out where that says nothing. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hmcore.apps.records import AllocationStatus
from hmcore.apps.spec import ServiceSpec

MOST_SAID = 3  # of a replica in a table; -o json has them all


class PortView(msgspec.Struct, frozen=True, kw_only=True):
    """`mode`: `ingress`: on every node; `host`: on the replica's. `published` null: its node has not given one out. `address` empty: all of
    the node's."""

    target: int
    published: int | None
    protocol: str
    mode: str
    address: str


def ports_of(spec: ServiceSpec | None, status: AllocationStatus | None) -> list[PortView]:
    """Of a replica that is made of `spec`."""
    given = {} if status is None else {(port.target, port.protocol, port.address): port.published for port in status.ports}
    return [
        PortView(
            target=port.target,
            published=port.published or given.get((port.target, port.protocol, port.address)),
            protocol=port.protocol,
            mode=port.mode,
            address=port.address,
        )
        for port in (() if spec is None else spec.ports)
    ]


def port_words(ports: Sequence[PortView]) -> str:
    """As compose files write them: where they are reached, and where the replica listens."""
    more = [f"and {len(ports) - MOST_SAID} more"] if len(ports) > MOST_SAID else []
    return ", ".join([*map(_words, ports[:MOST_SAID]), *more]) or "-"


def _words(port: PortView) -> str:
    address = f"[{port.address}]:" if ":" in port.address else f"{port.address}:" if port.address else ""
    return f"{address}{port.published or 'any'}:{port.target}{'' if port.protocol == 'tcp' else f'/{port.protocol}'}"
