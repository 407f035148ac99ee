"""Locks between processes: exclusive, released by death, and their file is there only while they are held."""

import subprocess
import sys
import threading

import pytest

from hmcore.errors import LabError
from hmctl.lab.lock import exclusive

HOLD = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock until its stdin is closed."""
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_the_file_goes_with_the_lock(tmp_path):
    with exclusive(tmp_path / "lock", timeout=1):
        assert (tmp_path / "lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_it_is_released_when_the_holder_is_killed(tmp_path, holder):
    told = []

    def told_to_wait() -> None:
        told.append(True)
        holder.kill()

    with exclusive(tmp_path / "lock", timeout=10, waiting=told_to_wait):
        assert told == [True]


def test_waiting_has_an_end(tmp_path, holder):
    with pytest.raises(LabError, match="another hmctl has held"), exclusive(tmp_path / "lock", timeout=0.2):
        pytest.fail("two have it")


def test_many_take_turns_though_the_file_comes_and_goes(tmp_path):
    inside = 0
    seen = []

    def work() -> None:
        nonlocal inside
        for _ in range(20):
            with exclusive(tmp_path / "lock", timeout=20):
                inside += 1
                seen.append(inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert seen == [1] * 60
