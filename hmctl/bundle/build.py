"""Make a release: wheels for the node's Python and architecture, unpacked, with our own two packages, stripped and compiled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from hmcore.errors import ReleaseError
from hmctl import layout
from hmctl.bundle import archive
from hmctl.bundle.index import environment
from hmctl.bundle.lock import PACKAGE, Lock

OURS = ("hmcore", "node_agent")
ARCHITECTURES = ("x86_64", "aarch64")
GLIBC = (2, 28)  # the oldest C library that our wheels are chosen for: Debian 10, RHEL 8 and later
OLDEST_PYTHON = (3, 11)
# Published as source only. Pure Python, so that a wheel built here runs anywhere.
_SOURCE_ONLY = ("pysyncobj",)
_BUILD_TIMEOUT = 600.0

_DIRECTORIES = frozenset({"__pycache__", "tests", "test", "bin"})
_SUFFIXES = (".pyi", ".pyx", ".pxd", ".c", ".h")
_NAMES = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", ".lock", "py.typed"})


@dataclass(frozen=True, slots=True)
class Target:
    """What a release runs on."""

    python: str  # "3.11"
    arch: str  # as `uname -m` says it

    def __str__(self) -> str:
        return f"Python {self.python} on {self.arch}"


def here() -> Target:
    return Target(f"{sys.version_info.major}.{sys.version_info.minor}", os.uname().machine)


def source_files() -> list[tuple[str, Path]]:
    """The files of our own packages, from where they are imported, by the names they have in a release."""
    found = []
    for package in OURS:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ReleaseError(f"the package {package} is not installed beside hmctl", fix="install hypermesh again")
        root = Path(spec.submodule_search_locations[0])
        found += [(f"{package}/{name}", path) for name, path in archive.files(root) if "__pycache__" not in path.parts]
    return found


def source_digest() -> str:
    """SHA-256 over our own sources: whether a cached release still is what we would build."""
    total = sha256()
    for name, path in source_files():
        total.update(f"{name}\0".encode() + sha256(path.read_bytes()).digest())
    return total.hexdigest()


@dataclass(frozen=True, slots=True)
class Built:
    """A part of a release. `digest` names its content."""

    digest: str
    archive: bytes
    unpacked: int  # bytes


def compiles(target: Target) -> bool:
    """Whether this Python makes the byte code that the target's reads; otherwise the node compiles for itself."""
    return target.python == here().python and sys.implementation.name == "cpython"


def build_libraries(target: Target, lock: Lock, environ: Mapping[str, str]) -> Built:
    """What others wrote: seconds, so it is kept for all of our own versions to come. Raises ReleaseError with the installer's reason."""
    with tempfile.TemporaryDirectory(prefix="hypermesh-release-") as scratch:
        stage = Path(scratch) / "release"
        _install(stage, Path(scratch), target, lock, environ)
        _strip(stage)
        return _built(stage, target, last=False)


def build_ours(target: Target, lock: Lock, libraries: Built) -> Built:
    """What we wrote, on top of `libraries`; its digest is that of both."""
    with tempfile.TemporaryDirectory(prefix="hypermesh-release-") as scratch:
        stage = Path(scratch)
        for name, path in source_files():
            destination = stage / name
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, destination)
        _describe(stage, lock.version)
        digest = archive.digest(stage, about=f"{target} {libraries.digest}")
        about = {"digest": digest, "version": lock.version, "python": target.python, "arch": target.arch}
        (stage / "release.json").write_text(json.dumps(about, sort_keys=True) + "\n")
        ours = _built(stage, target, last=True)
        return Built(digest, ours.archive, ours.unpacked)


def _built(stage: Path, target: Target, *, last: bool) -> Built:
    digest = archive.digest(stage, about=str(target))
    if compiles(target):
        _compile(stage)
    return Built(digest, archive.pack(stage, last=last), sum(path.stat().st_size for _, path in archive.files(stage)))


def _install(stage: Path, scratch: Path, target: Target, lock: Lock, environ: Mapping[str, str]) -> None:
    from uv import find_uv_bin

    (scratch / "requirements.txt").write_text("\n".join(lock.requirements))
    (scratch / "constraints.txt").write_text("\n".join(lock.constraints))
    command = [find_uv_bin(), "pip", "install", "--quiet", "--target", str(stage), "--python", sys.executable]
    command += ["--python-version", target.python, "--python-platform", f"{target.arch}-manylinux_{GLIBC[0]}_{GLIBC[1]}"]
    command += ["--only-binary", ":all:", *(word for name in _SOURCE_ONLY for word in ("--no-binary", name))]
    command += ["-r", str(scratch / "requirements.txt"), "-c", str(scratch / "constraints.txt")]
    try:
        done = subprocess.run(
            command, env=environment(environ, Path.home()), capture_output=True, text=True, timeout=_BUILD_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ReleaseError(f"the release for {target} was not built within {_BUILD_TIMEOUT:g} s") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split()).removeprefix("error: ")
        raise ReleaseError(
            f"the release for {target} cannot be built: {said}",
            fix=f"where there is internet: hmctl bundle build --python {target.python} --arch {target.arch}",
        )


def _strip(stage: Path) -> None:
    """What an agent never reads: tests, type stubs, C sources, installers' records. Licences stay."""
    for directory in [path for path in stage.rglob("*") if path.is_dir() and path.name in _DIRECTORIES]:
        shutil.rmtree(directory, ignore_errors=True)
    for path in stage.rglob("*"):
        if path.is_file() and (path.suffix in _SUFFIXES or path.name in _NAMES):
            path.unlink()


def _describe(stage: Path, version: str) -> None:
    """So that importlib.metadata knows our version on the node too."""
    info = stage / f"{PACKAGE}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version}\n")


def _compile(stage: Path) -> None:
    """Byte code that is never checked against its source: a release does not change, and starts at once on every node."""
    command = [sys.executable, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(stage), "-p", layout.CURRENT, str(stage)]
    subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, timeout=_BUILD_TIMEOUT, check=False)
