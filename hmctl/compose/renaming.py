"""Services whose names have dots, which Compose allows: here `WEB.SHOP` is the service WEB of the app SHOP. Such a one gets dashes in their
place, keeps its old name as a further one on its networks, and whoever refers to it follows. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hmcore.config.problems import Path
from hmctl.compose.parts.names import HOST, SERVICE
from hmctl.compose.project import Project

Names = Mapping[str, str]


def without_dots(project: Project) -> tuple[Project, Names]:
    """And how the renamed services were called, by their names now. One stays as it is where another service has its new name, or would
    get it, or where more than dots is wrong with it."""
    services = project.value.get("services") if isinstance(project.value, Mapping) else None
    wanted = _wanted(services) if isinstance(services, Mapping) else {}
    if not wanted:
        return project, {}
    assert isinstance(services, Mapping)
    value = {**project.value, "services": {wanted.get(name, name): _service(name, service, wanted) for name, service in services.items()}}
    local = frozenset(with_names(path, wanted) for path in project.local)
    return replace(project, value=value, local=local), {new: old for old, new in wanted.items()}


def with_names(path: Path, names: Names) -> Path:
    """The path of a part, in a project whose services are called otherwise."""
    if len(path) > 1 and path[0] == "services" and isinstance(path[1], str) and path[1] in names:
        return (path[0], names[path[1]], *path[2:])
    return path


def _wanted(services: Mapping[Any, Any]) -> dict[str, str]:
    """New names by old ones."""
    dotted = {name: name.replace(".", "-") for name in services if isinstance(name, str) and "." in name}
    taken = [str(name).lower() for name in services if name not in dotted] + [new.lower() for new in dotted.values()]
    return {old: new for old, new in dotted.items() if taken.count(new.lower()) == 1 and SERVICE.holds(new) and HOST.holds(old)}


def _service(name: str, service: Any, wanted: Names) -> Any:
    if not isinstance(service, Mapping):
        return service
    found = dict(service)
    if name in wanted and found.get("network_mode") in (None, "", "bridge", "default"):
        found["networks"] = _called(found.get("networks"), name)
    if isinstance(needs := found.get("depends_on"), Mapping):
        found["depends_on"] = {wanted.get(other, other): how for other, how in needs.items()}
    elif isinstance(needs, list):
        found["depends_on"] = [wanted.get(other, other) if isinstance(other, str) else other for other in needs]
    if isinstance(links := found.get("links"), list):
        found["links"] = [_link(link, wanted) for link in links]
    return found


def _called(networks: Any, name: str) -> Any:
    """With `name` as an alias on each."""
    if isinstance(networks, list) and all(isinstance(network, str) for network in networks):
        networks = dict.fromkeys(networks)
    if networks is not None and not isinstance(networks, Mapping):
        return networks  # a mistake, which others tell
    return {network: _with_alias(how, name) for network, how in (networks or {"default": None}).items()}


def _with_alias(how: Any, name: str) -> Any:
    if how is not None and not isinstance(how, Mapping):
        return how
    aliases = (how or {}).get("aliases") or []
    return {**(how or {}), "aliases": [*aliases, name]} if isinstance(aliases, list) else how


def _link(link: Any, wanted: Names) -> Any:
    """Whoever links it knows it by the name that the link gives it, else by the one that it had."""
    if not isinstance(link, str):
        return link
    service, _, alias = link.partition(":")
    return f"{wanted[service]}:{alias or service}" if service in wanted else link
