"""Compose files of other projects, as they are in the source archives that these publish: known by their digests, fetched on first use
and kept in the user's cache. None of their files is kept here; their licences are Apache 2.0 and MIT.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hypermesh-tests"
LONGEST = 60  # seconds without an answer
MOST = 100_000_000  # bytes


@dataclass(frozen=True)
class Archive:
    """Of a project on the Python package index. `folder`: the only one at its top."""

    name: str
    version: str
    digest: str
    folder: str


ARCHIVES = {
    archive.name: archive
    for archive in (
        Archive("letta", "0.16.8", "363e26989e552c859ce2e7961d484acee6fccfc1e7b16e8f644b1ae1ccd754a3", "letta-0.16.8"),
        Archive("graphiti-core", "0.31.2", "cee47010d440ae015646c722b18272c3b2e659e38ab7ed6a0fd165a15282f451", "graphiti_core-0.31.2"),
        Archive(
            "mcp-contextforge-gateway",
            "1.0.7.post20260921",
            "b905372e2372298984459b5c462afe564f0199ab4e3eea497da7299bcb189d49",
            "mcp_contextforge_gateway-1.0.7.post20260921",
        ),
        Archive("sqlmesh", "0.236.4", "f018b5ca04ee30a9db4a7ab9413c0afdfac0332bf45a110d8a0a0fa22f93e691", "sqlmesh-0.236.4"),
        Archive("compose-lint", "0.36.2", "30949d1ef6be45d91f93b3b525b189696b670fc7e906340a6f4f771e3e3f7305", "compose_lint-0.36.2"),
    )
}


def unpacked(archive: Archive, into: Path) -> Path:
    """Its folder. In CI it is there, or that is a failure; elsewhere the test is left out, with the reason."""
    folder = into / archive.folder
    if not folder.exists():
        with tarfile.open(_archived(archive)) as opened:
            opened.extractall(into, filter="data")
    return folder


def _archived(archive: Archive) -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    kept = CACHE / f"{archive.digest}.tar.gz"
    with (CACHE / f"{archive.name}.lock").open("w") as lock:  # tests of several processes want it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists() or _digest(kept) != archive.digest:
            _download(archive, kept)
    return kept


def _download(archive: Archive, to: Path) -> None:
    """Not by `pip download`, which runs what the archive builds itself with."""
    try:
        content = _asked(_address(archive))
    except (OSError, ValueError) as error:
        _cannot(f"{archive.name} {archive.version} cannot be had: {error}")
    if hashlib.sha256(content).hexdigest() != archive.digest:
        _cannot(f"{archive.name} {archive.version} is not what it was")
    with tempfile.NamedTemporaryFile(dir=CACHE, delete=False) as file:
        file.write(content)
    Path(file.name).replace(to)


def _address(archive: Archive) -> str:
    """Of its file, as pip finds it in the index that it is configured with. Raises OSError, ValueError."""
    command = [sys.executable, "-m", "pip", "index", "versions", archive.name, "-vv", "--pre", "--no-binary", ":all:"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False).stdout
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"pip took over {LONGEST} s") from error
    wanted = f"{archive.folder}.tar.gz"
    for address in re.findall(r"Found link (\S+)", told):
        if urlsplit(address).path.rpartition("/")[2] == wanted:
            return address.partition("#")[0]
    raise ValueError(f"pip finds no {wanted}")


def _asked(address: str) -> bytes:
    """Raises OSError, ValueError."""
    with urllib.request.urlopen(address, timeout=LONGEST) as answer:
        content: bytes = answer.read(MOST + 1)
    if len(content) > MOST:
        raise ValueError(f"more than {MOST} bytes")
    return content


def _cannot(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
