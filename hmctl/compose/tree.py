"""A compose tree in which every part knows where it was written, so that files can be merged and a mistake still has its line. Frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hmcore.config.problems import Path as Where
from hmcore.config.yaml12 import Located
from hmctl.compose.project import Place

RESET, OVERRIDE = "!reset", "!override"
Scalar = None | bool | int | float | str


@dataclass(frozen=True, slots=True)
class Node:
    """A part of a file: a scalar, a list (as a tuple), or a mapping, which nobody changes once it is in here.

    `tag`: `!reset` (what is here goes, also from the files before), `!override` (it takes the place of what was there), or nothing.
    `local`: a path that was written relative to a file, or with `~`: whatever it is now, it is one of the operator's machine.
    `size`: of how many parts it consists.
    """

    value: Scalar | tuple[Node, ...] | dict[str, Node]
    place: Place
    tag: str = ""
    local: bool = False
    size: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", 1 + sum(child.size for _, child in self.children()))

    def children(self) -> Iterator[tuple[str | int, Node]]:
        match self.value:
            case dict(entries):
                yield from entries.items()
            case tuple(items):
                yield from enumerate(items)

    @property
    def entries(self) -> Mapping[str, Node]:
        """Of a mapping; of anything else nothing."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> tuple[Node, ...]:
        """Of a list; of anything else nothing."""
        return self.value if isinstance(self.value, tuple) else ()

    @property
    def text(self) -> str | None:
        return self.value if isinstance(self.value, str) else None

    def holding(self, value: Scalar | tuple[Node, ...] | dict[str, Node]) -> Node:
        """At the same place, with the same tag."""
        return Node(value, self.place, self.tag)

    def at(self, *path: str) -> Node | None:
        """The part at `path`, if there is one."""
        found: Node | None = self
        for key in path:
            found = found.entries.get(key) if found else None
        return found

    def without(self, *keys: str) -> Node:
        return self.holding({key: child for key, child in self.entries.items() if key not in keys})

    def having(self, **entries: Node) -> Node:
        return self.holding({**self.entries, **entries})


def planted(document: Located) -> Node:
    """What yaml12 has read."""

    def plant(value: Any, path: Where) -> Node:
        place, tag = Place(document.file, document.lines.get(path, 1)), document.tags.get(path, "")
        match value:
            case dict():
                return Node({key: plant(part, (*path, key)) for key, part in value.items()}, place, tag)
            case list():
                return Node(tuple(plant(part, (*path, index)) for index, part in enumerate(value)), place, tag)
            case _:
                return Node(value, place, tag)

    return plant(document.value, ())


@dataclass(frozen=True, slots=True)
class Harvest:
    """Plain values, where each was written, and which are `local`."""

    value: Any
    places: Mapping[Where, Place]
    local: frozenset[Where]


def harvested(root: Node) -> Harvest:
    places: dict[Where, Place] = {}
    local: set[Where] = set()

    def harvest(node: Node, path: Where) -> Any:
        places[path] = node.place
        if node.local:
            local.add(path)
        match node.value:
            case dict(entries):
                return {key: harvest(child, (*path, key)) for key, child in entries.items()}
            case tuple(items):
                return [harvest(child, (*path, index)) for index, child in enumerate(items)]
            case str(text):
                return str(text)  # no longer marked as from a variable: whoever takes it may know no other text
            case scalar:
                return scalar

    return Harvest(harvest(root, ()), places, frozenset(local))


def settled(node: Node) -> Node:
    """Without tags, once they have had their effect: what was to go is gone."""
    match node.value:
        case dict(entries):
            return Node({key: settled(child) for key, child in entries.items() if child.tag != RESET}, node.place)
        case tuple(items):
            return Node(tuple(settled(child) for child in items if child.tag != RESET), node.place)
        case scalar:
            return Node(scalar, node.place, local=node.local) if node.tag else node
