"""Content that is not whole yet, as two files: what has come, and the marks of its chunks. Blocking: blobs.py calls it in threads.

Invariant: `offset` bytes of the file, hashed, give the last of the marks. So what is damaged (by a crash, or by whoever sent it) is found
before anything is built upon it, and the file never becomes whole content unless its hash is the digest.
"""

from __future__ import annotations

import os
import threading
from hashlib import sha256
from pathlib import Path

from hmcore.digests import hex_of
from hmcore.errors import BlobCorrupt, BlobError
from hmcore.files import sync_folder
from hmcore.stoq.bulk.frames import CHUNK, MARK
from hmcore.stoq.bulk.streams import expect_mark


class Partial:
    """Of `size` bytes, to become the file of `digest` in the folder above. One thread at a time: others wait."""

    def __init__(self, path: Path, digest: str, size: int, file: int, marks: int) -> None:
        self.digest = digest
        self.size = size
        self.offset = 0
        self._path = path
        self._file = file
        self._marks = marks
        self._hash = sha256()
        self._lock = threading.Lock()
        self._open = True

    @classmethod
    def open(cls, path: Path, digest: str, size: int) -> Partial:
        """With as much of what is there as fits its marks. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        file = os.open(path, flags, 0o600)
        try:
            partial = cls(path, digest, size, file, os.open(_marks_of(path), flags, 0o600))
        except OSError:
            os.close(file)
            raise
        try:
            partial._recover()
        except OSError:
            partial.close()
            raise
        return partial

    def add(self, content: bytearray, mark: bytes) -> None:
        """The next chunk. Raises BlobCorrupt: then nothing has changed. OSError: the disk failed, or is full; then nothing is kept."""
        with self._lock:
            self._check()
            reached = self._hash.copy()
            reached.update(content)
            expect_mark(reached.digest(), mark, self.offset + len(content))
            try:
                _write(self._file, content, self.offset)
                _write(self._marks, mark, self.offset // CHUNK * MARK)
            except OSError:
                self._discard()
                raise
            self._hash = reached
            self.offset += len(content)

    def finish(self) -> None:
        """All has come: give it its name, once it is on the disk. Raises BlobCorrupt when it is something else. OSError: then nothing is
        kept."""
        with self._lock:
            self._check()
            if self.offset != self.size or self._hash.hexdigest() != hex_of(self.digest):
                raise BlobCorrupt(f"what came for {self.digest} is something else")
            whole = self._path.parent.parent / self._path.name
            try:
                for file in (self._file, self._marks):
                    os.fdatasync(file)
                os.rename(self._path, whole)
                os.rename(_marks_of(self._path), _marks_of(whole))
                sync_folder(whole.parent)
            except OSError:
                self._discard()
                raise
            self._release()

    def restart(self) -> None:
        """Forget what has come. Raises OSError."""
        with self._lock:
            self._check()
            self._hash, self.offset = sha256(), 0
            os.ftruncate(self._marks, 0)
            os.ftruncate(self._file, 0)

    def close(self) -> None:
        """What has come stays, to be gone on with."""
        with self._lock:
            self._release()

    def _recover(self) -> None:
        """Go on where file and marks agree for the last time."""
        marks = _read(self._marks, 0, -(-self.size // CHUNK) * MARK)
        for at in range(0, len(marks) - MARK + 1, MARK):
            content = _read(self._file, self.offset, min(CHUNK, self.size - self.offset))
            reached = self._hash.copy()
            reached.update(content)
            if reached.digest() != marks[at : at + MARK]:
                break
            self._hash = reached
            self.offset += len(content)
        os.ftruncate(self._file, self.offset)
        os.ftruncate(self._marks, -(-self.offset // CHUNK) * MARK)

    def _check(self) -> None:
        if not self._open:
            raise BlobError(f"{self.digest} is not being brought any more")

    def _discard(self) -> None:
        self._path.unlink(missing_ok=True)
        _marks_of(self._path).unlink(missing_ok=True)
        self._release()

    def _release(self) -> None:
        if self._open:
            self._open = False
            os.close(self._file)
            os.close(self._marks)


def read_marks(whole: Path) -> bytes:
    """Empty when there are none. Raises OSError."""
    try:
        return _marks_of(whole).read_bytes()
    except FileNotFoundError:
        return b""


def write_marks(whole: Path, marks: bytes) -> None:
    """Raises OSError."""
    beside = _marks_of(whole).with_name(f".{whole.name}.marks")
    beside.write_bytes(marks)
    os.rename(beside, _marks_of(whole))


def whole_marks(whole: Path, digest: str) -> tuple[bytes, bool]:
    """The marks of a file, by hashing it, and whether it is what the digest names. Raises OSError."""
    reached, marks = sha256(), bytearray()
    with whole.open("rb", buffering=0) as file:
        buffer = bytearray(CHUNK)
        while filled := _fill(file.fileno(), buffer, file.tell()):
            file.seek(filled, os.SEEK_CUR)
            reached.update(memoryview(buffer)[:filled])
            marks += reached.digest()
    return bytes(marks), reached.hexdigest() == hex_of(digest)


def _marks_of(path: Path) -> Path:
    return path.with_name(path.name + ".marks")


def _write(file: int, content: bytes | bytearray, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _read(file: int, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: _fill(file, buffer, offset)])


def _fill(file: int, buffer: bytearray, offset: int) -> int:
    """Bytes read into `buffer`: fewer than it takes only at the file's end."""
    view, filled = memoryview(buffer), 0
    while filled < len(buffer) and (got := os.preadv(file, [view[filled:]], offset + filled)):
        filled += got
    return filled
