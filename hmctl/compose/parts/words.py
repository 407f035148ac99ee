"""A command that is written as text, into the words that a shell would make of it. Pure.

Compose runs no shell: it only splits, expands nothing, and drops what follows an operator (`a && b` runs `a`). What it drops is told.
"""

from __future__ import annotations

from dataclasses import dataclass

_BLANKS = " \t\r\n"
_OPERATORS = ";&|<>"
_ESCAPED_IN_QUOTES = ('"', "\\", "$", "`", "\n")


@dataclass(frozen=True, slots=True)
class Split:
    """`dropped`: from the first operator on; no shell is there to heed it."""

    words: tuple[str, ...]
    dropped: str = ""


def split(text: str) -> Split | None:
    """Quotes and backslashes as in POSIX (XCU 2.2), but that nothing is expanded. None: a quote or an escape does not end, or a bracket
    stands where a shell would want a command of its own."""
    words: list[str] = []
    word: list[str] | None = None  # its pieces; none is begun
    at = 0
    while at < len(text):
        char = text[at]
        if char in _BLANKS:
            words += [] if word is None else ["".join(word)]
            word = None
            at += 1
            continue
        if char in _OPERATORS:
            return Split((*words, *([] if word is None else ["".join(word)])), text[at:])
        piece = _piece(text, at, after_dollar=word is not None and word[-1:] == ["$"])
        if piece is None:
            return None
        said, at = piece
        if said is not None:
            word = word if word is not None else []
            word.append(said)
    return Split((*words, *([] if word is None else ["".join(word)])))


def _piece(text: str, at: int, *, after_dollar: bool) -> tuple[str | None, int] | None:
    """What stands at `at`, as it counts (None: not at all), and where the next begins. None: it does not end."""
    char = text[at]
    match char:
        case "\\":
            following = text[at + 1 : at + 2]
            return (None if following == "\n" else following, at + 2) if following else None
        case "'" | "`":
            end = text.find(char, at + 1)
            return None if end < 0 else (text[at + 1 : end] if char == "'" else text[at : end + 1], end + 1)
        case '"':
            return _double_quoted(text, at + 1)
        case "(" if after_dollar:
            end = text.find(")", at)
            return None if end < 0 else (text[at : end + 1], end + 1)
        case "(" | ")":
            return None
        case _:
            return char, at + 1


def _double_quoted(text: str, at: int) -> tuple[str, int] | None:
    said: list[str] = []
    while at < len(text) and text[at] != '"':
        if text[at] == "\\" and text[at + 1 : at + 2] in _ESCAPED_IN_QUOTES:
            said.append(text[at + 1 : at + 2].replace("\n", ""))
            at += 2
        else:
            said.append(text[at])
            at += 1
    return ("".join(said), at + 1) if at < len(text) else None
