"""docs/compose.md says of every key what becomes of it, in the words of the table that the converter goes by. HM_ACCEPT=1
writes it anew."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hmctl.compose.parts.keys import OBJECTS, Keys

DOC = Path(__file__).parents[4] / "docs" / "compose.md"
BEGIN, END = "<!-- keys -->\n", "<!-- end -->\n"


def title(kind: str) -> str:
    match kind:
        case "":
            return "At the top of a file"
        case "service":
            return "Of a service"
        case "external":
            return "`external`, as a mapping"
    inner = kind.removeprefix("service.")
    return f"`{inner}`" if kind != inner else f"Of a {kind} at the top of a file"


def section(kind: str, keys: Keys) -> Iterator[str]:
    yield f"### {title(kind)}"
    yield ""
    yield "Heeded: " + ", ".join(f"`{key}`" for key in sorted(keys.supported)) + "."
    for words, table in (("does nothing", keys.ignored), ("not supported; instead", keys.unsupported)):
        if table:
            yield ""
            yield f"| {words} | {'because' if table is keys.ignored else ''} |"
            yield "|---|---|"
            for key, said in sorted(table.items()):
                yield f"| `{key}` | {said.replace('|', chr(92) + '|')} |"
    yield ""


def written() -> str:
    return "\n" + "\n".join(line for kind, keys in OBJECTS.items() for line in section(kind, keys))


def test_the_tables_are_those_of_the_converter() -> None:
    head, begin, rest = DOC.read_text().partition(BEGIN)
    found, end, tail = rest.partition(END)
    assert begin
    assert end
    if os.environ.get("HM_ACCEPT"):
        DOC.write_text(f"{head}{BEGIN}{written()}{END}{tail}")
        return
    assert found == written()


@pytest.mark.parametrize("kind", ["service.x-hypermesh"])
def test_what_is_ours_is_explained_key_by_key(kind: str) -> None:
    part = DOC.read_text().split("## x-hypermesh\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", part, flags=re.MULTILINE)) == OBJECTS[kind].supported


def test_what_differs_is_of_keys_that_there_are() -> None:
    part = DOC.read_text().split("## What is different on a cluster\n")[1].split("\n## ")[0]
    for path in re.findall(r"`([a-z_.]+)`(?:, | \|)", "\n".join(line.split(" | ")[0] + " |" for line in part.splitlines())):
        above, _, key = f"service.{path}".rpartition(".")
        assert key in OBJECTS[above].supported, path
