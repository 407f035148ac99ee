"""`make bench`: every measurement in turn on a lab of its own; writes bench.json and docs/benchmarks.md.

`make bench-check` (`--check`) measures the same and writes nothing: it compares each ratio with the recorded one, and fails when one has
become worse by more than the figure's tolerance. Names of measurements as arguments: only these.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import accounting
import calling
import deploying
import discovering
import idling
import loading
import scaling
import scraping
import starting
from bed import ROOT, bed
from figures import Figure, compare, write

MEASUREMENTS = (deploying, calling, starting, loading, idling, scraping, scaling, discovering, accounting)


def main(arguments: list[str]) -> int:
    names = [argument for argument in arguments if not argument.startswith("-")]
    if unknown := set(names) - {measurement.__name__ for measurement in MEASUREMENTS}:
        print(f"no measurement is called {', '.join(sorted(unknown))}; there are {', '.join(one.__name__ for one in MEASUREMENTS)}")
        return 2
    figures = measured(names)
    missed = [figure.name for figure in figures if figure.met is False]
    if "--check" in arguments:
        return judged(figures)
    if not names:  # a part of the figures must not replace all of them
        write(figures, ROOT)
        print(f"{len(figures)} figures in docs/benchmarks.md; missed: {', '.join(missed) or 'none'}")
    return 0


def measured(names: list[str]) -> list[Figure]:
    figures: list[Figure] = []
    with bed() as lab:
        for measurement in MEASUREMENTS:
            if names and measurement.__name__ not in names and measurement is not deploying:  # the others need a cluster
                continue
            print(f"{measurement.__name__} ...", file=sys.stderr, flush=True)
            for figure in measurement.measure(lab):
                figures.append(figure)
                beside = f", {figure.peer} {figure.peer_value:.2f}" if figure.peer_value is not None else ""
                target = f"target {figure.target:g}" if figure.target is not None else "no target"
                print(f"  {figure.name}: {figure.value:.2f} {figure.unit} ({target}{beside})", file=sys.stderr, flush=True)
    return figures


def judged(figures: list[Figure]) -> int:
    compared = compare((ROOT / "bench.json").read_text(), figures)
    for row in compared:
        print(f"{'WORSE' if row.regressed else 'ok   '} {row.name}: ratio {row.now:.2f}, recorded {row.recorded:.2f} (x {row.worse:.2f})")
    regressed = [row.name for row in compared if row.regressed]
    print(f"{len(compared)} ratios compared; regressed: {', '.join(regressed) or 'none'}")
    return 1 if regressed or not compared else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
