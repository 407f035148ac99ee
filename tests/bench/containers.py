"""Which containers run on the hosts of the lab, and since when: told by each host's Docker, whoever had them started.

All hosts share this machine's clock, and Docker stamps what it tells: hence nothing is asked again and again, which two cores would feel,
and what a way costs from a host to here is in no figure. A host's own end is when what it told broke off.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import IO

from bed import Bed

TELLING = ("docker", "events", "--filter", "type=container", "--filter", "event=start", "--filter", "event=die", "--format", "{{json .}}")


@dataclass(frozen=True, order=True)
class Change:
    """`at`: unix time. `container`: its id; empty: all that ran on `node`, which is gone."""

    at: float
    node: str
    container: str = ""
    runs: bool = False


Running = Mapping[str, str]  # the node of each container that runs
Wanted = Callable[[Running], bool]


def change(node: str, told: str, of: Mapping[str, str]) -> Change | None:
    """What a line of Docker's says; None: of a container that has not all labels of `of`. Raises ValueError, KeyError if it is none."""
    event = json.loads(told)
    labels = event["Actor"]["Attributes"]
    if any(labels.get(label) != value for label, value in of.items()):
        return None
    return Change(event["timeNano"] / 1e9, node, event["Actor"]["ID"], event["Action"] == "start")


def after(changes: Iterable[Change]) -> Iterator[tuple[float, Running]]:
    """What runs from each moment on, in the order of time. It is one mapping, which goes on changing."""
    running: dict[str, str] = {}
    for each in sorted(changes):
        if each.runs:
            running[each.container] = each.node
        elif each.container:
            running.pop(each.container, None)
        else:
            for container in [container for container, node in running.items() if node == each.node]:
                del running[container]
        yield each.at, running


def fulfilled_since(changes: Iterable[Change], wanted: Wanted) -> float | None:
    """From when on it has been so without a break; None: it is not so."""
    since: float | None = None
    for at, running in after(changes):
        if not wanted(running):
            since = None
        elif since is None:
            since = at
    return since


def count(number: int) -> Wanted:
    return lambda running: len(running) == number


def anew(number: int, before: Iterable[str]) -> Wanted:
    """So many, and none of those that ran before."""
    old = frozenset(before)
    return lambda running: len(running) == number and not old & running.keys()


def without(number: int, node: str) -> Wanted:
    """So many, none of them on `node`."""
    return lambda running: len(running) == number and node not in running.values()


@dataclass
class Watch:
    """`labels`: of the containers that count."""

    labels: Mapping[str, str]
    changes: list[Change] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)
    trouble: list[str] = field(default_factory=list)

    def follow(self, node: str, lines: IO[str]) -> None:
        """Until the host ends, or the watch does."""
        for line in lines:
            try:
                found = change(node, line, self.labels)
            except (ValueError, KeyError) as error:  # a line that the host's end cut short
                self.trouble.append(f"{node}: {error!r}: {line!r}")
                continue
            if found is not None:
                self.tell(found)
        self.tell(Change(time.time(), node))

    def tell(self, found: Change) -> None:
        with self.news:
            self.changes.append(found)
            self.news.notify_all()

    @property
    def running(self) -> Running:
        with self.news:
            moments = list(after(self.changes))
            return dict(moments[-1][1]) if moments else {}

    def end_of(self, node: str, within: float = 30.0) -> float:
        """When the host ended. Raises TimeoutError."""

        def ended() -> float | None:
            return next((each.at for each in self.changes if each.node == node and not each.container), None)

        return self._wait(ended, within, f"{node} goes on")

    def until(self, wanted: Wanted, within: float, what: str) -> float:
        """From when on it is so (unix time). Raises TimeoutError when it does not become so."""
        return self._wait(lambda: fulfilled_since(self.changes, wanted), within, what)

    def _wait(self, found: Callable[[], float | None], within: float, what: str) -> float:
        deadline = time.monotonic() + within
        with self.news:
            while (at := found()) is None:
                if not self.news.wait(deadline - time.monotonic()):
                    places = sorted({each.node for each in self.changes})
                    told = "; ".join(self.trouble[-3:])
                    raise TimeoutError(f"not within {within:g} s: {what} ({len(self.changes)} changes on {', '.join(places)}) {told}")
            return at


@contextmanager
def watch(bed: Bed, nodes: Iterable[str], labels: Mapping[str, str]) -> Iterator[Watch]:
    """What begins and ends from now on; nothing with these labels may run yet."""
    seen = Watch(labels)
    with ExitStack() as stack:
        since = f"{time.time():.3f}"  # what happens before Docker listens to us is told as well
        for node in nodes:
            process = stack.enter_context(_telling(bed, node, since))
            assert process.stdout is not None
            thread = threading.Thread(target=seen.follow, args=(node, process.stdout), name=f"containers of {node}", daemon=True)
            thread.start()
        yield seen


@contextmanager
def _telling(bed: Bed, node: str, since: str) -> Iterator[subprocess.Popen[str]]:
    process = bed.start_on(node, *TELLING, "--since", since)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
