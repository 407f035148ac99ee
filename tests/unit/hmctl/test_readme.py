"""README's first way through: what it shows is there by then, and does what it says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("command", ["hmctl lab exec node1 -- sh -s < examples/image.sh > busybox.tar", "hmctl image push busybox.tar"])
def test_the_app_has_its_image_also_where_the_demo_did_not_bring_it(command: str) -> None:
    assert command in (ROOT / "examples/README.md").read_text()
    before, _, after = TEXT.partition("    hmctl app deploy -f examples/web/compose.yaml")
    assert f"    {command}" in before
    assert "    hmctl app ls " in after
    assert "    hmctl app ls " not in before


@pytest.mark.parametrize("verb", ["stop", "start"])
def test_docker_is_stopped_with_what_starts_it_again(verb: str) -> None:
    [line] = [line for line in TEXT.splitlines() if f"-- systemctl {verb} docker" in line]
    assert f"systemctl {verb} docker.socket docker " in line


def test_what_one_makes_on_the_way_is_not_taken_for_a_part_of_the_project(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, timeout=10)
    made = ["lab.yaml", "usr.yaml", "usr.yaml.old", "cluster.yaml", "busybox.tar"]
    ours = ["examples/web/compose.yaml", "inventories/one.yaml"]
    asked = ["git", "-C", str(tmp_path), "check-ignore", *made, *ours]
    assert subprocess.run(asked, capture_output=True, text=True, timeout=10).stdout.split() == made
