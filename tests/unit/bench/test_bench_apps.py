"""What the benchmarks of apps compute from what they see: when all containers ran, what a figure is made of, and the image that is sent."""

from __future__ import annotations

import hashlib
import importlib
import json
import tarfile
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "tests" / "bench"


@pytest.fixture(scope="module")
def bench():
    """The modules of the benchmarks by name. They are scripts, not a package; importing them measures nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module


@pytest.fixture(scope="module")
def containers(bench):
    return bench("containers")


def told(action: str, container: str, at: int, **labels: str) -> str:
    actor = {"ID": container, "Attributes": {"image": "x", **labels}}
    return json.dumps({"Type": "container", "Action": action, "Actor": actor, "timeNano": at * 10**9})


def test_what_docker_tells_is_read(containers):
    change = containers.change
    assert change("node1", told("start", "c1", 5, app="web"), {"app": "web"}) == containers.Change(5.0, "node1", "c1", True)
    assert change("node1", told("die", "c1", 6, app="web"), {"app": "web"}) == containers.Change(6.0, "node1", "c1", False)


@pytest.mark.parametrize("labels", [{}, {"app": "other"}])
def test_what_others_run_does_not_count(containers, labels):
    assert containers.change("node1", told("start", "c1", 5, **labels), {"app": "web"}) is None


def begun(containers, *rows):
    return [containers.Change(at, node, container, True) for at, node, container in rows]


def test_all_run_when_the_last_has_begun(containers):
    rows = begun(containers, (3.0, "node2", "b"), (1.0, "node1", "a"), (2.0, "node1", "c"))  # hosts tell in no order
    assert containers.fulfilled_since(rows, containers.count(3)) == 3.0
    assert containers.fulfilled_since(rows, containers.count(2)) is None
    assert containers.fulfilled_since([], containers.count(3)) is None


def test_one_that_ends_again_does_not_count_as_running(containers):
    rows = begun(containers, (1.0, "node1", "a"), (2.0, "node1", "b"))
    ended = [*rows, containers.Change(3.0, "node1", "b")]
    assert containers.fulfilled_since(ended, containers.count(2)) is None
    again = [*ended, containers.Change(4.0, "node1", "b", True)]
    assert containers.fulfilled_since(again, containers.count(2)) == 4.0


def test_replaced_is_when_none_of_the_old_ones_is_left(containers):
    rows = begun(containers, (1.0, "node1", "a"), (2.0, "node2", "b"))
    changes = [
        *rows,
        containers.Change(3.0, "node1", "a"),
        containers.Change(4.0, "node1", "c", True),
        containers.Change(5.0, "node2", "b"),
    ]
    wanted = containers.anew(2, ["a", "b"])
    assert containers.fulfilled_since(changes, wanted) is None
    assert containers.fulfilled_since([*changes, containers.Change(6.0, "node2", "d", True)], wanted) == 6.0


def test_with_a_host_goes_all_that_ran_there(containers):
    rows = begun(containers, (1.0, "node1", "a"), (1.1, "node2", "b"))
    lost = [*rows, containers.Change(5.0, "node2")]
    wanted = containers.without(2, "node2")
    assert containers.fulfilled_since(lost, wanted) is None
    assert containers.fulfilled_since([*lost, containers.Change(9.0, "node1", "c", True)], wanted) == 9.0
    assert containers.fulfilled_since([*lost, containers.Change(9.0, "node2", "c", True)], wanted) is None


def test_a_watch_waits_for_it_and_no_longer_than_it_may(containers):
    seen = containers.Watch({})
    seen.follow("node1", iter([told("start", "a", 5), '{"Type": "cont']))  # the host was cut off in the middle
    with pytest.raises(TimeoutError, match="one replica"):
        seen.until(containers.count(1), 0.01, "one replica")
    assert seen.running == {}
    assert seen.end_of("node1", 0.01) > 5
    seen.tell(containers.Change(2e10, "node2", "b", True))
    assert seen.until(containers.count(1), 0.01, "one replica") == 2e10
    assert seen.running == {"b": "node2"}


def test_figures_of_apps_are_beside_swarms(bench):
    made = bench("orchestrating")
    ours, theirs, apart = (
        made.Times(1.0, 3.0, 40.0, 5.0, 9.0),
        made.Times(2.0, 2.0, 50.0, 20.0, 30.0),
        made.Times(0.5, 1.0, 45.0, 16.0, 31.0),
    )
    rows = {row.name: row for row in made.figures(ours, theirs, apart)}
    assert rows.keys() == {kind.name for kind in made.FIGURES}
    assert (rows[made.CREATED_OVER.name].value, rows[made.CREATED_OVER.name].met) == (0.5, True)
    assert (rows[made.SCALED_OVER.name].value, rows[made.SCALED_OVER.name].met) == (1.5, False)  # what one gains does not make up for it
    assert rows[made.ROLLED_OVER.name].value == 0.8
    assert rows[made.FOLLOWER_OVER.name].value == 0.25
    assert rows[made.LEADER_OVER.name].value == 0.3
    assert not rows[made.LEADER.name].met  # 9 s, whatever Swarm takes
    assert (rows[made.SCALED.name].value, rows[made.SCALED.name].peer_value) == (3.0, 2.0)
    assert [rows[kind.name].ratio for kind in made.APART] == [2.0, 3.0, 0.889, 0.312, 0.29]


def test_throughput_is_compared_round_by_round(bench):
    made = bench("crossing")
    rounds = [
        {"ours": 9.0, "plain": 10.0, "control": 10.0, "host": 20.0},
        {"ours": 4.5, "plain": 4.0, "control": 6.0, "host": 10.0},  # the machine was busy
        {"ours": 10.0, "plain": 10.0, "control": 10.0, "host": 20.0},
    ]
    kept, over = made.figures(rounds)
    assert kept.value == pytest.approx(0.9)
    assert kept.peer_value == 1.0
    assert not kept.met
    assert (over.value, over.peer_value) == (pytest.approx(0.45), 0.5)


def test_the_image_is_as_docker_saves_one(bench, tmp_path):
    path = bench("shipping").archive(tmp_path / "image.tar", "some:1", b"program", size=1000)
    with tarfile.open(path) as image:

        def content(name: str) -> bytes:
            file = image.extractfile(name)
            assert file is not None
            return file.read()

        (manifest,) = json.loads(content("manifest.json"))
        config, layer = content(manifest["Config"]), content(manifest["Layers"][0])
    assert manifest["RepoTags"] == ["some:1"]
    assert manifest["Config"] == f"{hashlib.sha256(config).hexdigest()}.json"
    assert json.loads(config)["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    (tmp_path / "layer.tar").write_bytes(layer)
    with tarfile.open(tmp_path / "layer.tar") as files:
        assert {entry.name: (entry.size, entry.mode) for entry in files} == {"bin/sleep": (7, 0o755), "content": (1000, 0o644)}


def test_what_is_deployed_is_what_swarm_is_told(bench):
    made = bench("orchestrating")
    service = json.loads(made.compose(30))["services"][made.SERVICE]
    assert service["deploy"] == {"replicas": 30, "update_config": {"parallelism": 1, "monitor": "1s"}}
    assert (service["init"], service["command"]) == (True, list(made.COMMAND))
