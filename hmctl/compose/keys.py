"""By what an entry of a list is told from the others, where a later one takes the place of an earlier one: a port by both its ends, a mount
by where it stands in the container. Pure, and total: what cannot be read is equal only to what is written the same.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from hmctl.compose.tree import Node

Key = Callable[[Node], Hashable]


@dataclass(frozen=True, slots=True)
class ShortVolume:
    """`source:target:options` of a service's volumes; without a source an anonymous volume."""

    source: str
    target: str
    options: str = ""


def written(node: Node) -> Hashable:
    """As it is written: `1` is `"1"`."""
    match node.value:
        case dict(entries):
            return tuple((key, written(child)) for key, child in sorted(entries.items()))
        case tuple(items):
            return tuple(map(written, items))
        case scalar:
            return str(scalar)


def by(name: str, short: Callable[[str], Hashable] = str) -> Key:
    """Of a mapping its entry `name`; of text what `short` makes of it."""

    def key(node: Node) -> Hashable:
        if name in node.entries:
            return written(node.entries[name])
        return short(node.text) if node.text is not None else written(node)

    return key


def port(node: Node) -> Hashable:
    """Address, published, target, protocol."""
    if node.entries:
        part = {key: str(child.value) for key, child in node.entries.items()}
        return part.get("host_ip") or "0.0.0.0", part.get("published", ""), part.get("target", ""), part.get("protocol", "tcp")  # noqa: S104
    text, _, protocol = str(node.value).partition("/")
    rest, _, target = text.rpartition(":")
    address, _, published = rest.rpartition(":")
    return address.strip("[]") or "0.0.0.0", published, target, protocol.lower() or "tcp"  # noqa: S104


def volume(node: Node) -> Hashable:
    target = node.entries.get("target")
    text = target.text if target else short_volume(node.text).target if node.text is not None else None
    return posixpath.normpath(text) if text else written(node)


def short_volume(text: str) -> ShortVolume:
    first, colon, rest = text.partition(":")
    target, _, options = rest.partition(":")
    return ShortVolume(first, target, options) if colon else ShortVolume("", first)


def mount(folder: str) -> Key:
    """A secret or a config, by where it stands."""

    def key(node: Node) -> Hashable:
        if "target" in node.entries:
            return written(node.entries["target"])
        source = node.entries.get("source", node)
        return f"{folder}/{source.value}" if isinstance(source.value, str) else written(node)

    return key


device = by("target", lambda text: text.split(":")[1] if ":" in text else text)
tmpfs = by("", lambda text: text.partition(":")[0])
named = by("", lambda text: text.partition("=")[0])
