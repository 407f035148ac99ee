"""Where labs live, and which there are."""

from pathlib import Path

import pytest

from hmcore.errors import UsageError
from hmctl.lab import home, state
from hmctl.lab.state import LabState


def design(name: str) -> LabState:
    return LabState(name=name, subnet=1, cluster_id="hm-abc123defg", image="0" * 16, nodes=("node1",), inventory="/x/lab.yaml")


def test_the_environment_may_say_where():
    assert home.directory({}) == home.DEFAULT_DIRECTORY
    assert home.directory({home.DIRECTORY_VARIABLE: ""}) == home.DEFAULT_DIRECTORY
    assert home.directory({home.DIRECTORY_VARIABLE: "/data/labs"}) == Path("/data/labs")


@pytest.mark.parametrize("path", ["labs", "/my labs", "/a,b", "/a:b", "/a\\b", '/a"b', "/a'b", "/$HOME"])
def test_a_path_that_mount_options_could_not_carry_is_refused(path):
    with pytest.raises(UsageError, match=f"^{home.DIRECTORY_VARIABLE} must be an absolute path"):
        home.directory({home.DIRECTORY_VARIABLE: path})


def test_a_damaged_lab_hides_no_other(tmp_path):
    assert home.all_labs(tmp_path) == []
    for name in ("two", "one"):
        state.save(home.folder(tmp_path, name), design(name))
    broken = home.folder(tmp_path, "broken")
    broken.mkdir()
    (broken / state.FILE).write_text("{")
    home.folder(tmp_path, "empty").mkdir()
    assert home.all_labs(tmp_path) == ["broken", "one", "two"]
    assert [lab.name for lab in home.designs(tmp_path)] == ["one", "two"]
