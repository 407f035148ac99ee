"""`make bench`: every measurement in turn on a lab of its own; writes bench.json and docs/benchmarks.md.

`make bench-check` (`--check`) measures the same and writes nothing: it compares each ratio with the recorded one, and fails when one has
become worse by more than the figure's tolerance or a target is missed. Names of measurements as arguments: only these.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import accounting
import calling
import consensus
import crossing
import deploying
import discovering
import idling
import loading
import orchestrating
import registering
import rolling
import scaling
import scheduling
import scraping
import shipping
import starting
from bed import ROOT, bed
from figures import Figure, Kind, compare, read, uncompared, write

MEASUREMENTS = (
    deploying,
    calling,
    starting,
    loading,
    idling,
    scraping,
    scaling,
    discovering,
    registering,
    accounting,
    consensus,
    scheduling,
    orchestrating,
    rolling,
    shipping,
    crossing,
)


def kinds() -> list[Kind]:
    """All that a whole run measures."""
    return [kind for measurement in MEASUREMENTS for kind in measurement.FIGURES]


def main(arguments: list[str]) -> int:
    names = [argument for argument in arguments if not argument.startswith("-")]
    if unknown := set(names) - {measurement.__name__ for measurement in MEASUREMENTS}:
        print(f"no measurement is called {', '.join(sorted(unknown))}; there are {', '.join(one.__name__ for one in MEASUREMENTS)}")
        return 2
    figures = measured(names)
    if "--check" in arguments:
        return judged(figures, whole=not names)
    if not names:  # a part of the figures must not replace all of them
        write(figures, ROOT)
        missed = [figure.name for figure in figures if figure.met is False]
        print(f"{len(figures)} figures in docs/benchmarks.md; missed: {', '.join(missed) or 'none'}")
    return 0


def measured(names: list[str]) -> list[Figure]:
    """Raises ValueError when a measurement makes other figures than those that it declares."""
    figures: list[Figure] = []
    with bed() as lab:
        for measurement in MEASUREMENTS:
            if names and measurement.__name__ not in names and measurement is not deploying:  # the others need a cluster
                continue
            print(f"{measurement.__name__} ...", file=sys.stderr, flush=True)
            began = time.monotonic()
            made = measurement.measure(lab)
            if apart := {figure.kind for figure in made} ^ set(measurement.FIGURES):
                raise ValueError(f"{measurement.__name__}: measured or declared only: {', '.join(sorted(kind.name for kind in apart))}")
            for figure in made:
                beside = f", {figure.kind.peer} {figure.peer_value:.3g}" if figure.peer_value is not None else ""
                target = f"target {figure.kind.target:g}" if figure.kind.target is not None else "no target"
                print(f"  {figure.name}: {figure.value:.3g} {figure.kind.unit} ({target}{beside})", file=sys.stderr, flush=True)
            print(f"  ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
            figures += made
    return figures


def judged(figures: list[Figure], *, whole: bool) -> int:
    """Says what has become worse. `whole`: all measurements were made, so that every recorded figure must be among them."""
    recorded = read((ROOT / "bench.json").read_text())
    compared = compare(recorded, figures)
    for row in compared:
        print(f"{'WORSE' if row.regressed else 'ok   '} {row.name}: ratio {row.now:.3g}, recorded {row.recorded:.3g} (x {row.worse:.2f})")
    for figure in figures:
        if figure.met is False:
            noise = "" if figure.far_off else f", within the measurement's noise (x {figure.kind.slack:g})"
            print(f"MISSED {figure.name}: {figure.value:.3g} {figure.kind.unit}, target {figure.kind.target:g}{noise}")
    regressed = [row.name for row in compared if row.regressed]
    apart = uncompared(recorded, figures) if whole else []
    missed = [figure.name for figure in figures if figure.far_off]
    print(f"{len(compared)} ratios compared; regressed: {', '.join(regressed) or 'none'}; missed targets: {', '.join(missed) or 'none'}")
    if apart:
        print(f"measured or recorded only, hence compared with nothing (make bench records them): {', '.join(apart)}")
    return 1 if regressed or apart or missed or not compared else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
