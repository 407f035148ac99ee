"""Any folder of compose files, resolved by us and by Docker Compose itself: the same comes out, or both refuse.

HYPERMESH_COMPOSE_FOLDER names it: clones of other projects, whose files we do not keep here (those of test_compose_wild.py are had by
themselves). What we refuse on converting is printed (-rP).
"""

import os
import re
from pathlib import Path

import pytest
from compose_cases import HOME, Case, needs_docker_compose, reading_differs

from hmcore.errors import ConfigError
from hmctl.compose.app import app_of

GIVEN = os.environ.get("HYPERMESH_COMPOSE_FOLDER")
NAME = re.compile(r"(docker-)?(compose|stack)[\w.-]*\.ya?ml|[\w.-]*compose\.ya?ml")
FILES = sorted(path for path in Path(GIVEN).resolve().rglob("*") if NAME.fullmatch(path.name)) if GIVEN else []

pytestmark = [needs_docker_compose, pytest.mark.skipif(not GIVEN, reason="HYPERMESH_COMPOSE_FOLDER names no folder")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(Path(GIVEN).resolve())))
def test_it_comes_to_the_same(path):
    case = Case((path,), (), {"HOME": HOME, "PATH": "/usr/bin:/bin"}, ("*",))
    found = reading_differs(case)
    assert not found
    if found is None:
        return
    try:
        app_of(case.files, environment=case.environment, profiles=case.profiles)
    except ConfigError as error:
        print(error)
