"""The hostile bytes are what they claim to be: so a door that stays shut before them is shut."""

from __future__ import annotations

import pickle

import pytest
import yaml
from hostile_bytes import nothing_is_opened, pickles, yamls


def test_each_pickle_does_its_harm_when_it_is_opened(tmp_path):
    for name, data in pickles(tmp_path / "opened").items():
        pickle.loads(data)
        assert (tmp_path / "opened").is_dir(), name
        (tmp_path / "opened").rmdir()


def test_who_opens_one_is_caught(tmp_path):
    for name, data in pickles(tmp_path / "opened").items():
        with pytest.raises(AssertionError, match="unpickler"), nothing_is_opened(tmp_path / "opened"):
            pickle.loads(data)
        assert (tmp_path / "opened").is_dir(), name
        (tmp_path / "opened").rmdir()
    with pytest.raises(AssertionError, match="executed"), nothing_is_opened(tmp_path / "opened"):
        (tmp_path / "opened").mkdir()


def test_an_unsafe_loader_obeys_the_documents(tmp_path):
    for name, document in yamls(tmp_path / "opened").items():
        if name not in ("name", "module"):
            yaml.unsafe_load(document)
            assert (tmp_path / "opened").is_dir(), name
            (tmp_path / "opened").rmdir()
