"""Compose files with mistakes, and exactly what is said about them: tests/cases/compose/wrong/*.yaml beside *.expected.

After a change of wording: HM_ACCEPT=1 pytest tests/unit/hmctl/compose/test_compose_mistakes.py, and read the difference.
"""

import os

import pytest
from compose_cases import FOLDER, cases, judged, needs_docker_compose, project_of

from hmcore.errors import ConfigError

CASES = cases(FOLDER / "wrong")

# What we refuse and Docker Compose does not.
OURS = {
    "bomb": "it is at it for more than a minute",
    "no-services": "an app without services is none",
    "tags": "it passes over tags that mean nothing",
}


def said(asked):
    """Every problem as a line, and whether the files can be used."""
    try:
        project = project_of(asked)
        problems, verdict = project.warnings, "valid"
    except ConfigError as error:
        problems, verdict = error.problems, "invalid"
    lines = (f"{'warning' if problem.warning else 'error'}: {problem}\n" for problem in problems)
    return "".join(lines).replace(f"{FOLDER}/", "") + f"{verdict}\n"


@pytest.mark.parametrize("asked", CASES, ids=lambda asked: asked.name)
def test_every_mistake_is_said_at_once(asked):
    found = said(asked)
    expected = asked.files[0].with_suffix(".expected")
    if os.environ.get("HM_ACCEPT"):
        expected.write_text(found)
    assert found == expected.read_text()
    assert "invalid" in found
    assert "s3cr3t" not in found


@needs_docker_compose
@pytest.mark.parametrize("asked", [asked for asked in CASES if asked.name not in OURS], ids=lambda asked: asked.name)
def test_docker_compose_refuses_them_too(asked):
    tree, message = judged(asked)
    assert tree is None, message
