"""What every error of ours has, and those that are the caller's own: a wrong use, a wrong document, a change of mind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class HyperMeshError(Exception):
    """What failed (the message), where (`host`, a node or host name) and the command that mends it (`fix`)."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, host: str | None = None, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.host = host
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.host}: {self.message}" if self.host else self.message

    @property
    def with_fix(self) -> str:
        """In one line, for where words alone can be kept."""
        return f"{self}; fix: {self.fix}" if self.fix else str(self)


class UsageError(HyperMeshError):
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a document: where it stands, what is wrong, and what would be right."""

    file: str
    line: int | None  # from 1; None when the whole document is meant
    path: str  # e.g. "hosts[2].ssh.port"
    message: str
    hint: str | None = None  # what is allowed, or the nearest match
    warning: bool = False  # said, but does not make the document invalid

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path + ': ' if self.path else ''}{self.message}{f' ({self.hint})' if self.hint else ''}"

    @property
    def marked(self) -> str:
        """As it reads among mistakes."""
        return f"warning: {self}" if self.warning else str(self)


class ConfigError(UsageError):
    """A document is invalid. `problems` holds every mistake, in the order of the file, and perhaps warnings among them.

    `unfinished`: it was not examined to its end, so there may be more."""

    def __init__(self, problems: tuple[Problem, ...], *, fix: str | None = None, unfinished: bool = False) -> None:
        super().__init__("\n".join(problem.marked for problem in problems), fix=fix)
        self.problems, self.unfinished = problems, unfinished


class Interrupted(HyperMeshError):
    exit_code = 130
