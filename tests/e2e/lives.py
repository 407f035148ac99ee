"""Who sees the processes of containers begin and end, on all hosts of a lab at once, and asks no Docker and no agent: the hosts share this
machine's kernel, hence its process ids and its clock."""

from __future__ import annotations

import contextlib
import math
import os
import re
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from hmctl.lab.cgroups import HostCgroup, hierarchies
from hmctl.lab.lab import Lab
from hmctl.lab.plan import Names

T = TypeVar("T")

_ID = re.compile(r"[0-9a-f]{64}")
EVERY = 0.02  # seconds between two looks at what runs


@dataclass
class Life:
    """Of a container's process, by time.monotonic(): it began after `began` (it was looked for, and was not there yet), and was dead by
    `ended`. So two that seem to follow each other surely do."""

    node: str
    container: str
    pid: int
    began: float
    ended: float = math.inf

    def __str__(self) -> str:
        return f"{self.node} {self.container[:12]} pid {self.pid}: {self.began:.2f} to {self.ended:.2f}"


class Lives:
    """Of all containers of the lab, while the block lasts, whose command is `sleep SECONDS` with just these seconds; without an init of
    their own, so that each is one process. One that is still being started (runc's) does not count."""

    def __init__(self, lab: Lab, seconds: int) -> None:
        self.seen: list[Life] = []
        found = hierarchies()
        self._trees = {host.name: HostCgroup(Names(lab.name).host(host.name), found).tree for host in lab.view().hosts}
        self._command = f"sleep\0{seconds}\0".encode()
        self._known: dict[int, Life] = {}  # by the descriptor that tells of its end
        self._poll = select.poll()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lives")

    def __enter__(self) -> Lives:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    @property
    def now(self) -> list[Life]:
        """Those that run."""
        return [life for life in list(self.seen) if life.ended == math.inf]

    def until(self, condition: Callable[[], T | None], within: float, what: str) -> T:
        """What `condition` returns once it is true. Fails the test, showing all lives, when it never is."""
        deadline = time.monotonic() + within
        while not (found := condition()):
            assert self._thread.is_alive(), "nobody watches any more"
            if time.monotonic() > deadline:
                pytest.fail(f"not within {within:g} s: {what}\n{self}")
            time.sleep(EVERY)
        return found

    def never_more_at_once_than(self, most: int) -> None:
        assert self._thread.is_alive(), "nobody watches any more"
        lives = list(self.seen)
        for life in lives:
            beside = [other for other in lives if other.began <= life.began < other.ended]
            assert len(beside) <= most, "at once: " + "; ".join(map(str, beside)) + f"\n{self}"

    def __str__(self) -> str:
        return f"now {time.monotonic():.2f}\n" + "\n".join(map(str, list(self.seen)))

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._ending.is_set():
            now = time.monotonic()
            self._look(before)
            before = now
            for descriptor, _ in self._poll.poll(EVERY * 1000):
                self._known.pop(descriptor).ended = time.monotonic()
                self._poll.unregister(descriptor)
                os.close(descriptor)
        for descriptor in self._known:
            os.close(descriptor)

    def _look(self, before: float) -> None:
        for node, tree in self._trees.items():
            for group in tree.glob("payload/hypermesh*/*/cgroup.procs"):  # hypermesh.slice, where Docker's driver is systemd
                if (container := _ID.search(group.parent.name)) is None:
                    continue
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    for pid in map(int, group.read_text().split()):
                        self._meet(node, container[0], pid, before)

    def _meet(self, node: str, container: str, pid: int, before: float) -> None:
        if any(life.pid == pid for life in self._known.values()):
            return
        descriptor = os.pidfd_open(pid)
        if not self._is_wanted(pid):
            os.close(descriptor)
            return
        life = Life(node, container, pid, before)
        self._known[descriptor] = life
        self._poll.register(descriptor, select.POLLIN)
        self.seen.append(life)

    def _is_wanted(self, pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes() == self._command
        except OSError:
            return False
