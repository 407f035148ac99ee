"""`extends`: a service takes over what another has, of the same file or of another one, and says what is different. Pure but for `others`.

https://github.com/compose-spec/compose-spec/blob/main/05-services.md#extends
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hmcore.config.problems import nearest
from hmcore.config.yaml12 import MAX_PARTS
from hmctl.compose.merge import merge
from hmctl.compose.sources import Asking, joined
from hmctl.compose.tree import Node, settled
from hmctl.compose.trouble import Trouble

MAX_CHAIN = 50  # services, each extending the next

Open = Callable[[Path, Asking], Node | None]


@dataclass(frozen=True, slots=True)
class Origin:
    """A file: where it is, the folder its relative paths begin in, and what is in it."""

    file: Path
    folder: Path
    root: Node


def extended(root: Node, file: Path, folder: Path, home: str | None, others: Open, trouble: Trouble) -> Node:
    """`root` with each `extends` carried out. `others` opens another file (interpolated, its paths absolute), or says why not."""
    work = _Extending(home, others, trouble)
    origin = Origin(file, folder, root)
    services = root.entries.get("services")
    if services is None:
        return root
    return root.having(services=services.holding({name: work.service(name, origin, ()) for name in services.entries}))


class _Extending:
    def __init__(self, home: str | None, others: Open, trouble: Trouble) -> None:
        self.home, self.others, self.trouble = home, others, trouble
        self.done: dict[tuple[Path, str], Node] = {}
        self.size = 0

    def service(self, name: str, origin: Origin, chain: tuple[tuple[Path, str], ...]) -> Node:
        """Service `name` of `origin` with all that it extends below it; its own tags stay. `chain`: the services that extend it."""
        key = (origin.file, name)
        if key not in self.done:
            service = origin.root.entries["services"].entries[name]
            self.done[key] = self.over(service, name, origin, (*chain, key)) if "extends" in service.entries else service
            self.size += self.done[key].size
        return self.done[key]

    def over(self, service: Node, name: str, origin: Origin, chain: tuple[tuple[Path, str], ...]) -> Node:
        extends, own = service.entries["extends"], service.without("extends")
        where = ("services", name, "extends")
        if self.size > MAX_PARTS:
            self.trouble.wrong(extends.place, where, f"the services have more than {MAX_PARTS} parts once they are extended")
            return own
        base, source = self.base(extends, name, origin)
        if base is None or source is None:
            return own
        key = (source.file, base)
        if key in chain:
            circle = [*chain[chain.index(key) :], key]
            told = " -> ".join(service if file == origin.file else f"{service} of {file}" for file, service in circle[:20])
            self.trouble.wrong(extends.place, where, f"these extend each other: {told}")
            return own
        if len(chain) >= MAX_CHAIN:
            self.trouble.wrong(extends.place, where, f"more than {MAX_CHAIN} services extend one another")
            return own
        return merge(settled(self.service(base, source, chain)), own, self.trouble, ("services", name))

    def base(self, extends: Node, name: str, origin: Origin) -> tuple[str | None, Origin | None]:
        """Which service of which file; None: it cannot be told, and was said."""
        where = ("services", name, "extends")
        wanted, file = extends.entries.get("service"), extends.entries.get("file")
        if wanted is None or not wanted.text or (file and not file.text):
            self.trouble.wrong(extends.place, where, "names no service", "service: NAME, and file: PATH if it is in another one")
            return None, None
        source: Origin | None = origin
        if file and file.text:
            path = joined(origin.folder, file.text, self.home)
            root = self.others(path, Asking(file.place, (*where, "file")))
            source = Origin(path, path.parent, root) if root else None
        if source is None:
            return None, None
        services = source.root.entries.get("services")
        if not services or wanted.text not in services.entries:
            known = [service for service in (services.entries if services else {}) if service != name or source is not origin]
            self.trouble.wrong(
                wanted.place,
                (*where, "service"),
                f"there is no service {wanted.text} in {source.file}",
                nearest(wanted.text, known or ["none"]),
            )
            return None, None
        return wanted.text, source
