"""What an app was to be before: its generations, what each changed, and the one to go back to. Pure."""

from __future__ import annotations

import msgspec

from hmcore.apps.records import App, Generation
from hmcore.apps.spec import AppSpec
from hmcore.errors import HyperMeshError
from hmctl.actions.apps.view import Seen
from hmctl.compose.difference import Detail, difference

MOST_SAID = 5  # changes of a service in a table; -o json has them all
_SHARED = ("volumes", "networks", "secrets", "configs")  # what no service has by itself
_CALLED = {"image_id": "image", "node_ports": "ports"}


class GenerationView(msgspec.Struct, frozen=True, kw_only=True):
    """`origin`: the generation that it brings back; null: a new one. `reached`: all services came to be like this once. `author` empty:
    the cluster itself, which took back what failed. `changed`: by service, in few words, against the one before it of those that are kept;
    by an empty name what no service has by itself; null: there is none before it."""

    number: int
    present: bool
    reached: bool
    origin: int | None
    author: str
    note: str
    unix_time: float
    services: dict[str, str]
    changed: dict[str, list[str]] | None


class AppHistory(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl app history`, the oldest generation first. `services`: the image of each."""

    name: str
    index: int
    generations: list[GenerationView]


def history(seen: Seen, app: App) -> AppHistory:
    kept = sorted(seen.generations(app.name), key=lambda each: each.number)
    views = [
        GenerationView(
            number=each.number,
            present=each.number == app.generation,
            reached=each.reached,
            origin=each.origin or None,
            author=each.author,
            note=each.note,
            unix_time=each.unix_time,
            services={name: spec.container.image for name, spec in sorted(each.spec.services.items())},
            changed=None if before is None else changed(before.spec, each.spec),
        )
        for before, each in zip([None, *kept], kept, strict=False)
    ]
    return AppHistory(name=app.name, index=seen.reply.index, generations=views)


def changed(old: AppSpec, new: AppSpec) -> dict[str, list[str]]:
    """By service: fields, and of numbers what they were and are. No values of other kinds, which may be long or secret."""
    found: dict[str, list[str]] = {}
    for change in difference(old, new):
        match change.kind:
            case "unchanged":
                continue
            case "created" | "removed":
                found[change.service] = [change.kind]
            case _:
                found[change.service] = list(dict.fromkeys(map(_short, (*change.because, *change.settings))))
    if not found and (shared := [name for name in _SHARED if getattr(old, name) != getattr(new, name)]):
        found[""] = shared
    return found


def _short(detail: Detail) -> str:
    if isinstance(detail.old, int) or isinstance(detail.new, int):
        return detail.words.replace(": ", " ", 1)
    return _CALLED.get(detail.path, detail.path)


def changed_words(found: dict[str, list[str]] | None) -> str:
    """`web: image, replicas 3 -> 5; db: removed`."""
    if found is None:
        return "-"
    return "; ".join(f"{name}: {_some(words)}" if name else _some(words) for name, words in found.items()) or "nothing"


def _some(words: list[str]) -> str:
    more = [f"and {len(words) - MOST_SAID} more"] if len(words) > MOST_SAID else []
    return ", ".join([*words[:MOST_SAID], *more])


def earlier(seen: Seen, app: App, number: int = 0) -> Generation:
    """The generation to go back to: `number`, or the latest other one that was healthy (as the agents have it). Raises HyperMeshError."""
    kept = sorted(seen.generations(app.name), key=lambda each: each.number)
    look = f"hmctl app history {app.name}"
    if number:
        found = next((each for each in kept if each.number == number), None)
        if found is None:
            known = ", ".join(str(each.number) for each in kept)
            raise HyperMeshError(f"{app.name} has no generation {number}; there are {known}", fix=look)
        return found
    present = seen.present(app).digest
    reached = [each for each in kept if each.reached and each.digest != present]
    if not reached:
        raise HyperMeshError(f"{app.name} has no other generation that was healthy", fix=look)
    return reached[-1]
