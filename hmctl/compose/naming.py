"""What an app is called: as the operator says, else COMPOSE_PROJECT_NAME, else `name:` of the files, else their folder. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from hmctl.compose.interpolation import interpolated
from hmctl.compose.project import Place
from hmctl.compose.tree import Node
from hmctl.compose.trouble import Trouble

VARIABLE = "COMPOSE_PROJECT_NAME"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_ALLOWED = "lower-case letters, digits, - and _, beginning with a letter or digit"


def normalised(text: str) -> str:
    """As Docker Compose does with names that nobody chose to be one. Perhaps empty."""
    return re.sub(r"[^a-z0-9_-]", "", text.lower()).lstrip("_-")


def project_name(
    asked: str | None, environment: Mapping[str, str], files: Iterable[Node], folder: Path, named: Place, trouble: Trouble
) -> str:
    """`files`: as they were written; of their names the last counts. `folder`: absolute. `named`: where to look if all that gives none."""
    chosen = asked or environment.get(VARIABLE)
    if chosen:
        if not _NAME.fullmatch(chosen):
            trouble.wrong(Place("--name" if asked else VARIABLE, 0), (), f"{chosen[:80]!r} is no name of an app", _ALLOWED)
        return chosen
    written = [name for root in files if (name := root.entries.get("name")) and name.text]
    if written:
        name = interpolated(Node({"name": written[-1]}, written[-1].place), environment, trouble).entries["name"]
        found = normalised(name.text or "")
        if not found:
            trouble.wrong(name.place, ("name",), "nothing of this can be a name", _ALLOWED)
        return found
    found = normalised(folder.name)
    if not found:
        trouble.wrong(
            named, (), f"the app has no name, and nothing of its folder's ({str(folder)[-60:]!r}) can be one", "name: at the top, or --name"
        )
    return found
