"""The operator's machine: which of the paths in compose files are its own, so that no node has what is there. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from hmcore.config.problems import Path

INSTEAD = "a config (configs:) for a file, a volume for data, or a path that is on every node"


@dataclass(frozen=True, slots=True)
class Machine:
    """`folder`: of the compose files. `local`: parts of them that are paths, and were relative to a file, wherever that led."""

    folder: str
    local: Collection[Path] = frozenset()

    def has(self, path: str, where: Path) -> bool:
        """Whether the `path` that stands at `where` is one of this machine: relative, or beneath the folder of the files."""
        if where in self.local or not path.startswith("/"):
            return True
        return self.folder != "/" and (f"{path}/").startswith(f"{self.folder.rstrip('/')}/")
