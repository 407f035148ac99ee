"""What a figure is, and how the figures are kept: `bench.json` for machines, docs/benchmarks.md for people.

What is promised of a figure (`Kind`) is declared beside what measures it: names, targets and tolerances are known without measuring, and
a unit test compares them with what was recorded.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kind:
    """`target` is the most (or with `at_least` the least) that we allow. `peer`: what is measured beside it in the same run; it should not
    be made of our own code, or both become slower together. Of a factor (unit `x`) it may be the number that would be ideal.

    `tolerance`: by which factor the ratio to the peer may be worse than the recorded one. Below 2, so that a factor of two is always found.
    `slack`: by which factor a target may be missed before `make bench-check` fails: the noise of the measurement, nothing more.
    """

    name: str
    unit: str
    target: float | None = None
    peer: str | None = None
    at_least: bool = False
    tolerance: float = 1.5
    slack: float = 1.1

    def of(self, value: float, beside: float | None = None, note: str = "") -> Figure:
        """The figure as measured. Raises ValueError when the peer that was declared was not measured, or the other way round."""
        if (beside is None) != (self.peer is None):
            raise ValueError(f"{self.name}: declared peer {self.peer}, measured {beside}")
        return Figure(self, value, beside, note)


@dataclass(frozen=True)
class Figure:
    kind: Kind
    value: float
    peer_value: float | None = None
    note: str = ""

    @property
    def name(self) -> str:
        return self.kind.name

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's, measured in the same run."""
        return significant(self.value / self.peer_value) if self.peer_value else None

    @property
    def met(self) -> bool | None:
        return self._within(1.0)

    @property
    def far_off(self) -> bool:
        """The target is missed by more than the noise explains."""
        return self._within(self.kind.slack) is False

    def _within(self, slack: float) -> bool | None:
        if self.kind.target is None:
            return None
        return self.value * slack >= self.kind.target if self.kind.at_least else self.value <= self.kind.target * slack


def significant(number: float) -> float:
    """Three digits that say something, however small the number is."""
    return float(f"{number:.3g}")


def as_json(figures: list[Figure]) -> str:
    return json.dumps([_row(figure) for figure in figures], indent=2) + "\n"


def _row(figure: Figure) -> dict[str, Any]:
    kind = figure.kind
    return {
        "name": kind.name,
        "value": figure.value,
        "unit": kind.unit,
        "target": kind.target,
        "at_least": kind.at_least,
        "peer": kind.peer,
        "peer_value": figure.peer_value,
        "ratio": figure.ratio,
        "note": figure.note,
    }


def read(recorded: str) -> list[Figure]:
    """The figures of a `bench.json`, each with what was promised of it when it was recorded."""
    return [
        Figure(
            Kind(row["name"], row["unit"], row["target"], row["peer"], at_least=row["at_least"]),
            row["value"],
            row["peer_value"],
            row["note"],
        )
        for row in json.loads(recorded)
    ]


def as_markdown(figures: list[Figure], machine: str) -> str:
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`, all of it: every figure was measured in one run, on one machine. Machines are shared and noisy: single",
        "times of two runs differ by tens of percent, so the ratio to a peer that was measured beside it says more than the figure alone.",
        "`make bench-check` measures anew and fails when such a ratio has become worse by its tolerance (1.8 at most), or a target is",
        "missed by more than the measurement's noise.",
        "",
        machine,
        "",
        *table(figures),
    ]
    return "\n".join(lines) + "\n"


def table(figures: list[Figure]) -> list[str]:
    lines = ["| figure | value | target | met | peer | peer's | ratio | how |", "|---|---|---|---|---|---|---|---|"]
    for figure in figures:
        kind = figure.kind
        target = _with_unit(kind.target, kind.unit)
        row = [
            kind.name,
            _with_unit(figure.value, kind.unit),
            f"{'≥' if kind.at_least else '≤'} {target}" if kind.target is not None else target,
            {None: "–", True: "yes", False: "**no**"}[figure.met],
            kind.peer or "–",
            _with_unit(figure.peer_value, kind.unit),
            _shown(figure.ratio) if figure.ratio is not None else "–",
            figure.note,
        ]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def _with_unit(number: float | None, unit: str) -> str:
    return f"{_shown(number)} {unit}".rstrip() if number is not None else "–"


def _shown(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


@dataclass(frozen=True)
class Comparison:
    """A figure's ratio to its peer, now and as recorded. `worse`: by which factor, above 1 for the worse."""

    name: str
    now: float
    recorded: float
    worse: float
    regressed: bool


def compare(recorded: list[Figure], figures: list[Figure]) -> list[Comparison]:
    """The figures that have a ratio to the same peer, now and as recorded."""
    before = _ratios(recorded)
    found = []
    for figure in figures:
        then, now = before.get((figure.name, figure.kind.peer)), figure.ratio
        if not then or not now:
            continue
        worse = then / now if figure.kind.at_least else now / then
        found.append(Comparison(figure.name, now, then, round(worse, 2), worse >= figure.kind.tolerance))
    return found


def uncompared(recorded: list[Figure], figures: list[Figure]) -> list[str]:
    """Names that are on one side only, or have another peer there: a figure that was renamed or never recorded is compared with nothing."""
    return sorted({name for name, _ in _peers(recorded) ^ _peers(figures)})


def _peers(figures: list[Figure]) -> set[tuple[str, str | None]]:
    return {(figure.name, figure.kind.peer) for figure in figures}


def _ratios(figures: list[Figure]) -> dict[tuple[str, str | None], float]:
    return {(figure.name, figure.kind.peer): figure.ratio for figure in figures if figure.ratio is not None}


def machine() -> str:
    """The machine of this run, in a line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    return (
        f"{when}: {platform.system()} {platform.release()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}, three lab hosts on the same machine."
    )


def write(figures: list[Figure], root: Path) -> None:
    (root / "bench.json").write_text(as_json(figures))
    (root / "docs" / "benchmarks.md").write_text(as_markdown(figures, machine()))
