"""deploy and reset, on machines in memory, with the cluster's lock: held while anything changes, and when it is lost nothing more does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from memory_cluster import Bed, make, no_probe

from hmcore.errors import LockHeld
from hmcore.lease import Lease
from hmcore.locks import HeldLock
from hmcore.records import Lock
from hmctl.actions.claim import Claim
from hmctl.phases import probe

BOB = HeldLock(lock=Lock(name="deploy", holder="bob@desk-1", token=4, ttl=30.0, note="deploy", unix_time=1.0))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "probe", no_probe)


class Door:
    """Gives the lock, or not. `checks`: it is lost when it is looked at so often."""

    def __init__(self, bed: Bed, *, held: HeldLock | None = None, checks: int = 1_000_000) -> None:
        self.bed = bed
        self.held = held
        self.checks = checks
        self.taken: list[int] = []  # how much was changed by then, each time
        self.given_back: list[int] = []

    @property
    def changes(self) -> int:
        return sum(len(machine.log) for machine in self.bed.world.machines.values())

    def _clock(self) -> float:
        self.checks -= 1
        return 0.0 if self.checks > 0 else 1000.0

    @asynccontextmanager
    async def hold(self, waiting: Callable[[HeldLock], None]) -> AsyncIterator[Lease]:
        if self.held is not None:
            raise LockHeld("held", held=self.held)
        self.taken.append(self.changes)
        lease = Lease("deploy", "ann@desk-2", 7, 30.0, sent=0.0, clock=self._clock)
        yield lease
        if not lease.lost.is_set():
            self.given_back.append(self.changes)

    def claim(self, wait: float = 0.0) -> Claim:
        return Claim(self.hold, wait=wait)


async def formed(folder: Path) -> Bed:
    bed = make(folder)
    door = Door(bed)
    async with door.claim() as claim:
        report = await bed.deploy(claim=claim)
    assert report.healthy
    assert door.taken == []  # there was no cluster yet
    return bed


async def test_it_is_held_while_hosts_are_changed_and_not_when_nothing_is_to_do(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    door = Door(bed)
    async with door.claim() as claim:
        assert (await bed.deploy(claim=claim)).exit_code(detailed=True) == 0
    assert door.taken == []
    bed.digest = "b" * 64
    before = door.changes
    async with door.claim() as claim:
        assert (await bed.deploy(claim=claim, dry_run=True)).exit_code(detailed=True) == 10
        assert door.taken == []
        assert (await bed.deploy(claim=claim)).exit_code(detailed=True) == 0
        assert door.given_back == []
    assert door.taken == [before]
    assert door.given_back == [door.changes]
    assert door.changes > before


async def test_while_another_holds_it_nothing_is_changed(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    bed.digest = "b" * 64
    door = Door(bed, held=BOB)
    before = door.changes
    async with door.claim() as claim:
        with pytest.raises(LockHeld, match="bob@desk-1 is changing this cluster"):
            await bed.deploy(claim=claim)
    assert door.changes == before
    assert not bed.begun


async def test_who_waits_looks_at_the_hosts_only_when_it_has_it(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    bed.digest = "b" * 64
    door = Door(bed, held=BOB)
    bed.stderr.truncate(0)
    async with door.claim(wait=60.0) as claim:
        with pytest.raises(LockHeld):
            await bed.deploy(claim=claim)
    assert "node1" not in bed.stderr.getvalue()


@pytest.mark.parametrize("checks", [1, 2, 4, 6, 8])
async def test_when_it_is_lost_nothing_more_is_changed_and_the_next_run_finishes_it(tmp_path: Path, checks: int) -> None:
    bed = await formed(tmp_path)
    bed.digest = "b" * 64
    whole, door = Door(bed), Door(bed, checks=checks)
    before = door.changes
    async with door.claim() as claim:
        report = await bed.deploy(claim=claim)
    assert report.error is not None
    assert "the cluster's lock deploy was lost: it could not be renewed for 27 s" in report.error
    assert report.exit_code(detailed=False) == 1
    assert "run again" in (report.fix or "")
    assert door.given_back == []
    cut = door.changes - before
    async with whole.claim() as claim:
        report = await bed.deploy(claim=claim)
    assert (report.error, report.healthy) == (None, True)
    assert cut < door.changes - before
    assert checks > 1 or cut == 0


async def test_a_reset_that_leaves_a_quorum_gives_it_back_and_one_that_ends_the_cluster_cannot(tmp_path: Path) -> None:
    bed = await formed(tmp_path)
    door = Door(bed)
    before = door.changes
    async with door.claim() as claim:
        await bed.reset(claim=claim, limit="node3")
    assert door.taken == [before]
    assert len(door.given_back) == 1
    door = Door(bed)
    async with door.claim() as claim:
        report = await bed.reset(claim=claim)
    assert report.error is None
    assert (len(door.taken), door.given_back) == (1, [])
    assert bed.store.formed_at is None
