"""From compose files to what an app shall be: found, read, resolved. Nothing is changed here."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hmcore.config.yaml12 import MAX_BYTES
from hmcore.errors import ConfigError, UsageError
from hmctl.compose.app import App, app_of
from hmctl.compose.load import known_variables
from hmctl.compose.sources import Read, Sources, from_disk
from hmctl.compose.trouble import Trouble

STDIN = Path("-")
USUAL = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")  # as Docker Compose has it, the first that is there
OVERRIDES = ("compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml")
NAMED = "COMPOSE_FILE"
SEPARATOR = "COMPOSE_PATH_SEPARATOR"
_HERE = Path()


def chosen_files(named: Sequence[str], known: Mapping[str, str], there: Callable[[Path], bool]) -> tuple[Path, ...]:
    """`named`; else those of COMPOSE_FILE, if it is `known`; else what Docker Compose would take in this folder, with its override.
    Raises UsageError."""
    if named:
        return tuple(Path(each) for each in named)
    if NAMED in known:
        return _listed(known[NAMED], known.get(SEPARATOR) or os.pathsep, there)
    usual = next((Path(name) for name in USUAL if there(Path(name))), None)
    if usual is None:
        raise UsageError(f"which file? Neither {' nor '.join(USUAL)} is here", fix="name it: -f compose.yaml")
    override = next((Path(name) for name in OVERRIDES if there(Path(name))), None)
    return (usual,) if override is None else (usual, override)


def _listed(text: str, separator: str, there: Callable[[Path], bool]) -> tuple[Path, ...]:
    """Relative to this folder, wherever the variable was set."""
    names = text.split(separator)
    fix = f"{NAMED}=FILE{separator}FILE, or -f FILE; without {NAMED} it is compose.yaml"
    if not all(names):
        raise UsageError(f"{NAMED} is set, and {'names no file' if not text else 'one of the names in it is empty'}", fix=fix)
    files = tuple(map(Path, names))
    missing = next((file for file in files if file != STDIN and not there(file)), None)
    if missing is not None:
        raise UsageError(f"{missing}, which {NAMED} names, is not there", fix=fix)
    return files


def resolve(
    named: Sequence[str],
    *,
    name: str | None,
    env_files: Sequence[str],
    environment: Mapping[str, str],
    profiles: Sequence[str],
    ignore_unsupported: bool,
) -> App:
    """`named`: the files; empty: those that `chosen_files` finds. Then .env of this folder counts, wherever these are.

    Raises UsageError; ConfigError with every mistake, each at its line."""
    read, variables = _reader(), [Path(each) for each in env_files]
    return app_of(
        chosen_files(named, {}, Path.exists) if named else _found(variables, environment, read),
        name=name,
        env_files=variables,
        environment=environment,
        profiles=profiles,
        ignore_unsupported=ignore_unsupported,
        here=None if named else _HERE,
        read=read,
    )


def _found(env_files: Sequence[Path], environment: Mapping[str, str], read: Read) -> tuple[Path, ...]:
    """What is odd about variables is said when the files are read, which have them, too. If none is found, that may be why."""
    trouble = Trouble()
    known = known_variables([_HERE], env_files, environment, Sources(read, trouble), trouble)
    try:
        return chosen_files((), known, Path.exists)
    except UsageError:
        if trouble.serious:
            raise ConfigError(trouble.all()) from None
        raise


def _reader() -> Read:
    """Of files, each once: stdin and pipes have nothing to say a second time."""

    @functools.cache
    def read(path: Path) -> bytes:
        return sys.stdin.buffer.read(MAX_BYTES + 1) if path == STDIN else from_disk(path)

    return read
