"""Plain values into YAML that reads back the same (yaml12.py), by people and by readers of YAML 1.1, too."""

from __future__ import annotations

import re
from typing import Any

import yaml

from hmcore.config.scalars import FLOAT
from hmcore.config.yaml12 import TAG, Value

_UNICODE_BREAK = re.compile("[\x85\u2028\u2029]")
_FLOAT_LINE = re.compile(rf"^(?:{FLOAT.pattern})$")


def dump(value: Value) -> str:
    """`value` as YAML, the same for the same value; text that YAML 1.1 or 1.2 would take for something else is quoted."""
    return yaml.dump(value, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=120)


def _dumper() -> type[yaml.SafeDumper]:
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True  # a repeated value is written out: files are for people

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)  # lists stand below their key

        def represent_str(self, data: str) -> yaml.ScalarNode:
            # Elsewhere YAML folds these into spaces; and several lines are to look like it, where they can.
            style = '"' if _UNICODE_BREAK.search(data) else "|" if "\n" in data else None
            return self.represent_scalar(f"{TAG}str", data, style=style)

    Dumper.add_representer(str, Dumper.represent_str)

    # YAML 1.1's rules are inherited; these are the spellings that only 1.2 takes for numbers (1e3, 0o17).
    for first in "+-.0123456789":
        Dumper.add_implicit_resolver(f"{TAG}float", _FLOAT_LINE, [first])
    Dumper.add_implicit_resolver(f"{TAG}int", re.compile(r"^0o[0-7]+$"), ["0"])
    return Dumper
