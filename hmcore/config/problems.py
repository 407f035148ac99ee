"""From "this value is wrong" to a line that a person can act on: file, line, path, what is allowed, the nearest match.

Checks speak of paths (`Mistake`); `locate` adds where in the file that path stands. Pydantic's own errors are translated here, so that
every mistake in a document reads the same.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hmcore.errors import Problem

Path = tuple[str | int, ...]
_TRUTH = dict.fromkeys(("yes", "y", "on", "true"), "true") | dict.fromkeys(("no", "n", "off", "false"), "false")
_QUANTITY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h)?")
_IN_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_Model = TypeVar("_Model", bound=BaseModel)


class FromEnvironment(str):
    """Text that holds a value from the environment: perhaps a secret, so it is never shown; perhaps a number, so it may be read as one."""

    __slots__ = ()


class Mistake(msgspec.Struct, frozen=True):
    """A mistake at a path of a document, not yet at a line of a file."""

    path: Path
    message: str
    hint: str | None = None
    warning: bool = False

    def under(self, prefix: Path) -> Mistake:
        """The same mistake, seen from the document that holds this one at `prefix`."""
        return Mistake(prefix + self.path, self.message, self.hint, self.warning)


def spell(path: Path) -> str:
    """`hosts[2].ssh.port`. Keys may be anything; what cannot be printed is escaped."""
    text = ""
    for part in path:
        key = part if isinstance(part, int) or part.isprintable() else repr(part)[1:-1]
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def locate(wrong: Iterable[Mistake], file: str, lines: Mapping[Path, int]) -> tuple[Problem, ...]:
    """Each mistake with its line (of the nearest part that is in the file), in the order of the file and without repetition."""
    return in_order(Problem(file, line_of(m.path, lines), spell(m.path), m.message, m.hint, m.warning) for m in wrong)


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """In the order of the file, each said once."""
    return tuple(sorted(dict.fromkeys(problems), key=lambda problem: problem.line or 0))


def line_of(path: Path, lines: Mapping[Path, int]) -> int | None:
    """The line of the part at `path`, or of the nearest part above it."""
    for end in range(len(path), -1, -1):
        if (line := lines.get(path[:end])) is not None:
            return line
    return None


def nearest(word: str, allowed: Collection[str]) -> str:
    """`did you mean X?` if something allowed is close to `word`, otherwise everything that is allowed."""
    close = difflib.get_close_matches(word.lower(), allowed, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"allowed: {', '.join(allowed)}"


def describe(value: object) -> str:
    """A value of a document, in words and short. Never shows what came from the environment."""
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case int() | float():
            short = isinstance(value, float) or value.bit_length() <= 128  # Python refuses to print the longest
            return f"the number {value}" if short else "a very long number"
        case FromEnvironment():
            return "the text from the environment"
        case str():
            return repr(value if len(value) <= 60 else f"{value[:57]}...")
        case list() | tuple():
            return "a list"
        case _:
            return "a mapping"


def examine(model: type[_Model], value: object) -> tuple[_Model | None, list[Mistake]]:
    """`value` as a `model` and what is wrong with it. Wrong parts are left out of what is returned, so that the rest can be checked
    further in the same go; None when that is not enough."""
    try:
        return model.model_validate(value), []
    except ValidationError as error:
        wrong = mistakes(error, model)
    for mistake in wrong:
        value = _without(value, mistake.path)
    try:
        return model.model_validate(value), wrong
    except ValidationError:
        return None, wrong


def _without(value: Any, path: Path) -> Any:
    """`value` without the part at `path`; the nearest part above it goes if it has no such part of its own."""
    if not path or not isinstance(value, Mapping) or path[0] not in value:
        return value
    key, inner = path[0], value[path[0]]
    rest = {name: part for name, part in value.items() if name != key}
    reaches_further = len(path) > 1 and isinstance(inner, Mapping) and path[1] in inner
    return {**rest, key: _without(inner, path[1:])} if reaches_further else rest


def mistakes(error: ValidationError, model: type[BaseModel]) -> list[Mistake]:
    """Pydantic's errors about a document of type `model`, in our words."""
    return list(dict.fromkeys(_translate(detail, model) for detail in error.errors(include_url=False)))


def _translate(detail: ErrorDetails, model: type[BaseModel]) -> Mistake:
    path = tuple(detail["loc"])
    if path[-1:] == ("[key]",) and detail["type"] != "extra_forbidden":
        path = path[:-1]  # pydantic's way to say that a key is meant, not its value
    found, context = describe(detail["input"]), detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return Mistake(path, "is missing", _described(model, path))
        case "extra_forbidden":
            owner = _model_at(model, path[:-1])
            return Mistake(path, "unknown key", nearest(str(path[-1]), list(owner.model_fields)) if owner else None)
        case "literal_error" | "enum":
            allowed = [choice.strip("' ") for choice in str(context["expected"]).replace(" or ", ", ").split(", ")]
            given = detail["input"] if isinstance(detail["input"], str) else ""
            return Mistake(path, f"must be one of {', '.join(allowed)}, not {found}", _close(given, allowed))
        case "string_type":
            if path[-1] == "sudo_password":  # never shown, whatever it is
                return Mistake(path, "must be text", "${SUDO_PASSWORD}, or in quotes")
            quoted = isinstance(detail["input"], bool | int | float)
            return Mistake(path, f"must be text, not {found}", f'in quotes: "{found.removeprefix("the number ")}"' if quoted else None)
        case "bool_type" | "bool_parsing":
            return Mistake(path, f"must be true or false, not {found}", _meant(detail["input"]))
        case "int_type" | "int_parsing" | "int_from_float":
            return Mistake(path, f"must be a whole number, not {found}", _meant(detail["input"]))
        case "float_type" | "float_parsing":
            return Mistake(path, f"must be a number, not {found}", _meant(detail["input"]) or _described(model, path))
        case "finite_number":
            return Mistake(path, "must be a finite number")
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            words = {"greater_than": "above", "greater_than_equal": "at least", "less_than": "below", "less_than_equal": "at most"}
            return Mistake(
                path, f"must be {words[detail['type']]} {next(iter(context.values())):g}, not {found.removeprefix('the number ')}"
            )
        case "model_type" | "dict_type" | "model_attributes_type":
            owner = _model_at(model, path)
            return Mistake(path, f"must be a mapping, not {found}", f"keys: {', '.join(owner.model_fields)}" if owner else None)
        case "list_type" | "tuple_type":
            return Mistake(path, f"must be a list, not {found}")
        case _:  # our own validators: the message is ours already
            return Mistake(path, detail["msg"], context.get("hint"))


def _close(word: str, allowed: Collection[str]) -> str | None:
    close = difflib.get_close_matches(word.lower(), allowed, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else None


def _meant(given: object) -> str | None:
    """What somebody who wrote text for a number or a truth value probably meant."""
    if not isinstance(given, str) or isinstance(given, FromEnvironment):
        return None
    if given.lower() in _TRUTH:
        return f"did you mean {_TRUTH[given.lower()]}? In YAML 1.2 {given} is text"
    if found := _QUANTITY.fullmatch(given):
        number, unit = float(found[1]), found[2]
        return f"in seconds: {number * _IN_SECONDS[unit]:g}" if unit else f"without quotes: {number:g}"
    return None


def _described(model: type[BaseModel], path: Path) -> str | None:
    owner = _model_at(model, path[:-1])
    field = owner.model_fields.get(str(path[-1])) if owner and path else None
    return field.description if field else None


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The model of the part at `path`, looking through Optional and lists."""
    found: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, int) or found is None:
            continue
        field = found.model_fields.get(part)
        found = _inner_model(field.annotation) if field else None
    return found


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for argument in typing.get_args(annotation) if (model := _inner_model(argument))), None)
