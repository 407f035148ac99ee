"""What a release needs is what the project depends on: a library that nobody tries is one that fails on the node."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from hmcore.errors import ReleaseError
from node_agent.platform import release

PROJECT = tomllib.loads(Path(__file__).parents[4].joinpath("pyproject.toml").read_text())["project"]


def test_every_dependency_of_the_agent_is_tried():
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["agent"]
    assert {re.split(r"[=<>\[; ]", line)[0] for line in wanted} == set(release.LIBRARIES)


def test_a_library_that_does_not_import_is_named(monkeypatch):
    monkeypatch.setattr(release, "LIBRARIES", {"nothing": "no_such_module"})
    with pytest.raises(ReleaseError, match="no_such_module does not import on Python 3"):
        release.check_release()


def test_without_metadata_a_release_is_not_complete(monkeypatch):
    monkeypatch.setattr(release, "LIBRARIES", {"no-such-distribution": "json"})
    with pytest.raises(ReleaseError, match="without its metadata"):
        release.check_release()


def test_a_release_is_called_by_its_directory(monkeypatch, tmp_path):
    assert release.running_release() == "source"
    module = tmp_path / "releases" / "3fa9c0d1" / "node_agent" / "platform" / "release.py"
    module.parent.mkdir(parents=True)
    module.touch()
    (tmp_path / "current").symlink_to("releases/3fa9c0d1")
    monkeypatch.setattr(release, "__file__", str(tmp_path / "current" / "node_agent" / "platform" / "release.py"))
    assert release.running_release() == "3fa9c0d1"
