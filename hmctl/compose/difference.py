"""What changes from one spec of an app to another: for a plan that a person reads, and as data. Pure.

A container is replaced if its service's revision (hmcore/apps/spec.py) is another; why, is said field by field. Values that may be secret
are never shown, only that they are others: of environment, labels, options of drivers and commands those that look it (secretive.py); of
checks all.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from hmcore.apps.spec import AppSpec, Attachment, ServiceSpec, Source, Volume, revision
from hmctl.compose.describing import amount, file_words, mount_words, port_words, short_id, shown
from hmctl.compose.secretive import secretive, secretive_command
from hmctl.text import printable

HIDDEN = "(hidden)"
_PAIRS = ("environment", "labels", "options")
_COMMANDS = ("command", "entrypoint")
_HIDDEN = ("test", "security_opt")
_NOTHING: Any = object()

Kind = Literal["created", "removed", "replaced", "changed", "unchanged"]
Value = str | int | float | bool | list[Any] | dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Detail:
    """One thing that changes. `old`, `new`: None: nothing; HIDDEN: not to be shown. `words`: all of it, as a person reads it."""

    path: str
    old: Value
    new: Value
    words: str


@dataclass(frozen=True, slots=True)
class Change:
    """Of a service. `because`: why its containers are replaced. `settings`: what changes without that."""

    service: str
    kind: Kind
    because: tuple[Detail, ...] = ()
    settings: tuple[Detail, ...] = ()


def difference(old: AppSpec | None, new: AppSpec) -> tuple[Change, ...]:
    """By the services' names. `old` None: there was no such app. What is not known of `new` yet (an image's id, a content's digest) counts
    as what it was."""
    known = _known(old, new) if old else new
    names = sorted({*(old.services if old else {}), *new.services})
    return tuple(_change(name, old, known) for name in names)


def changed(changes: tuple[Change, ...]) -> bool:
    return any(change.kind != "unchanged" for change in changes)


def lines(changes: tuple[Change, ...]) -> tuple[str, ...]:
    """For a plan: a line for each service, and one, indented, for each thing that changes about it."""
    words = {"created": "create", "removed": "remove", "replaced": "replace containers of", "changed": "change", "unchanged": "keep"}
    said: list[str] = []
    for change in changes:
        said.append(f"{words[change.kind]} {printable(change.service)}")
        said += [f"  {detail.words}" for detail in (*change.because, *change.settings)]
    return tuple(said)


def documents(changes: tuple[Change, ...]) -> list[dict[str, Any]]:
    """The same for -o json."""
    return [
        {
            "service": change.service,
            "action": change.kind,
            "changes": [
                {"path": detail.path, "old": detail.old, "new": detail.new, "replaces": replaces}
                for details, replaces in ((change.because, True), (change.settings, False))
                for detail in details
            ],
        }
        for change in changes
    ]


def _known(old: AppSpec, new: AppSpec) -> AppSpec:
    def service(name: str, after: ServiceSpec) -> ServiceSpec:
        before = old.services.get(name)
        if before is None or after.container.image_id or after.container.image != before.container.image:
            return after
        return replace(after, container=replace(after.container, image_id=before.container.image_id))

    def sources(before: Mapping[str, Source], after: Mapping[str, Source]) -> dict[str, Source]:
        return {
            name: replace(source, digest=before[name].digest)
            if not source.digest and name in before and before[name].name == source.name
            else source
            for name, source in after.items()
        }

    return replace(
        new,
        services={name: service(name, after) for name, after in new.services.items()},
        secrets=sources(old.secrets, new.secrets),
        configs=sources(old.configs, new.configs),
    )


def _change(name: str, old: AppSpec | None, new: AppSpec) -> Change:
    before = old.services.get(name) if old else None
    after = new.services.get(name)
    if after is None:
        return Change(name, "removed")
    if old is None or before is None:
        return Change(name, "created", settings=tuple(_summary(after)))
    settings = tuple(_settings(before, after))
    if revision(old, name) != revision(new, name):
        order = Detail("order", None, None, "the order in which it is put together")
        return Change(name, "replaced", tuple(_reasons(name, old, new)) or (order,), settings)
    return Change(name, "changed" if settings else "unchanged", settings=settings)


def _summary(spec: ServiceSpec) -> Iterator[Detail]:
    image = printable(spec.container.image)
    yield Detail("image", None, image, f"image: {image}")
    if spec.mode == "global":
        yield Detail("mode", None, "global", "on every node that fits")
    else:
        yield Detail("replicas", None, spec.replicas, f"replicas: {spec.replicas}")
    yield from (Detail("ports", None, port_words(port), f"port: {port_words(port)}") for port in spec.ports)


def _settings(before: ServiceSpec, after: ServiceSpec) -> Iterator[Detail]:
    both = [{name: part for name, part in _full(spec).items() if name not in ("container", "ports")} for spec in (before, after)]
    yield from _compare("", both[0], both[1])
    earlier, later = ({port_words(port) for port in spec.ports} for spec in (before, after))
    yield from (Detail("ports", each, None, f"port: {each} -> nothing") for each in sorted(earlier - later))
    yield from (Detail("ports", None, each, f"port: nothing -> {each}") for each in sorted(later - earlier))


def _reasons(name: str, old: AppSpec, new: AppSpec) -> Iterator[Detail]:
    """Everything that revision() looks at."""
    before, after = old.services[name].container, new.services[name].container
    both = [{name: part for name, part in _full(spec).items() if name not in ("mounts", "files", "image_id")} for spec in (before, after)]
    if before.image == after.image and before.image_id != after.image_id:
        ids = short_id(before.image_id), short_id(after.image_id)
        words = f"image: {printable(after.image)} is another one now ({ids[0] or 'not known'} -> {ids[1] or 'not known'})"
        yield Detail("image_id", ids[0] or None, ids[1] or None, words)
    yield from _compare("", both[0], both[1])
    yield from _keyed("mount", before.mounts, after.mounts, mount_words)
    yield from _keyed("file", before.files, after.files, file_words)
    for mount in after.mounts:
        if mount.kind == "volume" and mount.source and mount in before.mounts:
            yield from _volume(mount.source, old.volumes.get(mount.source), new.volumes.get(mount.source))
    for file in after.files:
        if file in before.files:
            yield from _source(file, old, new)
    if (ports := _of_node(old.services[name])) != (later := _of_node(new.services[name])):
        yield Detail("node_ports", ports, later, "ports on its node")


def _of_node(spec: ServiceSpec) -> list[Any]:
    return [port_words(port) for port in spec.ports if spec.container.network_mode or port.mode == "host"]


def _volume(name: str, before: Volume | None, after: Volume | None) -> Iterator[Detail]:
    if before != after:
        both = [_full(volume) if volume else {} for volume in (before, after)]
        yield from _compare(f"volumes.{name}.", both[0], both[1])


def _source(file: Attachment, old: AppSpec, new: AppSpec) -> Iterator[Detail]:
    """Contents are never shown, nor their digests: a short secret could be guessed from one."""
    before, after = ((spec.secrets if file.kind == "secret" else spec.configs).get(file.source, Source(name="")) for spec in (old, new))
    path, called = f"{file.kind}s.{file.source}", f"{file.kind} {file.source}"
    if before.name != after.name:
        yield Detail(path, before.name or None, after.name or None, f"{called}: {shown(before.name)} -> {shown(after.name)}")
    elif before.digest != after.digest:
        yield Detail(path, HIDDEN, HIDDEN, f"{called}: other content")


def _full(value: Any) -> Any:
    """As plain values, what is as usual included: it is worth telling once it changes."""
    match value:
        case msgspec.Struct():
            return {name: _full(getattr(value, name)) for name in value.__struct_fields__}
        case dict():
            return {key: _full(part) for key, part in value.items()}
        case list() | tuple():
            return [_full(part) for part in value]
        case _:
            return value


def _compare(where: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Detail]:
    """Two plain values of the same type, by their fields."""
    for key in sorted({*before, *after}):
        one, other = before.get(key, _NOTHING), after.get(key, _NOTHING)
        path = f"{where}{_called(key, one, other)}"
        if one == other:
            continue
        if key in _PAIRS:
            yield from _pairs(path, one, other)
        elif key in _COMMANDS:
            yield _command(path, one, other)
        elif key in _HIDDEN:
            yield _hidden(path, one, other)
        elif isinstance(one, dict) and isinstance(other, dict):
            yield from _compare(f"{path}.", one, other)
        elif key == "probe":
            yield _hidden(path, one, other)
        else:
            yield _plainly(path, key, one, other)


def _called(key: str, one: Any, other: Any) -> str:
    """A field as files call it."""
    if key != "probe":
        return printable(key)
    by_agents = any(isinstance(probe, dict) and probe["kind"] != "docker" for probe in (one, other))
    return "x-hypermesh.check" if by_agents else "healthcheck"


def _command(path: str, one: Any, other: Any) -> Detail:
    old, new = (list(value) if isinstance(value, list | tuple) else None for value in (one, other))
    words = ["nothing" if value is None else shown(shlex.join(value)) if value else "empty" for value in (old, new)]
    if any(value is not None and secretive_command(value) for value in (old, new)) or words[0] == words[1]:
        return _hidden(path, one, other)
    return Detail(path, old, new, f"{path}: {words[0]} -> {words[1]}")


def _pairs(where: str, one: Any, other: Any) -> Iterator[Detail]:
    before, after = (value if isinstance(value, dict) else {} for value in (one, other))
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        path = f"{where}.{printable(name)}"
        if any(value is not None and secretive(name, str(value)) for value in (old, new)):
            yield _hidden(path, old, new)
        else:
            words = ["nothing" if value is None else shown(value) if value else "empty" for value in (old, new)]
            yield Detail(path, old, new, f"{path}: {words[0]} -> {words[1]}")


def _plainly(path: str, key: str, one: Any, other: Any) -> Detail:
    old, new = (None if value is _NOTHING else value for value in (one, other))
    words = [amount(key, value) for value in (old, new)]
    if isinstance(old, dict) or isinstance(new, dict) or words[0] == words[1]:
        return Detail(path, old, new, f"{path}: {_fate(one, other)}")
    return Detail(path, old, new, f"{path}: {words[0]} -> {words[1]}")


def _hidden(path: str, one: Any, other: Any) -> Detail:
    old, new = (None if value is _NOTHING or value is None else HIDDEN for value in (one, other))
    return Detail(path, old, new, f"{path}: {_fate(one, other)}")


def _fate(one: Any, other: Any) -> str:
    return "added" if one is _NOTHING or one is None else "removed" if other is _NOTHING or other is None else "changed"


def _keyed(what: str, before: tuple[Any, ...], after: tuple[Any, ...], words: Callable[[Any], str]) -> Iterator[Detail]:
    """Mounts, or files, by where they are in the container."""
    earlier, later = ({each.target: words(each) for each in some} for some in (before, after))
    for target in sorted({*earlier, *later}):
        old, new = earlier.get(target), later.get(target)
        if old != new:
            yield Detail(f"{what}s.{printable(target)}", old, new, f"{what} {printable(target)}: {shown(old)} -> {shown(new)}")
