"""A resolved set of compose files into what the cluster keeps of an app. Pure: nothing is read, built or asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec

from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
from hmcore.config.problems import Mistake, spell
from hmcore.errors import ConfigError, Problem
from hmctl.compose.parts import dependencies, health, network
from hmctl.compose.parts.files import Content, Kind, Origin, origins_of
from hmctl.compose.parts.images import Build, PullPolicy
from hmctl.compose.parts.machine import Machine
from hmctl.compose.parts.names import APP, SERVICE
from hmctl.compose.parts.part import KEPT, Fields, Notes, Part
from hmctl.compose.parts.ports import clashes
from hmctl.compose.parts.service import Service, Surroundings, service_of
from hmctl.compose.parts.volumes import volumes_of
from hmctl.compose.project import Project
from hmctl.compose.reduced import reduced
from hmctl.compose.renaming import with_names, without_dots

__all__ = ["Build", "Content", "Converted", "PullPolicy", "convert"]


@dataclass(frozen=True, slots=True)
class Converted:
    """`builds`, `pulls` (where images are looked for): by service. `contents`: by kind and name in the app: what the cluster must be given,
    and whose digests are to be put into `spec` then. `warnings`: of reading the files, too. `counted`: what was read, without what is left
    out."""

    spec: AppSpec
    counted: Project = field(repr=False)
    builds: Mapping[str, Build] = field(default_factory=dict)
    contents: Mapping[tuple[Kind, str], Content] = field(default_factory=dict)
    pulls: Mapping[str, PullPolicy] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()


def convert(project: Project, *, ignore_unsupported: bool = False) -> Converted:
    """Raises ConfigError with every mistake, each at its line. What is not supported is one; or, with `ignore_unsupported`, a warning, and
    is left out."""
    notes = Notes(ignore_unsupported=ignore_unsupported)
    renamed, names = without_dots(project)
    converted = _converted(renamed, names, notes)
    problems = _located(project, names, notes.mistakes)
    if mistakes := tuple(problem for problem in problems if not problem.warning):
        raise ConfigError(mistakes)
    warnings = dict.fromkeys((*project.warnings, *problems))
    return replace(converted, counted=reduced(renamed, notes.left_out), warnings=tuple(warnings))


def _converted(project: Project, names: Mapping[str, str], notes: Notes) -> Converted:
    """`names`: how services were called in the file, where it was otherwise."""
    root = Part(notes, (), project.value)
    top = root.of("")
    if not APP.holds(project.name):
        (top["name"] if top.given("name") else root).wrong(f"an app cannot be called {project.name[:80]!r}", f"{APP.says}: --name")
    services = _services(top["services"], names)
    machine = Machine(str(project.folder), project.local, project.small_files)
    volumes = volumes_of(top["volumes"], project.name, machine)
    secrets, configs = (origins_of(top[f"{kind}s"], kind, project.name) for kind in ("secret", "config"))
    links = {name: network.links_of(fields["links"]) for name, fields in services.items()}
    waits = {name: dependencies.depends_on(fields, links[name], services) for name, fields in services.items()}
    around = Surroundings(
        app=project.name,
        machine=machine,
        volumes=volumes,
        networks=network.check_networks(top["networks"]),
        secrets=top["secrets"].mapping(),
        configs=top["configs"].mapping(),
        depends_on=waits,
        completed=dependencies.awaited(waits.values(), "completed"),
    )
    found = {name: service_of(name, fields, around) for name, fields in services.items()}
    _check(services, found, around)
    specs = _linked({name: each.spec for name, each in found.items()}, links)
    spec = AppSpec(
        services=specs,
        volumes={name: volume for name, volume in volumes.items() if name in _mounted(specs)},
        networks=tuple(sorted({network for each in specs.values() for network in each.container.networks})),
        secrets={name: origin.source for name, origin in _used(secrets, "secret", specs).items()},
        configs={name: origin.source for name, origin in _used(configs, "config", specs).items()},
    )
    return Converted(
        spec,
        project,
        {name: each.build for name, each in found.items() if each.build is not None},
        {**_contents(secrets, "secret", specs), **_contents(configs, "config", specs)},
        {name: each.pull for name, each in found.items() if each.pull is not None},
    )


def _services(part: Part, names: Mapping[str, str]) -> dict[str, Fields]:
    found: dict[str, Fields] = {}
    plain: dict[str, str] = {}
    for name, entry in part.mapping().items():
        if not SERVICE.holds(name):
            entry.wrong("cannot be the name of a service", SERVICE.says)
            continue
        if plain.setdefault(name.lower(), name) != name:
            entry.wrong(f"is the same name as {plain[name.lower()]}", "names are looked up without regard to case")
        if entry.value is None:
            entry.wrong("is empty", "image: NAME, or build: FOLDER")
            continue
        if name in names:
            old = names[name]
            hint = f"{name}, with networks: {{default: {{aliases: [{old}]}}}} if others call it {old}"
            entry.unsupported(
                hint, "the name of a service cannot have dots", then=f"it is called {name} here, and {old} besides", becomes=KEPT
            )
        found[name] = entry.of("service")
    if not found and not part.mapping():
        part.wrong("there are no services", "or they have profiles, and none of them is chosen")
    return found


def _check(services: Mapping[str, Fields], found: Mapping[str, Service], around: Surroundings) -> None:
    """What concerns several services."""
    for entry, message in clashes({name: each.ports for name, each in found.items() if not each.spec.container.network_mode}):
        entry.wrong(message, "another published port")
    for cycle in dependencies.cycles(around.depends_on):
        services[cycle[0]]["depends_on"].wrong(f"none of these services can be the first: {' -> '.join(cycle)}")
    for name in dependencies.awaited(around.depends_on.values(), "healthy"):
        if health.is_off(found[name].spec.container.probe):
            services[name]["healthcheck"].wrong("there is none, and another service waits for this one to be healthy")


def _linked(specs: Mapping[str, ServiceSpec], links: Mapping[str, network.Links]) -> dict[str, ServiceSpec]:
    containers: Mapping[str, ContainerSpec] = network.linked({name: spec.container for name, spec in specs.items()}, links)
    return {name: msgspec.structs.replace(spec, container=containers[name]) for name, spec in specs.items()}


def _mounted(specs: Mapping[str, ServiceSpec]) -> set[str]:
    return {mount.source for spec in specs.values() for mount in spec.container.mounts if mount.kind == "volume"}


def _used(origins: Mapping[str, Origin], kind: Kind, specs: Mapping[str, ServiceSpec]) -> dict[str, Origin]:
    used = {file.source for spec in specs.values() for file in spec.container.files if file.kind == kind}
    return {name: origin for name, origin in origins.items() if name in used}


def _contents(origins: Mapping[str, Origin], kind: Kind, specs: Mapping[str, ServiceSpec]) -> dict[tuple[Kind, str], Content]:
    return {(kind, name): origin.content for name, origin in _used(origins, kind, specs).items() if origin.content is not None}


def _located(project: Project, names: Mapping[str, str], mistakes: list[Mistake]) -> list[Problem]:
    """At their lines, in the order of the files and their lines, each once, and services as the file calls them."""
    found: dict[Problem, None] = {}
    for mistake in mistakes:
        path = with_names(mistake.path, names)
        place = project.place(path)
        file, line = (place.file, place.line) if place else (str(project.folder), None)
        found[Problem(file, line, spell(path), mistake.message, mistake.hint, mistake.warning)] = None
    files = list(dict.fromkeys(problem.file for problem in found))
    return sorted(found, key=lambda problem: (files.index(problem.file), problem.line or 0))
