"""Inventories with mistakes, and exactly what is said about them: tests/cases/inventories/*.yaml beside *.expected.

After a change of wording: HM_ACCEPT=1 pytest tests/unit/hmcore/config/test_inventory_cases.py, and read the difference.
"""

import os
from pathlib import Path

import pytest

from hmcore.config.inventory import Places, load_inventory, parse_inventory
from hmcore.errors import ConfigError

ROOT = Path(__file__).parents[4]
CASES = sorted((ROOT / "tests/cases/inventories").glob("*.yaml"))
ENVIRONMENT = {"CLUSTER_NAME": "from-outside", "ADDRESS": "10.0.0.1", "SECRET": "s3cr3t!"}


def said(text, file, environment):
    """Every problem as a line, and whether the inventory is valid."""
    try:
        _, problems = parse_inventory(text, file, environment, Places(Path("/work"), Path("/home/operator")))
        verdict = "valid"
    except ConfigError as error:
        problems, verdict = error.problems, "invalid"
        assert not all(problem.warning for problem in problems)
    return "".join(f"{'warning' if problem.warning else 'error'}: {problem}\n" for problem in problems) + f"{verdict}\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_every_mistake_is_said_at_once(case):
    found = said(case.read_bytes(), case.name, ENVIRONMENT)
    expected = case.with_suffix(".expected")
    if os.environ.get("HM_ACCEPT"):
        expected.write_text(found)
    assert found == expected.read_text()
    assert ENVIRONMENT["SECRET"] not in found
    assert not any(password in found for password in ("hunter2", "12345"))


@pytest.mark.parametrize("example", sorted((ROOT / "inventories").glob("*.yaml")), ids=lambda example: example.stem)
def test_the_examples_are_valid_and_raise_no_eyebrow(example, tmp_path):
    key = tmp_path / "key"
    key.touch()
    inventory, warnings = load_inventory(example, {"HOME": str(tmp_path), "SSH_KEY": str(key)})
    assert warnings == ()
    assert inventory.control_hosts


def test_there_is_an_example_of_each_kind():
    assert {path.stem for path in (ROOT / "inventories").glob("*.yaml")} >= {"one-node", "three-nodes", "bastion", "five-control-workers"}
