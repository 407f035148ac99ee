"""Paths of the operator's machine, made absolute against the folder of the file in which they stand. Pure.

`include` and `extends` have paths of their own: include.py and extends.py resolve those when they follow them.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hmcore.config.problems import Path as Where
from hmctl.compose.keys import short_volume
from hmctl.compose.parts.machine import is_of_windows
from hmctl.compose.tree import Node
from hmctl.compose.trouble import Trouble

_REMOTE = ("https://", "http://", "git://", "ssh://", "github.com/", "git@")


@dataclass(frozen=True, slots=True)
class Folders:
    """Absolute paths: what relative ones are relative to, and what `~` stands for."""

    base: str
    home: str | None

    def absolute(self, path: str) -> str:
        """What is absolute stays as it is written, as with Docker Compose."""
        if path.startswith("/"):
            return path
        if path == "~" or path.startswith("~/"):
            path = (self.home or "~") + path[1:]
        return os.path.normpath(os.path.join(self.base, path))


Resolver = Callable[[Node, Where, Folders, Trouble], Node]


def absolute(root: Node, folders: Folders, trouble: Trouble) -> Node:
    """A whole file, in the forms of forms.py."""
    return _resolved(root, (), RESOLVERS, folders, trouble)


def with_contexts(root: Node, folders: Folders) -> Node:
    """`root`, each `build` with its context: if it names none, the folder itself."""
    services = root.entries.get("services")
    if services is None:
        return root
    found = {name: (service, service.entries.get("build")) for name, service in services.entries.items()}
    complete = {
        name: service.having(build=build.having(context=Node(folders.base, build.place)))
        if build and isinstance(build.value, dict) and "context" not in build.entries
        else service
        for name, (service, build) in found.items()
    }
    return root.having(services=services.holding(complete))


def _resolved(node: Node, path: Where, resolvers: Any, folders: Folders, trouble: Trouble) -> Node:
    if callable(resolvers):
        resolved: Node = resolvers(node, path, folders, trouble)
        return resolved
    match node.value:
        case dict(entries):
            found = {key: (child, resolvers.get(key) or resolvers.get("*")) for key, child in entries.items()}
            return node.holding(
                {
                    key: _resolved(child, (*path, key), deeper, folders, trouble) if deeper else child
                    for key, (child, deeper) in found.items()
                }
            )
        case tuple(items) if deeper := resolvers.get("[]"):
            return node.holding(tuple(_resolved(child, (*path, index), deeper, folders, trouble) for index, child in enumerate(items)))
        case _:
            return node


def _path(node: Node, path: Where, folders: Folders, trouble: Trouble) -> Node:
    return Node(folders.absolute(node.text), node.place, node.tag, local=not node.text.startswith("/")) if node.text else node


def _context(node: Node, path: Where, folders: Folders, trouble: Trouble) -> Node:
    text = node.text or ""
    return node if "://" in text or text.startswith(("service:", *_REMOTE)) else _path(node, path, folders, trouble)


def _volume(node: Node, path: Where, folders: Folders, trouble: Trouble) -> Node:
    """In the short form a source is a path if it looks like one; in the long form it says so."""
    if node.text is None:
        given, kind = node.entries.get("source"), node.entries.get("type")
        if given is None or not given.text or kind is None or kind.value != "bind" or is_of_windows(given.text):
            return node
        return node.having(source=_path(given, path, folders, trouble))
    short = short_volume(node.text)
    if not short.source.startswith((".", "/", "~")):
        return node
    source = folders.absolute(short.source)
    if ":" in source:
        trouble.wrong(
            node.place, path, f"the short form cannot hold the path {source}: there is a : in it", "type: bind, source: ..., target: ..."
        )
    return Node(f"{source}:{node.text.partition(':')[2]}", node.place, node.tag, local=not short.source.startswith("/"))


def _driver_options(node: Node, path: Where, folders: Folders, trouble: Trouble) -> Node:
    """A volume of the local driver that is a folder of the machine: `driver_opts: {o: bind, device: ./data}`."""
    driver, options = node.entries.get("driver"), node.entries.get("driver_opts")
    device, kind = (options.entries.get("device"), options.entries.get("o")) if options else (None, None)
    if not options or not device or not driver or driver.value != "local" or not kind or kind.value != "bind":
        return node
    return node.having(driver_opts=options.having(device=_path(device, path, folders, trouble)))


_SERVICE = {
    "build": {"context": _context, "additional_contexts": {"*": _context}},
    "env_file": {"[]": {"path": _path}},
    "label_file": {"[]": _path},
    "volumes": {"[]": _volume},
    "develop": {"watch": {"[]": {"path": _path}}},
}
RESOLVERS: dict[str, Any] = {
    "services": {"*": _SERVICE},
    "configs": {"*": {"file": _path}},
    "secrets": {"*": {"file": _path}},
    "volumes": {"*": _driver_options},
}
