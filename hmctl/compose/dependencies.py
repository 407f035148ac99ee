"""Which services there are with some profiles on, and whether what they depend on is among them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hmcore.config.problems import nearest
from hmctl.compose.tree import Node
from hmctl.compose.trouble import Trouble

MAX_CIRCLES = 10  # that are spoken of


def enabled(service: Node, profiles: Collection[str]) -> bool:
    """One without profiles always is; `*` stands for all of them. Without any that are asked for, one without a name is on: that of an
    empty variable."""
    wanted = _profiles(service)
    asked = profiles or ("",)
    return not wanted or "*" in asked or any(item.text in asked for item in wanted)


def unknown_profiles(services: Mapping[str, Node], profiles: Collection[str]) -> Mapping[str, str]:
    """Those that are asked for and no service has, each with what helps. Docker Compose takes them for nothing, so that a slip of the
    finger takes services away."""
    known = sorted({item.text for service in services.values() for item in _profiles(service) if item.text})
    hopeless = "no service has any profile"
    return {each: nearest(each, known) if known else hopeless for each in profiles if each not in ("", "*", *known)}


def _profiles(service: Node) -> Sequence[Node]:
    wanted = service.entries.get("profiles")
    return wanted.items if wanted else ()


def selected(services: Mapping[str, Node], profiles: Collection[str], trouble: Trouble) -> dict[str, Node]:
    """The services that are on. What they depend on without requiring it, and is off, is no longer among their dependencies."""
    on = {name: service for name, service in services.items() if enabled(service, profiles)}
    checked = {name: _checked(name, service, services, on, trouble) for name, service in on.items()}
    for circle in _circles(checked)[:MAX_CIRCLES]:
        first = checked[circle[0]]
        place = (first.at("depends_on", circle[1]) or first).place
        trouble.wrong(place, ("services", circle[0], "depends_on"), f"these wait for each other: {' -> '.join(circle[:20])}")
    return checked


def _checked(name: str, service: Node, services: Mapping[str, Node], on: Mapping[str, Node], trouble: Trouble) -> Node:
    needs = service.entries.get("depends_on")
    if needs is None:
        return service
    kept = {}
    for other, how in needs.entries.items():
        required = how.entries.get("required")
        path = ("services", name, "depends_on", other)
        if other in on:
            kept[other] = how
        elif other not in services:
            trouble.wrong(
                how.place, path, f"there is no service {other}", nearest(other, [key for key in services if key != name] or ["none"])
            )
        elif required is None or required.value is not False:
            profiles = services[other].entries["profiles"].items
            hint = " or ".join(f"--profile {profile.value}" for profile in profiles[:3])
            trouble.wrong(how.place, path, f"the service {other} is not part of the profiles that are on", f"{hint}; or required: false")
    return service.having(depends_on=needs.holding(kept)) if kept else service.without("depends_on")


def _circles(services: Mapping[str, Node]) -> list[list[str]]:
    """Of services that wait for each other, one way round each, its first service again at its end. No recursion: there may be many."""
    found: list[list[str]] = []
    done: set[str] = set()
    for start in services:
        way: list[str] = []
        standing: dict[str, None] = {}
        stack: list[tuple[str, bool]] = [(start, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                standing.pop(name)
                way.pop()
                done.add(name)
            elif name in standing:
                found.append([*way[way.index(name) :], name])
            elif name not in done:
                standing[name] = None
                way.append(name)
                stack.append((name, True))
                needs = services[name].at("depends_on")
                stack += [(other, False) for other in (needs.entries if needs else ()) if other in services]
    return found
