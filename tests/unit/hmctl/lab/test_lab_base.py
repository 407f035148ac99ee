"""The base image: named by its recipe, whole or not there, never built by two at once."""

import io
import sys
import threading
from dataclasses import replace

import pytest

from hmcore.errors import LabError
from hmctl.lab import base
from hmctl.lab.apt import AptSetup, Release, Source
from hmctl.lab.lock import exclusive
from hmctl.lab.progress import Silent
from hmctl.lab.recipe import recipe_for

DEBIAN = recipe_for(Release("debian", "bookworm"), "amd64", "#!/bin/sh\n")
SETUP = AptSetup(DEBIAN.release, Source("http://archive.example/debian", "bookworm", ("main",)), (), "", None, {})


class Recorder(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def update(self, key: str, text: str, *, detail: str = "") -> None:
        self.said.append(f"{text} {detail}".strip())


def test_every_ingredient_changes_the_digest():
    others = [
        recipe_for(Release("debian", "trixie"), "amd64", "#!/bin/sh\n"),
        recipe_for(Release("ubuntu", "bookworm"), "amd64", "#!/bin/sh\n"),
        recipe_for(Release("debian", "bookworm"), "arm64", "#!/bin/sh\n"),
        recipe_for(Release("debian", "bookworm"), "amd64", "#!/bin/sh\n#\n"),
        replace(DEBIAN, bootstrap=DEBIAN.bootstrap[:-1], packages=(DEBIAN.bootstrap[-1], *DEBIAN.packages)),
    ]
    assert len({recipe.digest for recipe in (DEBIAN, *others)}) == len(others) + 1
    assert recipe_for(DEBIAN.release, "amd64", "#!/bin/sh\n").digest == DEBIAN.digest


def test_each_distribution_gets_its_own_names_for_headers_and_bpftool():
    assert {"linux-headers-amd64", "bpftool", "docker.io", "python3-bpfcc"} <= set(DEBIAN.packages)
    ubuntu = recipe_for(Release("ubuntu", "noble"), "arm64", "")
    assert "linux-headers-generic" in ubuntu.packages
    assert "bpftool" not in ubuntu.packages
    assert ubuntu.components == ("main", "universe")


def test_a_failed_build_leaves_nothing_but_its_log(tmp_path, monkeypatch):
    def fail(root, recipe, setup, log, progress):
        root.mkdir()
        (root / "half").touch()
        log.write_text("E: no such package\n")
        raise LabError("building failed")

    monkeypatch.setattr(base, "_build", fail)
    with pytest.raises(LabError, match="building failed"):
        base.ensure(tmp_path, DEBIAN, SETUP, Silent())
    assert [path.name for path in tmp_path.iterdir()] == [f"{DEBIAN.digest}.log"]


def test_what_a_killed_build_left_is_removed_before_the_next(tmp_path, monkeypatch):
    (tmp_path / f"{DEBIAN.digest}.building/usr").mkdir(parents=True)
    (tmp_path / "other.building/usr").mkdir(parents=True)
    monkeypatch.setattr(base, "_build", lambda root, *_: root.mkdir())
    base.ensure(tmp_path, DEBIAN, SETUP, Silent())
    assert [path.name for path in tmp_path.iterdir()] == [DEBIAN.digest]


def test_an_interrupted_build_is_removed_unless_one_is_at_work(tmp_path):
    (tmp_path / "x.building/usr").mkdir(parents=True)
    with exclusive(tmp_path / "lock", timeout=1):
        base.remove_interrupted(tmp_path)
        assert (tmp_path / "x.building/usr").exists()
    base.remove_interrupted(tmp_path)
    assert list(tmp_path.iterdir()) == []
    base.remove_interrupted(tmp_path / "nowhere")


def test_two_builders_make_one_image(tmp_path, monkeypatch):
    builds, begun, go_on = [], threading.Event(), threading.Event()
    second = Recorder()

    def build(root, *_):
        builds.append(root)
        begun.set()
        assert go_on.wait(10)
        root.mkdir()

    monkeypatch.setattr(base, "_build", build)
    monkeypatch.setattr(second, "update", lambda key, text, *, detail="": go_on.set() or second.said.append(text))
    first = threading.Thread(target=base.ensure, args=(tmp_path, DEBIAN, SETUP, Silent()))
    first.start()
    assert begun.wait(10)
    base.ensure(tmp_path, DEBIAN, SETUP, second)
    first.join(timeout=10)
    assert len(builds) == 1
    assert second.said == ["another hmctl is building it, waiting"]


def test_images_of_older_recipes_go_when_no_lab_lies_on_them(tmp_path):
    for name in ("a" * 16, "b" * 16, "c" * 16, "unrelated"):
        (tmp_path / name).mkdir()
    (tmp_path / f"{'c' * 16}.log").touch()
    base.remove_unused(tmp_path, {"a" * 16, "b" * 16}, Silent())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a" * 16, "b" * 16, "unrelated"]


def test_a_step_counts_packages_and_says_what_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "_TIED", ())
    lines = ["lab: refreshing", "I: Retrieving a 1", "I: Retrieving b 2", "noise", "Unpacking a (1) ...", "Setting up a (1) ..."]
    progress, record = Recorder(), io.StringIO()
    base._step([sys.executable, "-c", f"print({chr(10).join(lines)!r})"], record, progress, {})
    assert progress.said == [
        "refreshing",
        "downloading packages 1",
        "downloading packages 2",
        "unpacking packages 1",
        "configuring packages 1",
    ]
    assert record.getvalue().splitlines() == lines


def test_a_step_that_fails_says_its_last_words_and_where_to_look(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "_TIED", ())
    with (tmp_path / "build.log").open("w") as record, pytest.raises(LabError, match="E: broken") as failed:
        base._step([sys.executable, "-c", "print('E: broken\\n'); raise SystemExit(3)"], record, Silent(), {})
    assert failed.value.fix == f"look into {tmp_path / 'build.log'}"
