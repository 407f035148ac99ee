"""One hmctl at a time where two would get in each other's way. The kernel releases the lock when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hmcore.errors import HyperMeshError

_POLL = 0.05  # seconds; flock has no deadline of its own


@contextmanager
def held(path: Path, doing: str, *, timeout: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path` while the block runs. `doing` (`deploy`) is what others are told who find it held.

    Raises HyperMeshError naming the holder if it is still held after `timeout` seconds. Not for one thread to take twice.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(descriptor, path, timeout)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "doing": doing, "since": time.time()}).encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)  # the file stays: deleting it would let a third one lock its successor while the second waits for this


def _take(descriptor: int, path: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise _refusal(path) from None
        time.sleep(_POLL)


def _refusal(path: Path) -> HyperMeshError:
    try:
        holder = json.loads(path.read_bytes())
        who = (
            f"`hmctl {holder['doing']}` (process {int(holder['pid'])}, since {time.strftime('%H:%M:%S', time.localtime(holder['since']))})"
        )
        fix = f"answer it if it asks something; or wait until it is done, or stop it: kill {int(holder['pid'])}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # between taking the lock and saying so
        who, fix = "another hmctl", "wait until it is done"
    return HyperMeshError(f"{who} is open, perhaps waiting for an answer; only one command at a time may change a cluster", fix=fix)
