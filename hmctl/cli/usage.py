"""What the parser has to say of a command line that it does not understand, in the words and the form of all our errors. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from hmcore.errors import UsageError

_WORDS = (  # the parser's own, and what a person would say
    (re.compile(r"Value error, "), ""),
    (re.compile(r"Input should be a valid number\b.*"), "not a number"),
    (re.compile(r"Input should be a valid integer\b.*"), "not a whole number"),
    (re.compile(r"Input should be greater than or equal to (\S+)"), r"at least \1"),
    (re.compile(r"Input should be less than or equal to (\S+)"), r"at most \1"),
)


def misuse(error: Any) -> UsageError:
    """`error`: one of the parser's usage errors, which typer has no public name for."""
    said = str(error.format_message())
    for pattern, words in _WORDS:
        said = pattern.sub(words, said)
    near = sorted(getattr(error, "possibilities", None) or _near(said))
    if near:
        said = said.partition(" (Possible options")[0]
    command = error.ctx.command_path if error.ctx is not None else "hmctl"
    fix = f"did you mean {' or '.join(near)}?" if near else f"{command} --help{_behind_dashes(error, command)}"
    return UsageError(said[:1].lower() + said[1:].rstrip("."), fix=fix)


def _behind_dashes(error: Any, command: str) -> str:
    """What is taken for an option may be meant as a value, where a command takes any."""
    option = getattr(error, "option_name", None)
    takes = error.ctx is not None and any(one.param_type_name == "argument" for one in error.ctx.command.params)
    if option is None or option.startswith("--") or not takes:
        return ""
    return f"; what begins with - and is no option comes behind --: {command} ... -- {option}"


def _near(said: str) -> Sequence[str]:
    """Of the values that an error enumerates, the one that was meant: 'jsn' is not one of 'table', 'json', 'yaml'."""
    typed, known, values = said.partition(" is not one of ")
    if not known:
        return ()
    word = re.findall(r"'([^']*)'", typed)[-1:]
    return get_close_matches(word[0], re.findall(r"'([^']*)'", values), n=1) if word else ()
