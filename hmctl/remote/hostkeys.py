"""Whose word we take for who a host is: known_hosts files, and the keys that the operator accepted on first contact."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SYSTEM = Path("/etc/ssh/ssh_known_hosts")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a known_hosts file, and where it stands."""

    file: Path
    number: int  # from 1
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


def files(inventory: Path | None, home: Path, pins: Path) -> list[Path]:
    """The files that may vouch for a host. The inventory's file, when it names one, replaces the user's and the system's."""
    return [inventory, pins] if inventory else [home / ".ssh" / "known_hosts", SYSTEM, pins]


class Reader:
    """Reads the files each time that they are asked for. Of one that only grew, and whose last line was whole, only what is new is parsed:
    each of hundreds of hosts adds its own."""

    def __init__(self) -> None:
        self._parsed: dict[Path, tuple[str, int, list[Line]]] = {}  # text, its number of lines, entries

    def read(self, paths: Iterable[Path]) -> list[Line]:
        """All entries, in the order of the files. A file that is not there vouches for nobody."""
        lines: list[Line] = []
        for path in paths:
            try:
                text = path.read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, NotADirectoryError):
                continue
            lines += self._entries(path, text)
        return lines

    def _entries(self, path: Path, text: str) -> list[Line]:
        before, count, known = self._parsed.get(path, ("", 0, []))
        if not text.startswith(before) or not before.endswith("\n"):
            before, count, known = "", 0, []
        added = text[len(before) :].splitlines()
        entries = [(number, line.strip()) for number, line in enumerate(added, start=count + 1)]
        found = known + [Line(path, number, line) for number, line in entries if line and not line.startswith("#")]
        self._parsed[path] = (text, count + len(added), found)
        return found


def entry(address: str, port: int, key: str) -> str:
    """The known_hosts line for `key` (its OpenSSH form; a comment is dropped)."""
    return f"{place(address, port)} {' '.join(key.split()[:2])}"


def place(address: str, port: int) -> str:
    """A host as known_hosts files name it."""
    return address if port == 22 else f"[{address}]:{port}"


def pin(path: Path, lines: Iterable[str]) -> None:
    """Remembers accepted keys. One append each, so that two hmctl at once cannot tear each other's lines."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        for line in lines:
            os.write(descriptor, f"{line}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
