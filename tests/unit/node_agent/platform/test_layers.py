"""The small decisions of the layers."""

from __future__ import annotations

import shutil
from collections import namedtuple

import pytest

from node_agent.consensus.log.room import low_disk
from node_agent.transport.layer import listening_address

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("address", "listens"), [("10.0.0.1", "0.0.0.0"), ("fd00::1", "::"), ("node1.example.org", "0.0.0.0"), ("127.0.0.1", "0.0.0.0")]
)
def test_listens_on_all_addresses_of_its_own_family(address, listens):
    assert listening_address(address) == listens


GB = 1 << 30


@pytest.mark.parametrize(
    ("total", "free", "low"), [(100 * GB, GB // 2, True), (100 * GB, 2 * GB, False), (2 * GB, GB // 2, False), (10 * GB, 0, True)]
)
def test_a_nearly_full_disk_is_said(monkeypatch, tmp_path, total, free, low):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(total, total - free, free))
    reason = low_disk(tmp_path)
    assert (reason is not None) == low
    assert reason is None or "is nearly full" in reason


def test_a_directory_that_is_gone_is_said(tmp_path):
    assert "cannot be read" in (low_disk(tmp_path / "gone") or "")
