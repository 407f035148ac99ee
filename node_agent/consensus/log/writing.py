"""A snapshot on its way to the disk, a little at a time: to encode and to store 100,000 keys in one go holds everything up for 0.3 s.

A state never changes, so what it held when the snapshot was begun can be encoded while newer ones are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from node_agent.consensus.log.disk import Disk, Replacement


class Writing:
    """Of file `name`, from the state's `pieces`; `assemble` makes of all of them what the file shall hold. `covers` is for the owner.

    A step encodes, or stores, about `portion` bytes: what is small takes one.
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
        self._encoded: list[bytes] = []
        self._content: Iterator[bytes] | None = None  # once all is encoded
        self._file: Replacement | None = None

    def step(self) -> bool:
        """Whether the whole is in its place now, durably. Raises OSError, and is of no use after that."""
        done = 0
        while done < self._portion:
            if self._content is None:
                done += self._encode()
                continue
            if self._file is None:
                self._file = Replacement(self._disk, self._name)
            chunk = next(self._content, None)
            if chunk is None:
                self._file.commit()
                return True
            self._file.append(chunk)
            done += len(chunk)
        if self._file is not None:
            self._file.sync()
        return False

    def _encode(self) -> int:
        piece = next(self._pieces, None)
        if piece is None:
            self._content = iter(self._assemble(self._encoded))
            return 0
        self._encoded.append(piece)
        return len(piece)

    def abandon(self) -> None:
        """Nothing shall come of it."""
        if self._file is not None:
            self._file.abandon()
