"""What `make bench-check` calls a regression."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "bench" / "figures.py"


@pytest.fixture(scope="module")
def figures():
    """The benchmarks are scripts, not a package."""
    spec = importlib.util.spec_from_file_location("bench_figures", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def row(name: str, ratio: float | None) -> dict[str, object]:
    return {"name": name, "ratio": ratio}


@pytest.mark.parametrize(
    ("value", "at_least", "worse", "regressed"),
    [(2.9, False, 1.45, False), (3.1, False, 1.55, True), (1.0, False, 0.5, False), (1.4, True, 1.43, False), (1.3, True, 1.54, True)],
)
def test_a_ratio_may_become_worse_by_its_tolerance(figures, value, at_least, worse, regressed):
    figure = figures.Figure("calls", value, "ms", peer="echo", peer_value=1.0, at_least=at_least, tolerance=1.5)
    (found,) = figures.compare(json.dumps([row("calls", 2.0)]), [figure])
    assert found.worse == pytest.approx(worse, abs=0.01)
    assert found.regressed is regressed


def test_a_ratio_on_one_side_only_is_compared_with_nothing_and_said(figures):
    recorded = json.dumps([row("alone", None), row("gone", 2.0)])
    measured = [figures.Figure("alone", 1.0, "s"), figures.Figure("new", 1.0, "s", peer="p", peer_value=1.0)]
    assert figures.compare(recorded, measured) == []
    assert figures.uncompared(recorded, measured) == ["gone", "new"]


@pytest.mark.parametrize(
    ("value", "at_least", "far"), [(1.0, False, False), (1.4, False, False), (1.6, False, True), (0.7, True, False), (0.6, True, True)]
)
def test_a_target_may_be_missed_by_the_tolerance(figures, value, at_least, far):
    figure = figures.Figure("scrape", value, "ms", target=1.0, at_least=at_least, tolerance=1.5)
    assert figures.far_off([figure]) == (["scrape"] if far else [])


def test_what_is_written_can_be_compared(figures):
    figure = figures.Figure("calls", 2.0, "ms", peer="echo", peer_value=1.0)
    (found,) = figures.compare(figures.as_json([figure]), [figure])
    assert (found.worse, found.regressed) == (1.0, False)
