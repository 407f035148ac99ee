"""`$X ${X} ${X:-d} ${X-d} ${X:?e} ${X?e} ${X:+r} ${X+r} $$` in a text, as the Compose Specification has them; d, e and r may hold more of
them. Pure.

https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md. A `$` before anything else is a `$` (Compose does the same).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_DEPTH = 32  # references within references
MAX_LENGTH = 1_048_576  # characters of a text once its variables are put in

Lookup = Callable[[str], str | None]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")
_SPECIAL = re.compile(r"[${}]")


class Malformed(Exception):
    """What cannot be meant, in words."""


@dataclass(frozen=True, slots=True)
class Reference:
    """`word` is what follows the operator; it is looked at only if it counts."""

    name: str
    operator: str = ""
    word: Template = ()


Template = tuple[str | Reference, ...]


@dataclass(slots=True)
class Outcome:
    """`text` with all put in. `used`: something came from a variable. `unset`: variables that are empty because nobody set them.
    `missing`: variables that must be set (`:?`, `?`), each with what the file says about it."""

    text: str = ""
    used: bool = False
    unset: list[str] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)


def substitute(text: str, lookup: Lookup) -> Outcome:
    """Raises Malformed."""
    if "$" not in text:
        return Outcome(text)
    outcome = Outcome()
    outcome.text = _filled(parse(text), lookup, outcome)
    return outcome


def parse(text: str) -> Template:
    """Raises Malformed."""
    template, _ = _template(text, 0, 0)
    return template


def _template(text: str, position: int, depth: int) -> tuple[Template, int]:
    """Up to the end, or within a reference up to the `}` that ends it. Braces within count in pairs: `${X:-{"a": 1}}` is JSON."""
    parts: list[str | Reference] = []
    braces, written = 0, position
    while found := _SPECIAL.search(text, position):
        start, sign = found.start(), found[0]
        position = start + 1
        if sign == "$":
            part, position = _dollar(text, position, depth)
            parts += (text[written:start], part)
            written = position
        elif depth and sign == "{":
            braces += 1
        elif depth and braces:
            braces -= 1
        elif depth:
            return (*_joined(parts), text[written:start]), position
    if depth:
        raise Malformed("a ${ is not ended")
    return (*_joined(parts), text[written:]), len(text)


def _joined(parts: list[str | Reference]) -> Template:
    return tuple(part for part in parts if part != "")


def _dollar(text: str, position: int, depth: int) -> tuple[str | Reference, int]:
    """What a `$` begins, and where that ends. `position`: after it."""
    match text[position : position + 1]:
        case "$":
            return "$", position + 1
        case "{":
            return _braced(text, position + 1, depth)
    name = _NAME.match(text, position)
    return (Reference(name[0]), name.end()) if name else ("$", position)


def _braced(text: str, position: int, depth: int) -> tuple[Reference, int]:
    name = _NAME.match(text, position)
    if name is None:
        raise Malformed("a ${ names no variable")
    end = name.end()
    if text[end : end + 1] == "}":
        return Reference(name[0]), end + 1
    operator = _OPERATOR.match(text, end)
    if operator is None:
        raise Malformed(f"after ${{{name[0]} must come }}, or one of :- - :? ? :+ +" if end < len(text) else "a ${ is not ended")
    if depth >= MAX_DEPTH:
        raise Malformed(f"references within references, more than {MAX_DEPTH} deep")
    word, end = _template(text, operator.end(), depth + 1)
    return Reference(name[0], operator[0], word), end


def _filled(template: Template, lookup: Lookup, outcome: Outcome) -> str:
    filled: list[str] = []
    length = 0
    for part in template:
        filled.append(part if isinstance(part, str) else _value(part, lookup, outcome))
        length += len(filled[-1])
        if length > MAX_LENGTH:
            raise Malformed(f"longer than {MAX_LENGTH} characters once its variables are put in")
    return "".join(filled)


def _value(reference: Reference, lookup: Lookup, outcome: Outcome) -> str:
    given = lookup(reference.name)
    outcome.used = outcome.used or given is not None
    there = bool(given) if reference.operator.startswith(":") else given is not None
    match reference.operator[-1:]:
        case "-" if not there:
            return _filled(reference.word, lookup, outcome)
        case "+" if there:
            return _filled(reference.word, lookup, outcome)
        case "+":
            return ""
        case "?" if not there:
            outcome.missing.append((reference.name, _filled(reference.word, lookup, outcome)))
        case "" if given is None:
            outcome.unset.append(reference.name)
    return given or ""
