"""A snapshot on its way to the disk, a little at a time: to encode and to store 100,000 keys in one go holds everything up for 0.3 s.

A state never changes, so what it held when the snapshot was begun can be encoded while newer ones are made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from node_agent.consensus.log.disk import Disk, Replacement


class Writing:
    """Of file `name`, from the state's `pieces`; `assemble` makes of all of them what the file shall hold. `covers` is for the owner.

    A step encodes, or stores, about `portion` bytes: what is small takes one. Where pieces begin and end differs from one run to the next,
    with the order in which the state's tables are walked; how many steps there are, and what each one writes, follows from sizes alone.
    """

    def __init__(
        self, disk: Disk, name: str, pieces: Iterator[bytes], assemble: Callable[[list[bytes]], list[bytes]], *, portion: int, covers: int
    ) -> None:
        self.covers = covers
        self._disk = disk
        self._name = name
        self._pieces = pieces
        self._assemble = assemble
        self._portion = portion
        self._done = self._due = 0  # bytes, encoded or stored
        self._encoded: list[bytes] = []
        self._content: deque[memoryview] | None = None  # what is still to be stored, once all is encoded
        self._file: Replacement | None = None

    def step(self) -> bool:
        """Whether the whole is in its place now, durably. Raises OSError, and is of no use after that."""
        self._due += self._portion
        while self._content is None and self._done < self._due:
            self._encode()
        if self._content is None or self._done >= self._due:
            return False
        if self._file is None:
            self._file = Replacement(self._disk, self._name)
        chunk = _take(self._content, self._due - self._done)
        self._file.append(chunk)
        self._done += len(chunk)
        if not self._content:
            self._file.commit()
            return True
        self._file.sync()
        return False

    def _encode(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            self._content = deque(memoryview(piece) for piece in self._assemble(self._encoded))
            self._encoded = []
        else:
            self._encoded.append(piece)
            self._done += len(piece)

    def abandon(self) -> None:
        """Nothing shall come of it."""
        if self._file is not None:
            self._file.abandon()


def _take(content: deque[memoryview], size: int) -> bytes:
    """The first `size` bytes, or all if there are fewer."""
    taken: list[memoryview] = []
    while size and content:
        piece = content.popleft()
        if len(piece) > size:
            content.appendleft(piece[size:])
            piece = piece[:size]
        taken.append(piece)
        size -= len(piece)
    return b"".join(taken)
