"""Files as they are asked for: read once, as YAML or as text. What cannot be read is a mistake where it was asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hmcore.config import scalars, yaml12
from hmcore.config.problems import Path as Where
from hmcore.errors import ConfigError
from hmctl.compose.project import Place
from hmctl.compose.tree import OVERRIDE, RESET, Node, planted
from hmctl.compose.trouble import Trouble

MAX_FILES = 500  # of an app, counted as often as they are included

_OCTAL = re.compile(r"0[0-7]+")

Read = Callable[[Path], bytes]  # raises OSError


@dataclass(frozen=True, slots=True)
class Asking:
    """Who names a file: the part of another one, or (line 0) the operator."""

    place: Place
    where: Where = ()


def from_disk(path: Path) -> bytes:
    """A little more than is allowed is enough to tell that it is too much."""
    try:
        with path.open("rb") as file:
            return file.read(yaml12.MAX_BYTES + 1)
    except ValueError as error:  # a NUL in its name
        raise OSError(str(error)) from None


class Sources:
    def __init__(self, read: Read, trouble: Trouble) -> None:
        self._read, self._trouble = read, trouble
        self._contents: dict[Path, bytes | OSError] = {}
        self._documents: dict[Path, tuple[Node, ...]] = {}

    def documents(self, path: Path, asking: Asking) -> tuple[Node, ...]:
        """A compose file as it is written: the documents in it, each over the one before. None where it cannot be read, which was said."""
        if path not in self._documents:
            content = self._content(path, asking)
            self._documents[path] = self._parsed(path, content) if content is not None else ()
        return self._documents[path]

    def text(self, path: Path, asking: Asking, *, required: bool = True) -> str | None:
        """A file of variables."""
        content = self._content(path, asking, required=required)
        if content is None:
            return None
        if len(content) > yaml12.MAX_BYTES:
            self._trouble.wrong(Place(str(path), 0), (), f"the file is larger than {yaml12.MAX_BYTES // 2**20} MiB")
            return None
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self._trouble.wrong(Place(str(path), content[: error.start].count(b"\n") + 1), (), "the file is not UTF-8 text")
            return None

    def has(self, path: Path) -> bool:
        return not isinstance(self._once(path), OSError)

    def _content(self, path: Path, asking: Asking, *, required: bool = True) -> bytes | None:
        content = self._once(path)
        if not isinstance(content, OSError):
            return content
        if required or not isinstance(content, FileNotFoundError):
            what = "" if asking.place.file == str(path) else f"{path} "
            self._trouble.wrong(asking.place, asking.where, f"{what}cannot be read: {content.strerror or content}")
        return None

    def _once(self, path: Path) -> bytes | OSError:
        if path not in self._contents:
            try:
                self._contents[path] = self._read(path)
            except OSError as error:
                self._contents[path] = error
        return self._contents[path]

    def _parsed(self, path: Path, content: bytes) -> tuple[Node, ...]:
        try:
            documents = yaml12.parse_all(content, str(path), tags={RESET, OVERRIDE}, scalar=scalar)
        except ConfigError as error:
            self._trouble.add(*error.problems)
            return ()
        self._trouble.add(*(problem for document in documents for problem in document.problems))
        roots = tuple(map(planted, documents))
        for root in roots if len(roots) > 1 else ():
            if root.value is None:
                self._trouble.wrong(root.place, (), "this document is empty", "--- separates documents: one of them is too many")
        return roots or (Node(None, Place(str(path), 1)),)


def scalar(text: str) -> yaml12.Value:
    """As Docker Compose has it: a number that begins with 0 is octal, which YAML 1.2 writes 0o (`mode: 0440`)."""
    return int(text, 8) if _OCTAL.fullmatch(text) and len(text) < 20 else scalars.scalar(text)


def joined(folder: Path, written: str, home: str | None) -> Path:
    """A path as a file has it, relative to `folder`, without `..` where that can be helped."""
    if written.startswith("~/") and home:
        return Path(os.path.normpath(home + written[1:]))
    return Path(os.path.normpath(os.path.join(folder, written)))
