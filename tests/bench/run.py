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
import registering
import scaling
import scraping
import starting
from bed import ROOT, bed
from figures import Figure, compare, far_off, uncompared, write

MEASUREMENTS = (deploying, calling, starting, loading, idling, scraping, scaling, discovering, registering, accounting)


def main(arguments: list[str]) -> int:
    names = [argument for argument in arguments if not argument.startswith("-")]
    if unknown := set(names) - {measurement.__name__ for measurement in MEASUREMENTS}:
        print(f"no measurement is called {', '.join(sorted(unknown))}; there are {', '.join(one.__name__ for one in MEASUREMENTS)}")
        return 2
    figures = measured(names)
    missed = [figure.name for figure in figures if figure.met is False]
    if "--check" in arguments:
        return judged(figures, whole=not names)
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


def judged(figures: list[Figure], *, whole: bool) -> int:
    """Says what has become worse. `whole`: all measurements were made, so that every recorded ratio must be among them."""
    recorded = (ROOT / "bench.json").read_text()
    compared = compare(recorded, figures)
    for row in compared:
        print(f"{'WORSE' if row.regressed else 'ok   '} {row.name}: ratio {row.now:.2f}, recorded {row.recorded:.2f} (x {row.worse:.2f})")
    regressed = [row.name for row in compared if row.regressed]
    apart = uncompared(recorded, figures) if whole else []
    missed = far_off(figures)
    print(f"{len(compared)} ratios compared; regressed: {', '.join(regressed) or 'none'}")
    if apart:
        print(f"measured or recorded only, hence compared with nothing (make bench records them): {', '.join(apart)}")
    if missed:
        print(f"far off their targets: {', '.join(missed)}")
    return 1 if regressed or apart or missed or not compared else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
