"""Two hmctl that would change the same cluster: the second is told who is at it."""

import subprocess
import sys

import pytest

from hmcore.errors import HyperMeshError
from hmctl import lock

HOLD = """
import sys
from pathlib import Path
from hmctl import lock
with lock.held(Path(sys.argv[1]), "deploy"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock until its stdin ends."""
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield path, process


def test_the_second_is_told_who_holds_it(holder):
    path, process = holder
    with pytest.raises(HyperMeshError, match=rf"`hmctl deploy` \(process {process.pid}, since") as refused, lock.held(path, "reset"):
        pytest.fail("both hold it")
    assert refused.value.fix is not None
    assert f"kill {process.pid}" in refused.value.fix
    process.stdin.close()
    with lock.held(path, "reset", timeout=20.0):
        pass


def test_a_holder_that_is_killed_leaves_no_lock(holder):
    path, process = holder
    process.kill()
    with lock.held(path, "reset", timeout=20.0):
        pass


def test_a_lock_file_that_says_nothing_is_no_obstacle_to_the_message(tmp_path):
    path = tmp_path / "lock"
    with lock.held(path, "deploy"):
        path.write_bytes(b"\xff")
        with pytest.raises(HyperMeshError, match="another hmctl is open"), lock.held(path, "reset"):
            pytest.fail("both hold it")


def test_it_can_be_taken_again_and_again(tmp_path):
    for _ in range(3):
        with lock.held(tmp_path / "lock", "deploy"):
            pass
    assert oct((tmp_path / "lock").stat().st_mode & 0o777) == "0o600"
