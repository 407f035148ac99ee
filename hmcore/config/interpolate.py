"""`${NAME}` and `${NAME:-default}` in the texts of a document, from the environment. Pure: the environment is an argument.

Values are put in after the document was parsed: nothing in the environment can change the document's shape. What they become part of is
marked (`FromEnvironment`), so that no message ever shows it. `$${` stands for a literal `${`; any other `$` is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hmcore.config.problems import FromEnvironment, Mistake, Path
from hmcore.config.scalars import scalar

_REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")


def interpolate(value: Any, environment: Mapping[str, str]) -> tuple[Any, list[Mistake]]:
    """`value` with every reference replaced, and the references that cannot be."""
    wrong: list[Mistake] = []
    return _walk(value, (), environment, wrong), wrong


def plain(value: Any) -> Any:
    """Text from the environment as what it means unquoted: a number, true, false. Anything else is itself."""
    meant = scalar(str(value)) if isinstance(value, FromEnvironment) else value
    return value if isinstance(meant, str) else meant  # text stays marked


def plain_throughout(value: Any) -> Any:
    """The same for every part of `value`."""
    match value:
        case dict():
            return {key: plain_throughout(part) for key, part in value.items()}
        case list():
            return [plain_throughout(part) for part in value]
        case _:
            return plain(value)


def _walk(value: Any, path: Path, environment: Mapping[str, str], wrong: list[Mistake]) -> Any:
    match value:
        case dict():
            return {key: _walk(part, (*path, key), environment, wrong) for key, part in value.items()}
        case list():
            return [_walk(part, (*path, index), environment, wrong) for index, part in enumerate(value)]
        case str() if "${" in value:
            return _replace(value, path, environment, wrong)
        case _:
            return value


def _replace(text: str, path: Path, environment: Mapping[str, str], wrong: list[Mistake]) -> str:
    used = False

    def one(found: re.Match[str]) -> str:
        nonlocal used
        name, default = found[1], found[2]
        if found[0] == "$${":
            return "${"
        if name is None:
            wrong.append(Mistake(path, "this ${ is not ended, or names no variable", "${NAME} or ${NAME:-default}; $${ for a literal ${"))
            return ""
        used = True
        given = environment.get(name)
        if default is not None:
            return given or default
        if given is None:
            wrong.append(Mistake(path, f"the environment variable {name} is not set", f"export {name}=..., or write ${{{name}:-default}}"))
        return given or ""

    replaced = _REFERENCE.sub(one, text)
    return FromEnvironment(replaced) if used else replaced
