"""What `make bench-check` calls a regression, and that it would notice one in each of the figures that are recorded."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# Figures that have no peer, and why doubling them is noticed all the same.
ALONE = {
    "sustained load: still healthy": "1 or 0: 1 is the target",
    "SSH connections at once, most of all": "a count, recorded at its target: the limit is reached when hosts are many",
}


@pytest.fixture(scope="module")
def bench():
    """The benchmarks are scripts, not a package. Importing them measures nothing."""
    spec = importlib.util.spec_from_file_location("bench_run", ROOT / "tests" / "bench" / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def figures(bench):
    return sys.modules["figures"]


@pytest.fixture(scope="module")
def recorded(figures):
    return figures.read((ROOT / "bench.json").read_text())


def kind(figures, **changes):
    return figures.Kind(**{"name": "calls", "unit": "ms", "peer": "echo"} | changes)


def noticed(figures, recorded, now) -> bool:
    return now.far_off or any(row.regressed for row in figures.compare(recorded, [now]))


def test_what_is_recorded_is_what_would_be_measured(bench, recorded):
    """Else `make bench-check` compares with nothing. `make bench` records anew."""
    assert {(figure.name, figure.kind.peer) for figure in recorded} == {(each.name, each.peer) for each in bench.kinds()}


def test_no_name_is_measured_twice(bench):
    names = [each.name for each in bench.kinds()]
    assert len(set(names)) == len(names)


def test_a_figure_that_is_twice_as_bad_is_noticed(bench, figures, recorded):
    promised = {each.name: each for each in bench.kinds()}
    unnoticed = []
    for figure in recorded:
        promise = promised.get(figure.name)
        if promise is None or promise.peer != figure.kind.peer:
            continue  # which the first test does not let pass
        before = replace(figure, kind=promise)
        twice = replace(before, value=before.value / 2 if promise.at_least else before.value * 2)
        if not noticed(figures, [before], twice):
            unnoticed.append(figure.name)
    assert unnoticed == []


def test_that_does_not_depend_on_what_is_recorded(bench, figures):
    """By its ratio to a peer a factor of two is noticed whatever the figure is and however loose its target."""
    unnoticed = set()
    for each in bench.kinds():
        loose = replace(each, target=None)
        beside = None if each.peer is None else 1.0
        if not noticed(figures, [loose.of(1.0, beside)], loose.of(0.5 if each.at_least else 2.0, beside)):
            unnoticed.add(each.name)
    assert unnoticed == ALONE.keys()


def test_noise_excuses_little(bench):
    assert [each.name for each in bench.kinds() if not 1 < each.tolerance <= 1.8 or not 1 <= each.slack <= 1.1] == []


def test_the_page_is_what_was_recorded_and_nothing_else(figures, recorded):
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    machine = next(line for line in page.splitlines() if line.endswith("three lab hosts on the same machine."))
    assert page == figures.as_markdown(recorded, machine)


@pytest.mark.parametrize(
    ("value", "at_least", "worse", "regressed"),
    [
        (2.9, False, 1.45, False),
        (3.0, False, 1.5, True),
        (1.0, False, 0.5, False),
        (1.4, True, 1.43, False),
        (1.3, True, 1.54, True),
        (1e-4, True, 2e4, True),
    ],
)
def test_a_ratio_may_become_worse_by_less_than_its_tolerance(figures, value, at_least, worse, regressed):
    one = kind(figures, at_least=at_least, tolerance=1.5)
    (found,) = figures.compare([one.of(2.0, 1.0)], [one.of(value, 1.0)])
    assert found.worse == pytest.approx(worse, abs=0.01)
    assert found.regressed is regressed


def test_a_small_ratio_keeps_its_digits(figures):
    assert kind(figures).of(0.017433, 5.719448).ratio == 0.00305


def test_what_is_on_one_side_only_is_compared_with_nothing_and_said(figures):
    def of(name, **changes):
        return kind(figures, name=name, **changes).of(1.0, 1.0)

    recorded, measured = [of("same"), of("gone"), of("other", peer="before")], [of("same"), of("new"), of("other", peer="now")]
    assert [row.name for row in figures.compare(recorded, measured)] == ["same"]
    assert figures.uncompared(recorded, measured) == ["gone", "new", "other"]


@pytest.mark.parametrize(
    ("value", "at_least", "met", "far"),
    [
        (1.0, False, True, False),
        (1.05, False, False, False),
        (1.2, False, False, True),
        (0.95, True, False, False),
        (0.85, True, False, True),
    ],
)
def test_a_target_is_missed_whatever_the_noise_and_fails_beyond_it(figures, value, at_least, met, far):
    figure = kind(figures, target=1.0, at_least=at_least, slack=1.1).of(value, 1.0)
    assert (figure.met, figure.far_off) == (met, far)


def test_counting_that_takes_a_twentieth_of_the_throughput_is_noticed(bench):
    kept = sys.modules["accounting"].KEPT
    assert not kept.of(0.97, 1.0).far_off
    assert kept.of(0.94, 1.0).far_off


def test_a_target_that_is_missed_is_said(bench, figures, capsys):
    one = kind(figures, target=1.0)
    bench.judged([one.of(1.05, 1.0), replace(one, name="slow").of(2.0, 1.0)], whole=False)
    said = capsys.readouterr().out
    assert "MISSED calls: 1.05 ms, target 1, within the measurement's noise (x 1.1)" in said
    assert "missed targets: slow" in said


def test_a_figure_must_have_been_measured_with_its_peer(figures):
    with pytest.raises(ValueError, match="declared peer echo"):
        kind(figures).of(1.0)


def test_what_is_written_can_be_compared(figures):
    figure = kind(figures, target=3.0).of(2.0, 1.0, "by turns")
    (again,) = figures.read(figures.as_json([figure]))
    assert again == figure
    (found,) = figures.compare([again], [figure])
    assert (found.worse, found.regressed) == (1.0, False)


def test_each_module_that_declares_figures_is_measured(bench):
    declaring = {path.stem for path in (ROOT / "tests" / "bench").glob("*.py") if "\nFIGURES = " in path.read_text()}
    assert declaring == {measurement.__name__ for measurement in bench.MEASUREMENTS}
