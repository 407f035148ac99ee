"""From compose files to a Project. What is done to them and in which order: assembly.py."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hmctl.compose.assembly import Assembly, Scope
from hmctl.compose.dependencies import unknown_profiles
from hmctl.compose.environment import variables
from hmctl.compose.mounted import Look, is_small_file, mounted
from hmctl.compose.naming import VARIABLE, project_name
from hmctl.compose.project import Place, Project
from hmctl.compose.sources import Asking, Read, Sources, from_disk
from hmctl.compose.tree import Node, harvested
from hmctl.compose.trouble import Trouble

PROFILES = "COMPOSE_PROFILES"


def load(
    files: Sequence[Path],
    *,
    name: str | None,
    env_files: Sequence[Path],
    environment: Mapping[str, str],
    profiles: Collection[str],
    folder: Path | None = None,
    here: Path | None = None,
    read: Read = from_disk,
    is_small: Look = is_small_file,
) -> Project:
    """The files, later ones over earlier ones. `folder`: in which relative paths begin; None: that of the first file. No `env_files`: the
    .env of that folder, if there is one; `environment` goes before them. `here`: a folder whose .env goes before that one. No `profiles`:
    COMPOSE_PROFILES, which may name some that no service has: it may be one for several apps. `read` gives a file's bytes, `is_small`
    whether a path is a single file that could be a config.

    Raises ConfigError with every mistake found."""
    trouble = Trouble()
    sources = Sources(read, trouble)
    first = files[0] if files else Path("compose.yaml")
    if not files:
        trouble.wrong(Place(str(first), 0), (), "no file was given")
    base = folder or first.parent
    known = known_variables([base] if here is None else [here, base], env_files, environment, sources, trouble)
    roots = [root for path in files for root in sources.documents(path, Asking(Place(str(path), 0)))]
    at = Path(os.path.abspath(base))
    called = project_name(name, known, roots, at, Place(str(first), 0), trouble)
    scope = Scope(base, {**known, VARIABLE: called})
    assembly = Assembly(sources, environment.get("HOME"), trouble)
    wanted = profiles or [profile for part in known.get(PROFILES, "").split(",") if (profile := part.strip())]
    everything = assembly.whole(tuple(files), scope)
    _check_profiles(everything, profiles, wanted, trouble)
    root = assembly.running(everything, scope, wanted)
    warnings = trouble.warnings()
    whole = harvested(root)
    small = frozenset(source for source in mounted(root) if is_small(Path(source)))
    return Project(called, whole.value, at, whole.places, warnings, whole.local, small, assembly.secrets)


def known_variables(
    folders: Sequence[Path], env_files: Sequence[Path], environment: Mapping[str, str], sources: Sources, trouble: Trouble
) -> dict[str, str]:
    """What is known before any compose file is read: `environment`, and below it what `env_files` say; else the .env of each of the
    `folders` that has one, an earlier one before a later one."""
    own = {os.path.abspath(folder): folder / ".env" for folder in reversed(folders)}
    readings = [[*env_files]] if env_files else [[path] for path in reversed(own.values()) if sources.has(path)]
    known = dict(environment)
    for paths in readings:
        known = variables(tuple((path, Asking(Place(str(path), 0))) for path in paths), known, sources, trouble)
    return known


def _check_profiles(root: Node, typed: Collection[str], wanted: Collection[str], trouble: Trouble) -> None:
    services = root.entries.get("services")
    if services is None or not services.entries:
        return
    say, said_by = (trouble.wrong, "--profile") if typed else (trouble.odd, PROFILES)
    for profile, hint in unknown_profiles(services.entries, wanted).items():
        say(services.place, ("services",), f"none has the profile {profile[:80]!r} that {said_by} names", hint)
