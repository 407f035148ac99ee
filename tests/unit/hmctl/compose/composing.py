"""Compose files as text, read and converted: what the tests of the converter share."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmcore.config import yaml12
from hmcore.errors import ConfigError
from hmctl.compose.convert import Converted, convert
from hmctl.compose.project import Place, Project

FOLDER = "/home/me/shop"


def project_of(text: str, *, name: str = "shop") -> Project:
    """As load.py makes it of one file without variables."""
    document = yaml12.load(text, "compose.yaml")
    places = {path: Place("compose.yaml", line) for path, line in document.lines.items()}
    return Project(name=name, value=document.value, folder=Path(FOLDER), places=places)


def converted(text: str, *, ignore_unsupported: bool = False) -> Converted:
    return convert(project_of(text), ignore_unsupported=ignore_unsupported)


def service(body: str, *, rest: str = "", ignore_unsupported: bool = False):
    """The one service `web` of image `nginx`, with `body` as further lines of it."""
    return converted(_file(body, rest), ignore_unsupported=ignore_unsupported).spec.services["web"]


def warnings(body: str, *, rest: str = "", ignore_unsupported: bool = False) -> list[str]:
    return [str(problem) for problem in converted(_file(body, rest), ignore_unsupported=ignore_unsupported).warnings]


def refused(body: str, *, rest: str = "", ignore_unsupported: bool = False) -> list[str]:
    return refused_file(_file(body, rest), ignore_unsupported=ignore_unsupported)


def refused_file(text: str, *, ignore_unsupported: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        converted(text, ignore_unsupported=ignore_unsupported)
    assert not any(problem.warning for problem in caught.value.problems)
    return [str(problem) for problem in caught.value.problems]


def _file(body: str, rest: str) -> str:
    lines = "".join(f"    {line}\n" for line in body.strip("\n").splitlines())
    image = "" if any(line.startswith(("image:", "build:")) for line in body.splitlines()) else "    image: nginx\n"
    return f"services:\n  web:\n{image}{lines}{rest}"
