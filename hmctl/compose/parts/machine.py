"""The operator's machine: which of the paths in compose files are its own, so that no node has what is there. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection
from dataclasses import dataclass

from hmcore.config.problems import Path
from hmctl.compose.parts.names import PATH, SECRET

INSTEAD = "a config (configs:) for a file, a volume for data, or a path that is on every node"
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")  # a drive, or a share


def is_of_windows(path: str) -> bool:
    """As Docker Compose has it, on whatever machine."""
    return _WINDOWS.match(path) is not None


@dataclass(frozen=True, slots=True)
class Machine:
    """`folder`: of the compose files. `local`: parts of them that are paths, and were relative to a file, wherever that led. `small_files`:
    paths that are single files, of a size that a config can have."""

    folder: str
    local: Collection[Path] = frozenset()
    small_files: Collection[str] = frozenset()

    def has(self, path: str, where: Path) -> bool:
        """Whether the `path` that stands at `where` is one of this machine: relative, or beneath the folder of the files."""
        if where in self.local or not path.startswith("/"):
            return True
        whole = posixpath.normpath(path).replace("//", "/")
        return self.folder != "/" and f"{whole}/".startswith(f"{self.folder.rstrip('/')}/")

    def instead(self, path: str, target: str, service: str) -> str:
        """What to write in a service of that name, in place of a mount of `path` at `target`."""
        whole = posixpath.normpath(posixpath.join(self.folder, path))
        name = re.sub(r"[^A-Za-z0-9_.-]+|^[._-]+", "-", posixpath.basename(whole)).strip("-") or "data"
        if not PATH.holds(whole) or not target.isprintable() or not SECRET.holds(name) or not SECRET.holds(f"{service}-{name}"):
            return INSTEAD
        if whole in self.small_files:
            there = posixpath.relpath(whole, self.folder) if whole.startswith(f"{self.folder.rstrip('/')}/") else whole
            entry = f"{{source: {name}, target: {_quoted(target)}}}"
            return f"a config: `configs: [{entry}]` here, `configs: {{{name}: {{file: {_quoted(there)}}}}}` at the top; it is read-only"
        called = f"{service}-{name}"
        entry = _quoted(f"{called}:{target}")
        begins = "it begins as the image has it, not as the folder"
        return f"a volume: {entry} here, `volumes: {{{called}: }}` at the top; {begins}; or a path that is on every node"


def _quoted(text: str) -> str:
    """As a part of a list or a mapping in one line."""
    return text if re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./:@=+-]*", text) else "'" + text.replace("'", "''") + "'"
