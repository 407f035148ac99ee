"""Files and folders that outlive a loss of power."""

import os
import stat
from pathlib import Path

import pytest

from hmcore.files import read_or_make


def test_a_file_is_made_once_for_its_owner_alone(tmp_path: Path):
    path = tmp_path / "pki" / "key"
    assert read_or_make(path, lambda: b"first") == b"first"
    assert read_or_make(path, lambda: b"second") == b"first"
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)


def test_what_a_crash_left_half_written_is_made_anew(tmp_path: Path):
    (tmp_path / ".key.new").write_bytes(b"hal")
    assert read_or_make(tmp_path / "key", lambda: b"whole") == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_content_and_name_are_on_the_disk_when_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[tuple[str, bool]] = []

    def noted(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), (tmp_path / "key").exists()))

    monkeypatch.setattr(os, "fsync", noted)
    read_or_make(tmp_path / "key", lambda: b"whole")
    assert synced == [(str(tmp_path / ".key.new"), False), (str(tmp_path), True)]
