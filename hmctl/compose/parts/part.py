"""A part of a compose file, read as what it must be. Whatever it is, there is a value; what is wrong is noted, to be told all at once.

A part that is not there, or empty (null), reads as the default.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hmcore.config.problems import Mistake, Path, describe
from hmctl.compose.parts import units
from hmctl.compose.parts.keys import OBJECTS
from hmctl.compose.parts.names import Rule

_TRUTH = {"true": True, "yes": True, "y": True, "on": True, "false": False, "no": False, "n": False, "off": False}
OURS = "x-hypermesh"
_MOST_TEXT = 1 << 20
_MOST_GUESSES = 100
GONE = object()  # what counts in the place of a part that is left out: nothing
KEPT = object()  # it stays as it is, only otherwise than somebody may think
_SURROGATE = re.compile("[\ud800-\udfff]")


class Notes:
    """What was found wrong so far. What is not supported is a mistake, or, with `ignore_unsupported`, a warning.

    `left_out`: by their paths, parts that do not count then, and what counts in their place (GONE: nothing)."""

    def __init__(self, *, ignore_unsupported: bool = False) -> None:
        self.mistakes: list[Mistake] = []
        self.left_out: dict[Path, Any] = {}
        self._ignore_unsupported = ignore_unsupported

    @property
    def patient(self) -> bool:
        """Whether it is worth looking for what may have been meant. It takes time, and nobody reads that far."""
        return len(self.mistakes) < _MOST_GUESSES

    def add(self, path: Path, message: str, hint: str | None = None, *, warning: bool = False) -> None:
        self.mistakes.append(Mistake(path, message, hint, warning))

    def unsupported(self, path: Path, instead: str, message: str, then: str, leaves: Path, becomes: Any) -> None:
        self.add(path, f"{message}: {then}" if self._ignore_unsupported else message, instead, warning=self._ignore_unsupported)
        if self._ignore_unsupported and becomes is not KEPT:
            self.left_out[leaves] = becomes


@dataclass(frozen=True, slots=True)
class Part:
    """`value` is a plain value at `path`; None: nothing is there."""

    notes: Notes
    path: Path
    value: Any

    # ---- what it is made of

    def at(self, key: str | int, value: Any) -> Part:
        return Part(self.notes, (*self.path, key), value)

    def with_value(self, value: Any) -> Part:
        """The same place, read otherwise."""
        return Part(self.notes, self.path, value)

    def of(self, kind: str) -> Fields:
        """As an object whose keys are those of `kind` in keys.py. Those that mean nothing here are told, and left out."""
        keys, found = OBJECTS[kind], {}
        for name, part in self.mapping().items():
            if name in keys.supported:
                found[name] = part
            elif name.startswith("x-"):
                if name == OURS:
                    part.warn("does nothing here", "it belongs into a service: services.NAME.x-hypermesh")
            elif name in keys.ignored:
                part.warn("does nothing here", keys.ignored[name])
            elif name in keys.unsupported:
                part.unsupported(keys.unsupported[name])
            else:
                part.wrong("unknown key", _nearest(name, keys.known) if self.notes.patient else None)
        return Fields(self, found)

    def mapping(self) -> dict[str, Part]:
        if self.value is None:
            return {}
        if not isinstance(self.value, Mapping):
            self.wrong(f"must be a mapping, not {describe(self.value)}")
            return {}
        if any(not isinstance(key, str) for key in self.value):
            self.wrong("has a key that is no text")
        return {key: self.at(key, value) for key, value in self.value.items() if isinstance(key, str)}

    def entries(self) -> list[Part]:
        """Of a list."""
        if self.value is None:
            return []
        if not isinstance(self.value, list | tuple):
            self.wrong(f"must be a list, not {describe(self.value)}")
            return []
        return [self.at(index, value) for index, value in enumerate(self.value)]

    # ---- what it says

    def text(self, rule: Rule | None = None, default: str = "") -> str:
        if self.value is None:
            return default
        if not isinstance(self.value, str):
            number = isinstance(self.value, int | float) and (said := units.spelled(self.value)) is not None
            self.wrong(f"must be text, not {describe(self.value)}", f'in quotes: "{said}"' if number else None)
            return default
        return self._checked(str(self.value), rule, default)

    def scalar(self, rule: Rule | None = None, default: str = "") -> str:
        """Text; numbers and truth values as Compose spells them."""
        if isinstance(self.value, bool | int | float):
            said = units.spelled(self.value)
            if said is None:
                self.wrong("is a number that has no end", "in quotes")
                return default
            return self._checked(said, rule, default)
        return self.text(rule, default)

    def boolean(self, default: bool = False) -> bool:
        if self.value is None or isinstance(self.value, bool):
            return default if self.value is None else self.value
        if isinstance(self.value, str) and self.value.lower() in _TRUTH:
            return _TRUTH[self.value.lower()]
        self.wrong(f"must be true or false, not {describe(self.value)}")
        return default

    def whole(self, low: int, high: int, default: int = 0) -> int:
        """A whole number from `low` to `high`, also as text."""
        if self.value is None:
            return default
        value = units.whole(self.value) if isinstance(self.value, str) else self.value
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(f"must be a whole number, not {describe(self.value)}")
            return default
        if not low <= value <= high:
            self.wrong(f"must be from {low} to {high}, not {describe(self.value)}")
            return default
        return value

    def share(self, default: float = 0.0) -> float:
        """A number from 0 to 1."""
        if self.value is None:
            return default
        thousandths = units.thousandths(self.value) if isinstance(self.value, int | float | str) else None
        if isinstance(self.value, bool) or thousandths is None or thousandths > 1000:
            self.wrong(f"must be a number from 0 to 1, not {describe(self.value)}")
            return default
        return float(self.value)

    def cpus(self) -> int:
        """Thousandths of a processor."""
        if self.value is None:
            return 0
        found = None if isinstance(self.value, bool) or not isinstance(self.value, int | float | str) else units.thousandths(self.value)
        if found is None or (found == 0 and float(self.value) > 0) or found > 1_000_000:
            self.wrong(f"must be a number of processors, such as 0.5, not {describe(self.value)}")
            return 0
        return found

    def duration(self, default: float = 0.0) -> float:
        """Seconds."""
        if self.value is None:
            return default
        found = units.seconds("0" if self.value == 0 and not isinstance(self.value, bool) else self.value) if self._is_plain() else None
        if found is None:
            bare = units.spelled(self.value) if isinstance(self.value, int) else self.value if isinstance(self.value, str) else ""
            hint = f"with its unit: {bare}s" if bare and units.whole(bare) is not None else "such as 1m30s"
            self.wrong(f"must be a duration, not {describe(self.value)}", hint)
            return default
        return found

    def size(self, default: int = 0) -> int:
        """Bytes."""
        if self.value is None:
            return default
        whole = isinstance(self.value, int) and not isinstance(self.value, bool)
        found = self.value if whole else units.byte_count(self.value) if isinstance(self.value, str) else None
        if found is None or not 0 <= found <= units.LARGEST:
            self.wrong(f"must be a number of bytes, such as 512m, not {describe(self.value)}")
            return default
        return int(found)

    def permissions(self, default: int) -> int:
        if self.value is None:
            return default
        found = units.permissions(self.value) if isinstance(self.value, int | str) and not isinstance(self.value, bool) else None
        if found is None:
            self.wrong(f"must be a file's mode, not {describe(self.value)}", 'octal, in quotes: "0440"')
            return default
        return found

    def choice(self, allowed: Collection[str], default: str) -> str:
        text = self.text(None, default)
        if text in allowed:
            return text
        self.wrong(
            f"must be one of {', '.join(allowed)}, not {describe(self.value)}", _close(text, allowed) if self.notes.patient else None
        )
        return default

    def strings(self, rule: Rule | None = None) -> tuple[str, ...]:
        """A list of texts or numbers, each once."""
        return tuple(dict.fromkeys(part.scalar(rule) for part in self.entries()))

    def one_or_more(self, rule: Rule | None = None) -> tuple[str, ...]:
        """A text, or a list of them."""
        return (self.text(rule),) if isinstance(self.value, str) else self.strings(rule)

    def pairs(self, rule: Rule) -> dict[str, str | None]:
        """A mapping, or a list of KEY=VALUE; None where only the key is given. `rule` is the keys'."""
        found: dict[str, str | None] = {}
        if isinstance(self.value, list | tuple):
            for part in self.entries():
                key, equals, value = part.text().partition("=")
                if isinstance(part.value, str):
                    found |= {key: value if equals else None} if part._named(key, rule) else {}
            return found
        for key, part in self.mapping().items():
            if part._named(key, rule):
                found[key] = None if part.value is None else part.scalar()
        return found

    def said(self, rule: Rule) -> dict[str, str]:
        """Like `pairs`; a key alone has an empty value."""
        return {key: value or "" for key, value in self.pairs(rule).items()}

    # ---- what is wrong with it

    def wrong(self, message: str, hint: str | None = None) -> None:
        self.notes.add(self.path, message, hint)

    def warn(self, message: str, hint: str | None = None) -> None:
        self.notes.add(self.path, message, hint, warning=True)

    def unsupported(
        self,
        instead: str,
        message: str = "not supported",
        *,
        then: str = "it is left out",
        leaves: Part | None = None,
        becomes: Any = GONE,
    ) -> None:
        """`then`: what becomes of it if that is only a warning; as a value, `becomes`. `leaves`: the part that goes; None: this one."""
        self.notes.unsupported(self.path, instead, message, then, (leaves or self).path, becomes)

    def _named(self, key: str, rule: Rule) -> bool:
        if rule.holds(key) and _printable(key):
            return True
        self.wrong(f"{describe(key)} is no name", rule.says)
        return False

    def _checked(self, text: str, rule: Rule | None, default: str) -> str:
        if not _printable(text) or len(text) > _MOST_TEXT:
            self.wrong("is too long" if len(text) > _MOST_TEXT else "holds a character that no container can be given")
            return default
        if rule is not None and not rule.holds(text):
            self.wrong(f"cannot be {describe(self.value)}", rule.says)
            return default
        return text

    def _is_plain(self) -> bool:
        return isinstance(self.value, str) or (self.value == 0 and not isinstance(self.value, bool))


@dataclass(frozen=True, slots=True)
class Fields:
    """An object's supported keys. One that is not given is a part that is empty."""

    part: Part
    found: Mapping[str, Part]

    def __getitem__(self, key: str) -> Part:
        return self.found.get(key) or self.part.at(key, None)

    def given(self, *keys: str) -> list[str]:
        return [key for key in keys if self[key].value is not None]


def _printable(text: str) -> bool:
    """A lone surrogate is no character, and cannot be sent."""
    return "\0" not in text and (text.isascii() or not _SURROGATE.search(text))


def _nearest(name: str, known: Sequence[str]) -> str:
    return _close(name, known) or (f"there are {', '.join(known)}" if len(known) <= 12 else "keys of one's own begin with x-")


def _close(word: str, allowed: Collection[str]) -> str | None:
    close = difflib.get_close_matches(word.lower()[:60], allowed, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else None
