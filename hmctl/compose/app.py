"""From compose files to an app, in one call: load.py, then convert.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hmcore.errors import ConfigError
from hmctl.compose.convert import Converted, convert
from hmctl.compose.load import load
from hmctl.compose.project import Project
from hmctl.compose.sources import Read, from_disk


@dataclass(frozen=True, slots=True)
class App:
    """What the files say (`project`), and what the cluster is to make of it (`converted`)."""

    project: Project
    converted: Converted

    @property
    def name(self) -> str:
        return self.project.name


def app_of(
    files: Sequence[Path],
    *,
    environment: Mapping[str, str],
    name: str | None = None,
    env_files: Sequence[Path] = (),
    profiles: Collection[str] = (),
    folder: Path | None = None,
    here: Path | None = None,
    ignore_unsupported: bool = False,
    read: Read = from_disk,
) -> App:
    """The app of these files; for what the arguments mean see `load` and `convert`.

    Raises ConfigError with every mistake found in reading the files (`unfinished`: what they say was not looked at then); if there is
    none, with every one of what they say."""
    try:
        project = load(
            files, name=name, env_files=env_files, environment=environment, profiles=profiles, folder=folder, here=here, read=read
        )
    except ConfigError as error:
        raise ConfigError(error.problems, fix=error.fix, unfinished=True) from error.__cause__
    return App(project, convert(project, ignore_unsupported=ignore_unsupported))
