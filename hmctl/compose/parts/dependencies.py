"""Which service waits for which, and whether all of them can ever start. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from hmcore.apps.spec import Dependency
from hmctl.compose.parts.network import Links
from hmctl.compose.parts.part import Fields, Part

_CONDITIONS: Mapping[str, Literal["started", "healthy", "completed"]] = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}


def depends_on(service: Fields, links: Links, services: Mapping[str, object]) -> dict[str, Dependency]:
    """What the file says, and what links imply. One that is not required, and not in the file, is nothing to wait for."""
    part = service["depends_on"]
    found: dict[str, Dependency] = {}
    if isinstance(part.value, Mapping):
        for name, entry in part.mapping().items():
            dependency = _dependency(entry)
            if name in services or dependency.required:
                found[name] = dependency
    else:
        found = {entry.text(): Dependency() for entry in part.entries()}
    for name in found:
        if name not in services:
            part.wrong(f"there is no service {name} in this file", "or it has profiles, and none of them is chosen")
    for name, _ in links:
        if name not in services:
            service["links"].wrong(f"there is no service {name} in this file", "or it has profiles, and none of them is chosen")
        found.setdefault(name, Dependency(restart=True))  # as Compose has it
    return {name: dependency for name, dependency in found.items() if name in services}


def awaited(dependencies: Iterable[Mapping[str, Dependency]], condition: str) -> set[str]:
    """Services for which another one waits in that way."""
    return {name for wanted in dependencies for name, dependency in wanted.items() if dependency.condition == condition}


def cycles(dependencies: Mapping[str, Mapping[str, Dependency]]) -> list[list[str]]:
    """Services that wait for each other: each cycle once, as far as they share no part. No recursion: files may be long."""
    found: list[list[str]] = []
    done: set[str] = set()
    for start in dependencies:
        way: dict[str, int] = {}  # from `start` on, each with its place
        ahead = [iter([start])]
        while ahead:
            name = next(ahead[-1], None)
            if name is None:
                ahead.pop()
                done.update([way.popitem()[0]] if way else [])
            elif name in way:
                found.append([*list(way)[way[name] :], name])
            elif name not in done:
                way[name] = len(way)
                ahead.append(iter(dependencies.get(name, ())))
    return found


def _dependency(entry: Part) -> Dependency:
    fields = entry.of("service.depends_on")
    condition = fields["condition"].choice(tuple(_CONDITIONS), "service_started") if fields.given("condition") else "service_started"
    return Dependency(condition=_CONDITIONS[condition], restart=fields["restart"].boolean(), required=fields["required"].boolean(True))
