"""A topic: what to run and what to make of it. And the small grammar that most commands answer in: `key=value` lines."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Topic(Generic[T]):
    """`command` is POSIX sh, run as root with LC_ALL=C and no input; it must print nothing that is not for `parse`, which is total:
    whatever a host prints gives a value, at worst one that says "unknown"."""

    name: str
    command: str
    parse: Callable[[str], T]


def pairs(text: str) -> dict[str, str]:
    """`key=value` lines; the last of a key counts, other lines are ignored."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            found[key.strip()] = value.strip()
    return found


def number(text: str, default: int = 0) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else default


def decimal(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e15 else None  # also refuses nan and inf


def content(text: str) -> bytes | None:
    """A file that was sent as base64; None when there was none."""
    if not text:
        return None
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError):
        return None
