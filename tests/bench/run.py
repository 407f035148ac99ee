"""`make bench`: every measurement in turn on a lab of its own; writes bench.json and docs/benchmarks.md."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import calling
import deploying
import idling
import starting
from bed import ROOT, bed
from figures import Figure, write


def main() -> int:
    figures: list[Figure] = []
    with bed() as lab:
        for measurement in (deploying, calling, starting, idling):
            print(f"{measurement.__name__} ...", file=sys.stderr, flush=True)
            for figure in measurement.measure(lab):
                figures.append(figure)
                beside = f", {figure.peer} {figure.peer_value:.2f}" if figure.peer_value is not None else ""
                print(f"  {figure.name}: {figure.value:.2f} {figure.unit} (target {figure.target:g}{beside})", file=sys.stderr, flush=True)
    write(figures, ROOT)
    missed = [figure.name for figure in figures if figure.met is False]
    print(f"{len(figures)} figures in docs/benchmarks.md; missed: {', '.join(missed) or 'none'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
