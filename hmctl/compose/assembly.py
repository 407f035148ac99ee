"""From the files of an app to one tree: what is done to a file, to a set of files, and to what comes of it, in which order."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hmcore.config.yaml12 import MAX_PARTS
from hmctl.compose.blanks import without_blanks
from hmctl.compose.dependencies import selected
from hmctl.compose.environment import resolved, variables, with_files
from hmctl.compose.extends import Open, extended
from hmctl.compose.forms import shaped
from hmctl.compose.include import Inclusion, imported, inclusions
from hmctl.compose.interpolation import interpolated
from hmctl.compose.merge import merge
from hmctl.compose.paths import Folders, absolute, with_contexts
from hmctl.compose.project import Place
from hmctl.compose.sources import MAX_FILES, Asking, Sources
from hmctl.compose.tree import Node, settled
from hmctl.compose.trouble import Trouble

MAX_STACK = 20  # files, each including the next
MAX_READ = MAX_PARTS  # parts of all files, counted as often as these are included or extended


@dataclass(frozen=True, slots=True)
class Scope:
    """In which folder relative paths of a set of files begin, and what its variables are."""

    folder: Path
    environment: Mapping[str, str]


class Assembly:
    def __init__(self, sources: Sources, home: str | None, trouble: Trouble) -> None:
        self.sources, self.home, self.trouble = sources, home, trouble
        self.secrets: dict[str, str] = {}
        self.opened = self.parts = 0

    def whole(self, files: tuple[Path, ...], scope: Scope, stack: tuple[Path, ...] = (), asking: Asking | None = None) -> Node:
        """A set of files, merged. `stack`: the files that include it, outermost first."""
        whole: Node | None = None
        for path in files:
            for root in self.documents(path, scope, asking or Asking(Place(str(path), 0))):
                wider = self.with_included(root, scope, (*stack, path))
                wider = extended(wider, path, scope.folder, self.home, self.opener(scope), self.trouble)
                whole = settled(merge(whole, wider, self.trouble))
        if whole is None:
            return Node({}, Place("compose.yaml", 1))
        whole = with_contexts(whole, self.folders(scope))
        return resolved(whole, scope.environment, self.secrets, self.trouble)

    def documents(self, path: Path, scope: Scope, asking: Asking) -> Iterator[Node]:
        """Those of a file, each by itself, as if it were a file: variables put in, in forms that can be merged, its paths absolute."""
        self.opened += 1
        if self.opened > MAX_FILES:
            self.trouble.wrong(asking.place, asking.where, f"more than {MAX_FILES} files are to be read")
            return
        for written in self.sources.documents(path, asking):
            self.parts += written.size
            if self.parts > MAX_READ:
                self.trouble.wrong(asking.place, asking.where, f"more than {MAX_READ} parts are to be read")
                return
            yield self.prepared(written, scope)

    def prepared(self, written: Node, scope: Scope) -> Node:
        root = shaped(interpolated(written, scope.environment, self.trouble), self.trouble)
        if version := root.entries.get("version"):
            self.trouble.odd(version.place, ("version",), "is obsolete and means nothing", "leave it out")
        return absolute(root.without("version", "name"), self.folders(scope), self.trouble)

    def folders(self, scope: Scope) -> Folders:
        return Folders(os.path.abspath(scope.folder), self.home)

    def opener(self, scope: Scope) -> Open:
        """How a service of `scope` gets at a file that it extends."""
        seen: dict[Path, Node | None] = {}

        def open_file(path: Path, asking: Asking) -> Node | None:
            if path not in seen:
                whole: Node | None = None
                for root in self.documents(path, Scope(path.parent, scope.environment), asking):
                    whole = merge(settled(whole), root, self.trouble) if whole else root
                seen[path] = whole
            return seen[path]

        return open_file

    def with_included(self, root: Node, scope: Scope, stack: tuple[Path, ...]) -> Node:
        for inclusion in inclusions(root, scope.folder, self.home, self.trouble):
            again = next((path for path in inclusion.files if path in stack), None)
            if again is not None:
                circle = " -> ".join(map(str, (*stack[stack.index(again) :], again)))
                self.trouble.wrong(inclusion.asking.place, inclusion.asking.where, f"these files include each other: {circle}")
            elif len(stack) > MAX_STACK:
                self.trouble.wrong(inclusion.asking.place, inclusion.asking.where, f"more than {MAX_STACK} files include one another")
            else:
                included = self.whole(inclusion.files, self.inner(inclusion, scope), stack, inclusion.asking)
                root = imported(root, included, self.trouble)
            if root.size > MAX_PARTS:
                self.trouble.wrong(inclusion.asking.place, inclusion.asking.where, f"more than {MAX_PARTS} parts with what is included")
                break
        return root.without("include")

    def inner(self, inclusion: Inclusion, scope: Scope) -> Scope:
        """What is included has variables of its own, below those of who includes it."""
        files = inclusion.env_files
        if files is None:
            files = tuple(path for path in (inclusion.folder / ".env",) if self.sources.has(path))
        known = variables(tuple((path, inclusion.asking) for path in files), scope.environment, self.sources, self.trouble)
        return Scope(inclusion.folder, known)

    def running(self, root: Node, scope: Scope, profiles: Collection[str]) -> Node:
        """`root` with only the services that are on, complete, and without parts that are empty."""
        services = root.entries.get("services")
        if services is None or not services.entries:
            if not self.trouble.serious:
                self.trouble.wrong((services or root).place, ("services",), "there are none")
            return root
        found = selected(services.entries, profiles, self.trouble)
        complete = {
            name: _full(with_files(name, service, scope.environment, self.sources, self.trouble)) for name, service in found.items()
        }
        return _full(without_blanks(root.having(services=services.holding(complete))))


def _full(node: Node) -> Node:
    return node.holding({key: child for key, child in node.entries.items() if child.value is not None})
