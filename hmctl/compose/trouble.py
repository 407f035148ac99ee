"""What is wrong with compose files, gathered while they are read: one mistake hides no other."""

from __future__ import annotations

from hmcore.config.problems import Path as Where
from hmcore.config.problems import spell
from hmcore.errors import ConfigError, Problem
from hmctl.compose.project import Place

MAX_SAID = 200  # mistakes, and as many warnings; whoever has more reads no further


class Trouble:
    """Mistakes and warnings, each said once."""

    def __init__(self) -> None:
        self._said: dict[bool, dict[Problem, None]] = {True: {}, False: {}}
        self._order: dict[str, int] = {}

    def wrong(self, place: Place, path: Where, message: str, hint: str | None = None) -> None:
        self.add(Problem(place.file, place.line or None, spell(path), message, hint))

    def odd(self, place: Place, path: Where, message: str, hint: str | None = None) -> None:
        self.add(Problem(place.file, place.line or None, spell(path), message, hint, warning=True))

    def add(self, *problems: Problem) -> None:
        for problem in problems:
            said = self._said[problem.warning]
            if len(said) < MAX_SAID:
                self._order.setdefault(problem.file, len(self._order))
                said.setdefault(problem)

    @property
    def serious(self) -> bool:
        return bool(self._said[False])

    def all(self) -> tuple[Problem, ...]:
        """File by file as they were first spoken of, in each by line."""
        return tuple(sorted((*self._said[False], *self._said[True]), key=lambda problem: (self._order[problem.file], problem.line or 0)))

    def warnings(self) -> tuple[Problem, ...]:
        """If there is nothing worse. Raises ConfigError otherwise."""
        if self.serious:
            raise ConfigError(self.all())
        return self.all()
