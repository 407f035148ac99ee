"""The loader, ended before each of its steps: what works goes on, and the next one makes good whatever was left."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pinning_kernel import Kernel, Killed, Map, Process

from node_agent.security import links, loader, maps

PROGRAMS = [hook.program for hook in maps.HOOKS] + [maps.EXEC_PROGRAM]
EACH = Counter(PROGRAMS)  # counts an event
HOOKED = Counter([hook.program for hook in maps.HOOKS] + [maps.TRACEPOINT_PROGRAM])
OLD, NEW = "11" * 32, "22" * 32


@dataclass(frozen=True)
class Machine:
    """A host with our directories on it. `load` runs a loader to its end, which may come early."""

    host: Path
    kernel: Kernel
    monkeypatch: pytest.MonkeyPatch

    @property
    def pins(self) -> str:
        return maps.pins("node1")

    def parent(self, name: str = "hypermesh") -> Path:
        path = self.host / name
        path.mkdir(exist_ok=True)
        return path

    def inode(self, name: str = "hypermesh") -> int:
        return self.parent(name).stat().st_ino

    def load(
        self,
        *,
        parent: str = "hypermesh",
        digest: str = NEW,
        before_step: Callable[[], None] = lambda: None,
        dies_before: int | None = None,
        refused: bool = False,
    ) -> int | None:
        """How many steps it took; None when it was ended."""
        process = Process(self.kernel, before_step, dies_before, refused)
        self.monkeypatch.setattr(loader, "Bpf", lambda: process)
        self.monkeypatch.setattr(loader, "os", process)
        self.monkeypatch.setattr(loader, "build", process.build)
        request: dict[str, Any] = {"node": "node1", "cgroup": str(self.parent(parent)), "mode": "audit", "digest": digest}
        try:
            assert loader.load({**request, "programs": "", "root": maps.ROOT})["ok"]
        except Killed:
            return None
        finally:
            process.end()
        return process.steps

    def cfg(self) -> bytes:
        found = self.kernel.pin_at(f"{self.pins}/cfg")
        assert isinstance(found, Map)
        return found.value

    def counted(self) -> Counter[str]:
        """By the map that is pinned: what the agent reads."""
        found = self.kernel.pin_at(f"{self.pins}/totals")
        assert isinstance(found, Map)
        return found.counted

    def assert_whole(self, parent: str = "hypermesh") -> None:
        """Nothing but one program per hook, that counts; and the agent finds nothing to be done."""
        assert self.kernel.attached(self.inode(parent)) == HOOKED
        before = Counter(self.counted())
        assert self.kernel.happens(self.inode(parent)) == EACH
        assert self.counted() - before == EACH
        directories = {self.pins, os.path.dirname(self.pins)}
        assert set(self.kernel.pins) == {f"{self.pins}/{name}" for name in maps.pinned_names()} | directories
        for spec in maps.specs(maps.possible_cpus()):
            assert self.kernel.pin_at(f"{self.pins}/{spec.name}").spec == (spec.kind, spec.key, spec.value, spec.entries)
        assert self.shortcoming(parent) is None

    def shortcoming(self, parent: str = "hypermesh") -> str | None:
        """Why the agent would run the loader."""
        agent = Process(self.kernel)
        self.monkeypatch.setattr(links, "os", agent)
        observed = links.observe(agent, Path(self.pins))  # type: ignore[arg-type]
        agent.end()
        return links.shortcoming(observed, self.inode(parent), bytes.fromhex(NEW))

    def lose(self, name: str) -> None:
        del self.kernel.pins[f"{self.pins}/{name}"]
        self.kernel.ended()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Machine]:
    """A fresh one each time."""
    (tmp_path / "tracing" / loader.TRACEPOINT).parent.mkdir(parents=True)
    (tmp_path / "tracing" / loader.TRACEPOINT).write_text("300\n")
    monkeypatch.setattr(loader, "TRACEFS", (str(tmp_path / "tracing"),))
    return lambda: Machine(tmp_path, Kernel(), monkeypatch)


def nothing(machine: Machine) -> None:
    """The first load of a machine."""


def loaded(machine: Machine) -> None:
    machine.load(digest=OLD)


def often_loaded(machine: Machine) -> None:
    for _ in range(3):
        machine.load(digest=OLD)


def a_map_is_gone(machine: Machine) -> None:
    machine.load(digest=OLD)
    machine.lose("flows")


def the_settings_are_gone(machine: Machine) -> None:
    often_loaded(machine)
    machine.lose("cfg")


def the_acting_program_is_gone(machine: Machine) -> None:
    machine.load(digest=OLD)
    machine.lose("acting")


def the_tracepoints_link_is_gone(machine: Machine) -> None:
    machine.load(digest=OLD)
    machine.lose("link_hm_exec")


def a_map_of_another_size(machine: Machine) -> None:
    machine.load(digest=OLD)
    flows = machine.kernel.pin_at(f"{machine.pins}/flows")
    flows.spec = (*flows.spec[:3], 1)


def a_link_is_gone(machine: Machine) -> None:
    machine.load(digest=OLD)
    machine.lose("link_hm_egress")


def another_layout(machine: Machine) -> None:
    machine.load(digest=OLD)
    before = f"{os.path.dirname(machine.pins)}/v1"
    machine.kernel.pins = {path.replace(machine.pins, before): number for path, number in machine.kernel.pins.items()}


STATES = [nothing, loaded, often_loaded, a_map_is_gone, the_settings_are_gone, a_map_of_another_size, a_link_is_gone, another_layout]
STATES += [the_acting_program_is_gone, the_tracepoints_link_is_gone]


def deaths(machine: Callable[[], Machine], state: Callable[[Machine], None], **load: Any) -> list[int]:
    """Every step before which a load of that state can end."""
    whole = machine()
    state(whole)
    steps = whole.load(**load)
    assert steps is not None
    assert steps > 15
    return list(range(steps))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("parent", ["hypermesh", "another"])
def test_whatever_a_load_that_is_ended_leaves_the_next_makes_good(
    machine: Callable[[], Machine], state: Callable[[Machine], None], parent: str
) -> None:
    for step in deaths(machine, state, parent=parent):
        broken = machine()
        state(broken)
        assert broken.load(parent=parent, dies_before=step) is None
        assert broken.shortcoming(parent) is not None  # there will be a next one
        broken.load(parent=parent)
        broken.assert_whole(parent)


@pytest.mark.parametrize("state", STATES)
def test_programs_that_are_refused_change_nothing(machine: Callable[[], Machine], state: Callable[[Machine], None]) -> None:
    same = machine()
    state(same)
    pins = same.kernel.pinned()
    cfg = same.cfg() if f"{same.pins}/cfg" in pins else b""
    with pytest.raises(loader.Refused):
        same.load(parent="another", refused=True)
    assert same.kernel.pinned() == pins
    assert not cfg or same.cfg() == cfg


@pytest.mark.long
def test_two_loads_that_are_ended_one_after_the_other_are_made_good(machine: Callable[[], Machine]) -> None:
    for first in deaths(machine, loaded):
        for second in range(40):
            broken = machine()
            loaded(broken)
            broken.load(dies_before=first)
            broken.load(dies_before=second)
            broken.load()
            broken.assert_whole()


def test_while_programs_are_replaced_each_event_counts_once_also_when_the_load_is_ended(machine: Callable[[], Machine]) -> None:
    for step in [*deaths(machine, loaded), None]:
        busy = machine()
        loaded(busy)
        happened = 0

        def happens(busy: Machine = busy) -> None:
            nonlocal happened
            assert busy.kernel.happens(busy.inode()) == EACH
            happened += 1

        busy.load(before_step=happens, dies_before=step)
        happens()
        busy.load(before_step=happens)
        happens()
        assert busy.counted() == Counter(dict.fromkeys(PROGRAMS, happened))


@pytest.mark.parametrize("state", [a_map_is_gone, a_map_of_another_size, another_layout])
def test_what_works_is_not_taken_away_before_its_successor_works(machine: Callable[[], Machine], state: Callable[[Machine], None]) -> None:
    for step in deaths(machine, state):
        broken = machine()
        state(broken)

        def look(broken: Machine = broken) -> None:
            assert broken.kernel.happens(broken.inode()) >= EACH

        broken.load(before_step=look, dies_before=step)
        look()


@pytest.mark.parametrize("state", [state for state in STATES if state is not another_layout])  # which has counters of its own
def test_nothing_is_counted_twice_whatever_state_programs_are_loaded_in(
    machine: Callable[[], Machine], state: Callable[[Machine], None]
) -> None:
    watched = machine()
    state(watched)

    def look() -> None:
        assert watched.kernel.happens(watched.inode()) <= EACH

    watched.load(before_step=look)


def test_settings_change_in_one_step_with_all_programs_in_their_places(machine: Callable[[], Machine]) -> None:
    """And not before: a load that is ended earlier leaves the old programs with the settings and the digest that they were loaded with."""
    watched = machine()
    loaded(watched)
    before, acting = watched.cfg(), watched.kernel.pin_at(f"{watched.pins}/acting").acting
    seen = []

    def look() -> None:
        seen.append(watched.cfg())
        if seen[-1] != before:
            assert watched.kernel.attached(watched.inode()) == HOOKED
            assert watched.kernel.pin_at(f"{watched.pins}/acting").acting is not acting

    watched.load(before_step=look)
    assert list(dict.fromkeys(seen)) == [before, replace(maps.parse_cfg(before), digest=bytes(32)).encode()]
    assert maps.parse_cfg(watched.cfg()) == replace(maps.parse_cfg(before), digest=bytes.fromhex(NEW))


def test_below_a_new_parent_everything_counts_as_soon_as_it_is_attached(machine: Callable[[], Machine]) -> None:
    """The old one is gone, and what ran there. What is in its place need not wait for the last step, of a load that may be ended."""
    moved = machine()
    loaded(moved)
    new = moved.inode("another")
    hooks = 0

    def look() -> None:
        nonlocal hooks
        attached = moved.kernel.attached(new)
        if attached["hm_ingress"]:
            hooks += 1
            assert moved.kernel.happens(new) == attached - Counter([maps.TRACEPOINT_PROGRAM]) + Counter([maps.EXEC_PROGRAM])

    moved.load(parent="another", before_step=look)
    assert hooks > 5
    moved.assert_whole("another")
