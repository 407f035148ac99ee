from pathlib import Path

import pytest

from hmcore.errors import LabError
from hmctl.lab import limits


def test_a_low_limit_is_raised_once_and_a_high_one_left_alone(tmp_path: Path) -> None:
    limit = tmp_path / "max_user_instances"
    limit.write_text("128\n")
    assert limits.ensure(limit, 4096)
    assert limit.read_text() == "4096\n"
    assert not limits.ensure(limit, 1024)
    assert limit.read_text() == "4096\n"


def test_a_limit_that_cannot_be_read_is_an_error_with_its_fix(tmp_path: Path) -> None:
    with pytest.raises(LabError) as caught:
        limits.ensure(tmp_path / "gone")
    assert caught.value.fix == "sysctl fs.inotify.max_user_instances=4096"
