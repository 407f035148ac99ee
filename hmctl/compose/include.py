"""`include`: what an entry of it means. Pure. https://github.com/compose-spec/compose-spec/blob/main/14-include.md"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hmcore.config.problems import Path as Where
from hmctl.compose.forms import SECTIONS
from hmctl.compose.merge import merge
from hmctl.compose.sources import Asking, joined
from hmctl.compose.tree import Node
from hmctl.compose.trouble import Trouble

_REMOTE = ("git@", "oci:", "github.com/")


@dataclass(frozen=True, slots=True)
class Inclusion:
    """Files that are merged with each other, the folder their relative paths begin in, and their own variables; no `env_files`: the .env of
    `folder`, if there is one. `asking`: the entry itself."""

    asking: Asking
    files: tuple[Path, ...]
    folder: Path
    env_files: tuple[Path, ...] | None


def inclusions(root: Node, folder: Path, home: str | None, trouble: Trouble) -> list[Inclusion]:
    """What `root`, whose relative paths begin in `folder`, includes."""
    found = []
    for index, entry in enumerate(root.entries["include"].items if "include" in root.entries else ()):
        where = ("include", index)
        files = [joined(folder, path, home) for path in _texts(entry, "path", where, trouble)]
        own = entry.entries.get("project_directory")
        env_files = [joined(folder, path, home) for path in _texts(entry, "env_file", where, trouble) if path != "/dev/null"]
        if own and not own.text:
            trouble.wrong(own.place, (*where, "project_directory"), "must be the path of a folder")
        elif files:
            base = joined(folder, own.text, home) if own and own.text else files[0].parent
            found.append(
                Inclusion(Asking(entry.place, where), tuple(files), base, tuple(env_files) if "env_file" in entry.entries else None)
            )
        elif "path" not in entry.entries:
            trouble.wrong(entry.place, where, "names no file", "path: FILE")
    return found


def _texts(entry: Node, key: str, where: Where, trouble: Trouble) -> list[str]:
    node = entry.entries.get(key)
    if node is None or node.value is None:
        return []
    found = []
    for item in node.items or (node,):
        if not item.text:
            trouble.wrong(item.place, (*where, key), "must be the path of a file, or a list of them")
        elif "://" in item.text or item.text.startswith(_REMOTE):
            trouble.wrong(
                item.place, (*where, key), f"{item.text[:80]} is not on this machine", "only files can be included: copy it here first"
            )
        else:
            found.append(item.text)
    return found


def imported(root: Node, included: Node, trouble: Trouble) -> Node:
    """`root` with what `included` has; where both have the same, `root` lies over it."""
    sections = {}
    for section in SECTIONS:
        below, above = included.entries.get(section), root.entries.get(section)
        if below is None or not below.entries:
            continue
        merged = dict(above.entries) if above else {}
        for name, resource in below.entries.items():
            merged[name] = merge(resource, merged[name], trouble, (section, name)) if name in merged else resource
        sections[section] = above.holding(merged) if above else below.holding(merged)
    return root.having(**sections)
