"""From compose files to what an app shall be: found, read, resolved. Nothing is changed here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hmcore.config.yaml12 import MAX_BYTES
from hmcore.errors import UsageError
from hmctl.compose.app import App, app_of
from hmctl.compose.sources import Read, from_disk

STDIN = Path("-")
USUAL = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")  # as Docker Compose has it, the first that is there
OVERRIDES = ("compose.override.yaml", "compose.override.yml", "docker-compose.override.yaml", "docker-compose.override.yml")


def chosen_files(named: Sequence[str], there: Callable[[Path], bool]) -> tuple[Path, ...]:
    """`named`; else what Docker Compose would take in this folder, with its override. Raises UsageError."""
    if named:
        return tuple(Path(each) for each in named)
    usual = next((Path(name) for name in USUAL if there(Path(name))), None)
    if usual is None:
        raise UsageError(f"which file? Neither {' nor '.join(USUAL)} is here", fix="name it: -f compose.yaml")
    override = next((Path(name) for name in OVERRIDES if there(Path(name))), None)
    return (usual,) if override is None else (usual, override)


def resolve(
    files: Sequence[Path],
    *,
    name: str | None,
    env_files: Sequence[str],
    environment: Mapping[str, str],
    profiles: Sequence[str],
    ignore_unsupported: bool,
) -> App:
    """Raises ConfigError with every mistake, each at its line."""
    return app_of(
        files,
        name=name,
        env_files=[Path(each) for each in env_files],
        environment=environment,
        profiles=profiles,
        ignore_unsupported=ignore_unsupported,
        read=_reader(),
    )


def _reader() -> Read:
    """Of files, and of stdin, which is read once."""

    def read(path: Path) -> bytes:
        return sys.stdin.buffer.read(MAX_BYTES + 1) if path == STDIN else from_disk(path)

    return read
