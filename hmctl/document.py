"""Results for machines: records of any kind as JSON or YAML text (docs/json.md says what stands in them). Pure."""

from __future__ import annotations

import os
from enum import StrEnum

UNBOUNDED = 100_000  # columns: nothing is ever folded


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def dump(document: object, format: Format, *, indent: int | None = 2) -> str:
    """`document` as JSON or YAML text, ending in a newline. Structs, dataclasses, enums and paths are turned into their JSON types."""
    import msgspec

    tree = msgspec.to_builtins(document, enc_hook=os.fspath)  # paths are all that msgspec does not know by itself
    if format is Format.YAML:
        return _dump_yaml(tree)
    import json

    return json.dumps(tree, indent=indent, ensure_ascii=False) + "\n"


def _dump_yaml(tree: object) -> str:
    import re

    import yaml

    # PyYAML quotes what YAML 1.1 would not read as a string; a digest such as 12e45 is a number to YAML 1.2 readers alone,
    # and of the characters that need an escape it loses some unless it is told to quote.
    number = re.compile(r"[-+]?(0o[0-7]+|0x[0-9a-fA-F]+|(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?)")

    class Dumper(yaml.SafeDumper):
        def represent_str(self, data: str) -> yaml.ScalarNode:
            quoted = number.fullmatch(data) or not data.isprintable()
            return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if quoted else None)

    Dumper.add_representer(str, Dumper.represent_str)
    text: str = yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=UNBOUNDED)
    return text
