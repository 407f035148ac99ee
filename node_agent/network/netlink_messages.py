"""What links.py and the process that speaks to the kernel (netlink.py) say to each other: length-prefixed msgpack over pipes."""

from __future__ import annotations

from typing import Any

import msgspec

from node_agent.network.actions import Action
from node_agent.network.facts import Seen

LENGTH = 4  # bytes before each message: how many follow


class Question(msgspec.Struct, frozen=True):
    """`do`: actions by name, each with its fields; None: what is there?"""

    sysctls: str
    do: list[tuple[str, dict[str, Any]]] | None = None


class Answer(msgspec.Struct, frozen=True):
    """`seen`: to what is there. `refused`: why it could not be done, and the kernel's number for it."""

    seen: Seen | None = None
    refused: str = ""
    errno: int = 0


def named(planned: Action) -> tuple[str, dict[str, Any]]:
    fields: dict[str, Any] = msgspec.to_builtins(planned)
    return type(planned).__name__, fields


def framed(message: Question | Answer) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH, "big") + body
