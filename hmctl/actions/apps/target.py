"""One replica of an app, or some of its replicas, as a person names them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hmcore.apps.records import Allocation
from hmcore.errors import HyperMeshError, UsageError
from hmctl.actions.apps.view import Seen, checked_service, split
from hmctl.text import listed

_WHOSE = re.compile(r"([^/.@]+)(?:\.([0-9]{1,9})|@([^/.@]+))?", re.ASCII)  # no service's name has a dot or an @


@dataclass(frozen=True, slots=True)
class Target:
    """`service` empty: all of the app. `index`: the replica's number; None: any. `node` empty: wherever it is."""

    app: str
    service: str
    index: int | None = None
    node: str = ""

    def __str__(self) -> str:
        if self.index is None:
            return f"{self.app}{'/' if self.service else ''}{self.service}{f'@{self.node}' if self.node else ''}"
        return f"{self.app}/{self.service}.{self.index}{f' on {self.node}' if self.node else ''}"


def target(text: str) -> Target:
    """APP, APP/SERVICE, APP/SERVICE.INDEX or APP/SERVICE@NODE, as replicas of a global service are told apart. Raises UsageError."""
    name, whose = split(text)
    if not whose:
        return Target(name, "")
    found = _WHOSE.fullmatch(whose)
    if found is None:
        raise no_replica(text, name)
    return Target(name, found[1], None if found[2] is None else int(found[2]), found[3] or "")


def replica_target(text: str, node: str = "") -> Target:
    """What may be one replica: a service is named. `node`: where it has to be, too. Raises UsageError."""
    found = target(text)
    if not found.service:
        raise no_replica(text, found.app)
    if node and found.node not in ("", node):
        raise UsageError(f"{text} is not on {node}", fix="name one node")
    return Target(found.app, found.service, found.index, node or found.node)


def meant(seen: Seen, wanted: Target) -> list[Allocation]:
    """The replicas that are meant; none: see `absent`. Raises HyperMeshError when there is no such app or service."""
    service = checked_service(seen, seen.app(wanted.app), wanted.service)
    found = [each for each in seen.allocations(wanted.app, service or None) if wanted.node in ("", each.node)]
    return [each for each in found if wanted.index in (None, each.slot)]


def absent(seen: Seen, wanted: Target) -> HyperMeshError:
    """What to say of a replica that there is not."""
    whose = f"{wanted.app}/{wanted.service}"
    there = sorted({each.located for each in seen.allocations(wanted.app, wanted.service)})
    fix = f"hmctl app ps {whose}" if there else f"hmctl app explain {whose}"
    return HyperMeshError(f"there is no replica {wanted}; there are {listed(there)}", fix=fix)


def no_replica(text: str, name: str) -> UsageError:
    forms = "APP/SERVICE.INDEX, or APP/SERVICE@NODE of a global service"
    return UsageError(f"{text!r} names no replica", fix=f"give {forms}: hmctl app ps {name}")
