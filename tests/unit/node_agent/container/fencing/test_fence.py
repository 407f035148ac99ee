"""The fence, round by round: when it shuts the gates, whom it kills, and when it looks again."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from node_agent.container.fencing.fence import AGAIN, ASLEEP, AWAKE, LATE, LEASE, QUICK, Fence, watched
from node_agent.container.fencing.gates import Gates
from node_agent.container.fencing.lease import Lease, encode

ONE, TWO = "1" * 64, "2" * 64
DB = "shop/db.1.7"


class Killer:
    def __init__(self) -> None:
        self.alive: set[str] = set()
        self.deaf: set[str] = set()
        self.looks = 0

    def kill(self, containers: Collection[str]) -> tuple[int, bool]:
        self.looks += 1
        met = self.alive & set(containers)
        self.alive -= met - self.deaf
        return len(met), not self.alive & set(containers)


class Node:
    def __init__(self, root: Path) -> None:
        self.root, self.gates, self.killer = root, Gates(root), Killer()
        self.now = 1000.0
        self.said: list[str] = []
        self.fence = self.new()

    def new(self) -> Fence:
        return Fence(self.root, "b1", self.killer, lambda: self.now, self.said.append)  # type: ignore[arg-type]

    def lease(self, until: float, boot: str = "b1") -> None:
        (self.root / LEASE).write_bytes(encode(Lease(boot, until)))

    def start(self, container: str = ONE) -> None:
        self.gates.open(DB)
        self.gates.list(DB, container)
        self.killer.alive.add(container)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_while_the_lease_lasts_nothing_is_touched_and_the_fence_wakes_at_its_end(node: Node) -> None:
    node.lease(1001.0)
    assert node.fence.round() == ASLEEP
    node.start()
    assert node.fence.round() == AWAKE
    node.now = 1000.9
    assert node.fence.round() == pytest.approx(0.1)
    assert (node.killer.alive, node.killer.looks, node.said) == ({ONE}, 0, [])


def test_at_its_end_gates_are_shut_before_anything_is_killed(node: Node) -> None:
    node.lease(1001.0)
    node.start()
    node.fence.round()
    node.now = 1001.0
    seen: list[bool] = []
    kill = node.killer.kill
    node.killer.kill = lambda ids: (seen.append((node.root / "open" / "shop@db.1.7").exists()), kill(ids))[1]  # type: ignore[method-assign]
    assert node.fence.round() == AWAKE
    assert (seen, node.killer.alive) == ([False], set())
    assert node.said == ["the lease of this node has ended: its exclusive containers are killed", "killed 1 processes of 1 containers"]


@pytest.mark.parametrize("content", [None, b"", b"garbage", encode(Lease("b0", 2000.0)), encode(Lease("b1", 1e9))])
def test_what_is_no_lease_is_one_that_has_ended(node: Node, content: bytes | None) -> None:
    if content is not None:
        (node.root / LEASE).write_bytes(content)
    node.start()
    node.fence.round()
    assert node.killer.alive == set()


def test_a_fence_that_was_started_again_goes_on(node: Node) -> None:
    node.lease(1001.0)
    node.start()
    node.fence.round()
    node.now = 1002.0
    node.gates.shut()  # as far as the one before it came
    node.fence = node.new()
    node.fence.round()
    assert node.killer.alive == set()


def test_a_new_lease_does_not_open_gates(node: Node) -> None:
    node.start()
    node.fence.round()
    node.lease(node.now + 5)
    node.killer.alive.add(ONE)
    node.now += LATE
    node.fence.round()
    assert node.killer.alive == set(), "until its gate is opened again, what is behind it may not run"
    node.start()
    node.now += 0.1
    node.fence.round()
    assert node.killer.alive == {ONE}


def test_what_does_not_die_is_killed_again_soon_then_now_and_then(node: Node) -> None:
    node.start()
    node.killer.deaf = {ONE}
    assert [node.fence.round() for _ in range(QUICK)] == [AGAIN] * (QUICK - 1) + [AWAKE]
    assert "do they wait for a disk?" in node.said[-1]
    node.killer.deaf = set()
    node.fence.round()
    assert node.killer.alive == set()
    looks = node.killer.looks
    node.fence.round()
    assert node.killer.looks == looks, "all processes of a machine are not looked at four times a second, for ever"
    node.now += LATE
    node.fence.round()
    assert node.killer.looks == looks + 1


def test_after_another_lease_it_looks_at_once(node: Node) -> None:
    node.start()
    node.fence.round()
    node.start(TWO)  # under a lease that was over before the fence woke
    node.fence.round()
    assert node.killer.alive == set()


def test_somebody_watches_while_it_says_so(node: Node) -> None:
    assert not watched(node.root, "b1", node.now)
    node.fence.round()
    assert watched(node.root, "b1", node.now + 2.9)
    assert not watched(node.root, "b1", node.now + 3.1)
    assert not watched(node.root, "b2", node.now)
    assert not watched(node.root, "b1", node.now - 5.0)
    (node.root / "beat").write_bytes(b"x")
    assert not watched(node.root, "b1", node.now)
