"""Whether anything must be loaded: only what works and is as wanted is left alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.security import kernel, links, maps
from node_agent.security.kernel import LinkInfo
from node_agent.security.layer import PROGRAMS
from node_agent.security.links import Standing, shortcoming, working

PARENT, DIGEST = 4711, b"d" * 32
CFG = maps.Cfg(PARENT, 3, 1, 1000, 1000, DIGEST)
LINKS: dict[str, LinkInfo | None] = {hook.program: LinkInfo(kernel.LINK_CGROUP, 9, PARENT, hook.attach) for hook in maps.HOOKS}
LINKS[maps.TRACEPOINT_PROGRAM] = LinkInfo(kernel.LINK_PERF_EVENT, 9, 0, 0)
NAMES = frozenset(maps.pinned_names())
GOOD = Standing(CFG, NAMES, LINKS)


def test_what_works_is_left_alone() -> None:
    assert shortcoming(GOOD, PARENT, DIGEST) is None


@pytest.mark.parametrize(
    ("standing", "words"),
    [
        (Standing(None, frozenset(), {}), "nothing is loaded"),
        (replace(GOOD, cfg=replace(CFG, digest=b"e" * 32)), "other programs"),
        (replace(GOOD, cfg=replace(CFG, digest=bytes(32))), "other programs"),  # a loader that was killed before its last word
        (replace(GOOD, cfg=replace(CFG, parent=1)), "another one than before"),
        (replace(GOOD, links={**LINKS, "hm_egress": None}), "hm_egress is not attached"),
        (replace(GOOD, links={**LINKS, "hm_tcp": LinkInfo(kernel.LINK_CGROUP, 9, 0, 3)}), "gone"),
        (replace(GOOD, links={**LINKS, "hm_exec": None}), "hm_exec is not attached"),
        (replace(GOOD, names=NAMES | {"link_hm_exec_4"}), "not ours"),
        (replace(GOOD, names=NAMES - {"events"}), "the map events is gone"),
    ],
)
def test_what_does_not_is_named(standing: Standing, words: str) -> None:
    assert words in (shortcoming(standing, PARENT, DIGEST) or "")


def test_another_parent_is_noticed() -> None:
    assert shortcoming(GOOD, PARENT + 1, DIGEST) is not None


def test_programs_that_act_are_those_that_are_seen_to() -> None:
    assert working(GOOD, PARENT) == len(maps.HOOKS) + 1
    assert working(replace(GOOD, links={**LINKS, "hm_tcp": LinkInfo(kernel.LINK_CGROUP, 9, 0, 3), "hm_exec": None}), PARENT) == 2
    assert working(GOOD, PARENT + 1) == working(Standing(None, frozenset(), {}), PARENT) == 0


def test_the_fingerprint_tells_of_everything_that_decides_what_is_loaded(tmp_path: Path) -> None:
    shutil.copytree(PROGRAMS, tmp_path / "programs")
    programs = tmp_path / "programs"

    def taken(release: str = "6.1", mode: str = "audit", cpus: int = 2) -> bytes:
        return links.fingerprint(programs, release=release, mode=mode, cpus=cpus)

    before = {taken(), taken("6.2"), taken(mode="enforce"), taken(cpus=4)}
    assert taken() in before
    with (programs / "events.c").open("a") as file:
        file.write("\n")
    assert len(before | {taken()}) == 5


def test_detaching_removes_all_pins(tmp_path: Path) -> None:
    (tmp_path / "node1" / "v1").mkdir(parents=True)
    (tmp_path / "node1" / "v1" / "cfg").write_text("")
    links.detach(tmp_path / "node1")
    assert list(tmp_path.iterdir()) == []
    links.detach(tmp_path / "node1")


def test_link_information_of_the_kernel() -> None:
    raw = (3).to_bytes(4, "little") + (90).to_bytes(4, "little") + (3935).to_bytes(4, "little") + bytes(4)
    raw += (382362).to_bytes(8, "little") + (1).to_bytes(4, "little") + bytes(52)
    assert kernel.parse_link_info(raw) == LinkInfo(kernel.LINK_CGROUP, 3935, 382362, kernel.CGROUP_EGRESS)
    assert kernel.parse_link_info((7).to_bytes(4, "little") + bytes(76)).cgroup == 0
