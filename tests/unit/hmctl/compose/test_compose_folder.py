"""Any folder of compose files, resolved by us and by Docker Compose itself: the same comes out, or both refuse.

HYPERMESH_COMPOSE_FOLDER names it: clones of other projects, whose files we do not keep here. What we refuse on converting is printed (-rP).
"""

import os
import re
from pathlib import Path

import pytest
from compose_canon import canonical, differences
from compose_cases import HOME, Case, judged, needs_docker_compose, ours_of

from hmcore.errors import ConfigError
from hmctl.compose.app import app_of

GIVEN = os.environ.get("HYPERMESH_COMPOSE_FOLDER")
NAME = re.compile(r"(docker-)?(compose|stack)[\w.-]*\.ya?ml|[\w.-]*compose\.ya?ml")
FILES = sorted(path for path in Path(GIVEN).resolve().rglob("*") if NAME.fullmatch(path.name)) if GIVEN else []

pytestmark = [needs_docker_compose, pytest.mark.skipif(not GIVEN, reason="HYPERMESH_COMPOSE_FOLDER names no folder")]


def compared(case):
    """What differs; None: both refuse."""
    tree, _ = judged(case)
    if tree is None:  # some of what Compose refuses while it reads we refuse only on converting
        with pytest.raises(ConfigError):
            app_of(case.files, environment=case.environment, profiles=case.profiles, ignore_unsupported=True)
        return None
    _, ours = ours_of(case)
    theirs = canonical(tree, tree["name"])
    for section in ("networks", "volumes", "secrets", "configs"):  # `config` leaves out what no service uses
        ours[section] = {name: ours[section][name] for name in theirs[section] if name in ours[section]}
    return differences(ours, theirs)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(Path(GIVEN).resolve())))
def test_it_comes_to_the_same(path):
    case = Case((path,), (), {"HOME": HOME, "PATH": "/usr/bin:/bin"}, ("*",))
    found = compared(case)
    assert not found
    if found is None:
        return
    try:
        app_of(case.files, environment=case.environment, profiles=case.profiles)
    except ConfigError as error:
        print(error)
