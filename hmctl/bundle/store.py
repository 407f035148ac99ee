"""Releases that were built before, on this machine: `$XDG_CACHE_HOME/hypermesh/releases/<key>/`, the key being all that goes in."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from hmcore.errors import ReleaseError
from hmctl.bundle.build import (
    ARCHITECTURES,
    GLIBC,
    OLDEST_PYTHON,
    Built,
    Target,
    build_libraries,
    build_ours,
    compiles,
    here,
    source_digest,
)
from hmctl.bundle.lock import Lock, read_lock

_ARCHIVE = "release.tar.gz"
_FORMAT = "2"  # of the archive: raise it when build.py packs differently
_KEEP = 4  # builds per target that stay cached


@dataclass(frozen=True, slots=True)
class Release:
    """An agent release. `digest` names its content; `archive` is the file to send, `checksum` its SHA-256."""

    digest: str
    version: str
    python: str
    arch: str
    compiled: bool
    size: int  # bytes to send
    unpacked: int  # bytes on the node
    checksum: str
    built: float  # Unix seconds
    archive: Path

    @property
    def short(self) -> str:
        return self.digest[:12]

    def verify(self) -> None:
        """Raises ReleaseError when the cached file is not what was built."""
        if sha256(self.archive.read_bytes()).hexdigest() != self.checksum:
            raise ReleaseError(f"the cached release {self.archive} is damaged", fix=f"rm -r {self.archive.parent}, then run again")


@dataclass(frozen=True, slots=True)
class ReleaseStore:
    root: Path
    environ: Mapping[str, str]

    @classmethod
    def open(cls, environ: Mapping[str, str]) -> ReleaseStore:
        cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cls(cache / "hypermesh" / "releases", environ)

    def cached(self, target: Target) -> Release | None:
        """The release for `target` as it would be built now, if it was."""
        return _load(self.root / self._key(target))

    def get(self, target: Target) -> Release:
        """The release for `target`, built if need be (blocking, some seconds). Raises ReleaseError."""
        refuse_unsupported(target)
        key = self._key(target)
        folder = self.root / key
        if (known := _load(folder)) is not None:
            os.utime(folder)  # used just now: pruned last
            return known
        lock = read_lock()
        libraries = self._libraries(target, lock)
        ours = build_ours(target, lock, libraries)
        content = libraries.archive + ours.archive
        release = Release(
            digest=ours.digest,
            version=lock.version,
            python=target.python,
            arch=target.arch,
            compiled=compiles(target),
            size=len(content),
            unpacked=libraries.unpacked + ours.unpacked,
            checksum=sha256(content).hexdigest(),
            built=time.time(),
            archive=folder / _ARCHIVE,
        )
        self._keep(folder, content, {**asdict(release), "archive": _ARCHIVE})
        self._prune(target)
        return _load(folder) or release

    def _libraries(self, target: Target, lock: Lock) -> Built:
        """The part of a release that is the same for all of our own versions: kept by itself."""
        folder = self.root / f"libraries-{_hash(_FORMAT, str(target), str(here()), *lock.requirements, '--', *lock.constraints)}"
        try:
            document = json.loads((folder / "release.json").read_text())
            content = (folder / _ARCHIVE).read_bytes()
            if sha256(content).hexdigest() == document["checksum"]:
                return Built(document["libraries"], content, document["unpacked"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass  # not there, or not whole: it is built
        built = build_libraries(target, lock, self.environ)
        checksum = sha256(built.archive).hexdigest()
        self._keep(folder, built.archive, {"libraries": built.digest, "unpacked": built.unpacked, "checksum": checksum})
        return built

    def _keep(self, folder: Path, content: bytes, document: Mapping[str, object]) -> None:
        """Beside, then renamed: what is cached is whole."""
        beside = self.root / f".{folder.name}.{os.getpid()}"
        beside.mkdir(parents=True, exist_ok=True)
        (beside / _ARCHIVE).write_bytes(content)
        (beside / "release.json").write_text(json.dumps(document, indent=2))
        shutil.rmtree(folder, ignore_errors=True)
        try:
            beside.rename(folder)
        except OSError:  # another hmctl was faster; what it built is the same
            shutil.rmtree(beside, ignore_errors=True)

    def list(self) -> list[Release]:
        """All cached releases, the newest first."""
        folders = self.root.iterdir() if self.root.is_dir() else []
        return sorted(filter(None, map(_load, folders)), key=lambda release: -release.built)

    def _key(self, target: Target) -> str:
        return _hash(_FORMAT, str(target), str(here()), read_lock().describe(), source_digest())

    def _prune(self, target: Target) -> None:
        same = [release for release in self.list() if (release.python, release.arch) == (target.python, target.arch)]
        used = sorted(same, key=lambda release: -release.archive.parent.stat().st_mtime)
        libraries = sorted(self.root.glob("libraries-*"), key=lambda folder: -folder.stat().st_mtime)
        for folder in [*(release.archive.parent for release in used[_KEEP:]), *libraries[_KEEP:]]:
            shutil.rmtree(folder, ignore_errors=True)


def _hash(*inputs: str) -> str:
    return sha256("\n".join(inputs).encode()).hexdigest()[:32]


def refuse_unsupported(target: Target) -> None:
    """Raises ReleaseError for what no release can be built for."""
    try:
        version = tuple(int(part) for part in target.python.split("."))
    except ValueError:
        version = ()
    if len(version) != 2:
        raise ReleaseError(f"{target.python!r} is no Python minor version", fix="for example --python 3.11")
    if version < OLDEST_PYTHON:
        oldest = f"{OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]}"
        raise ReleaseError(f"Python {target.python} is too old: agents need {oldest} or newer", fix=f"for example --python {oldest}")
    if target.arch not in ARCHITECTURES:
        only = f"only for {' and '.join(ARCHITECTURES)} (glibc {GLIBC[0]}.{GLIBC[1]}+)"
        raise ReleaseError(f"there is no release for {target.arch}: {only}", fix=f"--arch {' or '.join(ARCHITECTURES)}")


def _load(folder: Path) -> Release | None:
    """What is cached in `folder`; None when nothing whole is."""
    try:
        document = json.loads((folder / "release.json").read_text())
        release = Release(**{**document, "archive": folder / _ARCHIVE})
        return release if release.archive.stat().st_size == release.size else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None
