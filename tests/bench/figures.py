"""A measured figure, and how the figures are kept: `bench.json` for machines, docs/benchmarks.md for people."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One figure of one run. `target` is the most (or with `at_least` the least) that we allow; `peer_value`: the peer's, same run.

    `tolerance`: by which factor the ratio to the peer may be worse than the recorded one before that counts as a regression.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    peer: str | None = None
    peer_value: float | None = None
    at_least: bool = False
    note: str = ""
    tolerance: float = 1.5

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's, measured in the same run."""
        return round(self.value / self.peer_value, 3) if self.peer_value else None

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


def as_json(figures: list[Figure]) -> str:
    keys = ("name", "value", "unit", "target", "peer", "peer_value")
    rows = [{key: asdict(figure)[key] for key in keys} | {"ratio": figure.ratio} for figure in figures]
    return json.dumps(rows, indent=2) + "\n"


def as_markdown(figures: list[Figure], machine: str) -> str:
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`: every figure was measured in one run, on one machine. Machines are shared and noisy, so the ratio to a",
        "peer measured in the same run says more than the figure alone.",
        "",
        machine,
        "",
        "| figure | value | target | met | peer | peer's | ratio | how |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for figure in figures:
        sign = "≥" if figure.at_least else "≤"
        target = f"{sign} {figure.target:g} {figure.unit}" if figure.target is not None else "–"
        met = {None: "–", True: "yes", False: "**no**"}[figure.met]
        peer = f"{figure.peer_value:.2f} {figure.unit}" if figure.peer_value is not None else "–"
        ratio = f"{figure.ratio:.2f}" if figure.ratio is not None else "–"
        row = [figure.name, f"{figure.value:.2f} {figure.unit}", target, met, figure.peer or "–", peer, ratio, figure.note]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Comparison:
    """A figure's ratio to its peer, now and as recorded. `worse`: by which factor, above 1 for the worse."""

    name: str
    now: float
    recorded: float
    worse: float
    regressed: bool


def compare(recorded: str, figures: list[Figure]) -> list[Comparison]:
    """The figures that have a ratio, now and in `recorded` (the text of bench.json)."""
    before = _ratios(recorded)
    found = []
    for figure in figures:
        then, now = before.get(figure.name), figure.ratio
        if then is None or now is None:
            continue
        worse = then / now if figure.at_least else now / then
        found.append(Comparison(figure.name, now, then, round(worse, 2), worse > figure.tolerance))
    return found


def uncompared(recorded: str, figures: list[Figure]) -> list[str]:
    """Names that have a ratio on one side only: a figure that was renamed, lost its peer or was never recorded is compared with nothing."""
    return sorted(_ratios(recorded).keys() ^ {figure.name for figure in figures if figure.ratio is not None})


def far_off(figures: list[Figure]) -> list[str]:
    """Names of figures that miss their target by more than their tolerance: more than a busy machine explains."""
    return [
        figure.name
        for figure in figures
        if figure.target is not None
        and (figure.value * figure.tolerance < figure.target if figure.at_least else figure.value > figure.target * figure.tolerance)
    ]


def _ratios(recorded: str) -> dict[str, float]:
    return {row["name"]: row["ratio"] for row in json.loads(recorded) if row["ratio"]}


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
