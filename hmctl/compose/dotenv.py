"""What .env, --env-file and `env_file` of a service hold: NAME=value by line, as Docker Compose reads them. Pure: text in, variables out.

Single quotes keep what they hold; double quotes know \\n and its like; in those and without quotes variables are put in. A value in quotes
may have several lines. `raw` (format of an `env_file`): everything after the `=` as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from hmctl.compose.project import Place
from hmctl.compose.substitution import Lookup, Malformed, substitute
from hmctl.compose.trouble import Trouble

MAX_TOTAL = 16_777_216  # characters of all values together

_KEY = re.compile(r"(?:export[^\S\n]+)?([^=:\n]*)([=:]|\n|\Z)[^\S\n]*")
_NAME = re.compile(r"[\w.\-\[\]]+")
_BLANK = re.compile(r"(?:\s|#[^\n]*(?:\n|$))+")
_QUOTED = {"'": re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL), '"': re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)}
_ESCAPE = re.compile(r'\\([abcfnrtv$"\\]|0[0-9]{0,3})')
_OCTAL = re.compile(r"0([0-3][0-7]{2})")
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\", "$": "$$"}


@dataclass(slots=True)
class Variables:
    """What is known so far. `outside` goes before `values` wherever a variable is put in. `places`: of the values."""

    outside: Lookup
    values: dict[str, str] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)

    def get(self, name: str) -> str | None:
        given = self.outside(name)
        return self.values.get(name) if given is None else given

    def keep(self, name: str, value: str, place: Place) -> None:
        self.values[name], self.places[name] = value, place


def read(text: str, file: str, known: Variables, trouble: Trouble) -> None:
    """Adds what `text` says to `known.values`. A line that cannot be meant is a mistake, and passed over."""
    _Reader(text.removeprefix("\ufeff").replace("\r\n", "\n"), file, known, trouble).run()


def read_raw(text: str, file: str, known: Variables, trouble: Trouble) -> None:
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        written = line.removesuffix("\r").lstrip()
        if not written or written.startswith("#"):
            continue
        key, equals, value = written.partition("=")
        if not key or any(map(str.isspace, key)):
            trouble.wrong(Place(file, number), (), f"{key[:40]!r} is no name of a variable", "NAME=value")
        elif equals:
            known.keep(key, value, Place(file, number))
        elif (given := known.outside(key)) is not None:
            known.keep(key, given, Place(file, number))


class _Reader:
    def __init__(self, text: str, file: str, known: Variables, trouble: Trouble) -> None:
        self.text, self.file, self.known, self.trouble = text, file, known, trouble
        self.position, self.line, self.counted, self.total = 0, 1, 0, 0

    def run(self) -> None:
        while True:
            if blank := _BLANK.match(self.text, self.position):
                self.position = blank.end()
            if self.position >= len(self.text) or self.total > MAX_TOTAL:
                return
            self.entry()

    def entry(self) -> None:
        place = self.here()
        found = _KEY.match(self.text, self.position)
        name = found[1].rstrip() if found else ""
        if not found or not _NAME.fullmatch(name):
            _, self.position = self.rest_of_line()
            self.trouble.wrong(place, (), f"{name[:40]!r} is no name of a variable", "NAME=value")
            return
        self.position = found.end()
        if found[2] not in ("=", ":"):  # only a name: as it is outside
            if (given := self.known.outside(name)) is not None:
                self.keep(name, given, place)
            return
        if (value := self.value(name, place)) is not None:
            self.keep(name, value, place)

    def value(self, name: str, place: Place) -> str | None:
        quote = self.text[self.position : self.position + 1]
        if quote not in _QUOTED or not quote:
            written, self.position = self.rest_of_line()
            return self.filled(written.partition(" #")[0].rstrip(), name, place)
        found = _QUOTED[quote].match(self.text, self.position)
        if found is None:
            _, self.position = self.rest_of_line()
            self.trouble.wrong(
                place, (name,), f"the {quote} that begins here is not ended", "one more at its end; a backslash before one within"
            )
            return None
        self.position = found.end()
        held = found[1].replace("\\" + quote, quote)
        return held if quote == "'" else self.filled(_ESCAPE.sub(_unescaped, held), name, place)

    def filled(self, text: str, name: str, place: Place) -> str | None:
        try:
            outcome = substitute(text, self.known.get)
        except Malformed as error:
            self.trouble.wrong(place, (name,), str(error), "${NAME} or ${NAME:-default}; single quotes keep a $ as it is")
            return None
        for missing, said in outcome.missing:
            self.trouble.wrong(place, (name,), f"the variable {missing} must be set{f': {said[:200]}' if said else ''}")
        for unset in outcome.unset:
            self.trouble.odd(place, (name,), f"the variable {unset} is not set, so it is empty", "single quotes keep a $ as it is")
        return outcome.text

    def keep(self, name: str, value: str, place: Place) -> None:
        self.total += len(value)
        if self.total > MAX_TOTAL:
            self.trouble.wrong(place, (name,), "too much text, once the variables are put in")
        else:
            self.known.keep(name, value, place)

    def rest_of_line(self) -> tuple[str, int]:
        """It, and where the next line begins."""
        end = self.text.find("\n", self.position)
        return (self.text[self.position :], len(self.text)) if end < 0 else (self.text[self.position : end], end + 1)

    def here(self) -> Place:
        self.line += self.text.count("\n", self.counted, self.position)
        self.counted = self.position
        return Place(self.file, self.line)


def _unescaped(found: re.Match[str]) -> str:
    """A number has four digits; of another one Compose drops the zero and keeps the rest."""
    code = found[1]
    if octal := _OCTAL.fullmatch(code):
        return chr(int(octal[1], 8))
    return f"\\{code[1:]}" if code.startswith("0") else _ESCAPED.get(code, found[0])
