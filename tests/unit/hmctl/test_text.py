from __future__ import annotations

import pytest

from hmctl.text import bar, duration, listed, plural, printable, size


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1.0, "0.00 s"),
        (0.0, "0.00 s"),
        (0.424, "0.42 s"),
        (9.999, "10.00 s"),
        (12.34, "12.3 s"),
        (59.4, "59.4 s"),
        (60.0, "1m 00s"),
        (299.9995, "5m 00s"),
        (3599.0, "59m 59s"),
        (3600.0, "1h 00m"),
        (86400.0 + 4 * 3600, "1d 04h"),
    ],
)
def test_duration(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (999, "999 B"), (18_000_000, "18.0 MB"), (2_500_000_000, "2.5 GB"), (4 * 10**12, "4.0 TB")]
)
def test_size(count: int, said: str) -> None:
    assert size(count) == said


def test_words_for_lists_and_counts() -> None:
    assert (plural(1, "node"), plural(0, "node"), plural(3, "node")) == ("1 node", "0 nodes", "3 nodes")
    assert listed([]) == "none"
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed([str(n) for n in range(8)]) == "0, 1, 2, 3, 4 and 3 more"


def test_text_from_a_host_cannot_steer_the_terminal() -> None:
    assert printable("plain") == "plain"
    assert printable("a\x1b[31mred\x1b]0;title\x07\rb\x00") == "a[31mred]0;titleb"
    assert printable("two\nlines\tkept") == "two\nlines\tkept"
    assert printable("two\nlines", keep="") == "twolines"
    assert printable("right\u202eto left, Zürich 東京") == "rightto left, Zürich 東京"


@pytest.mark.parametrize(
    ("began", "length", "drawn"),
    [
        (0.0, 10.0, "━━━━━━━━━━"),
        (0.0, 0.001, "━         "),
        (5.0, 2.0, "     ━━   "),
        (9.999, 5.0, "         ━"),
        (20.0, 1.0, "         ━"),
    ],
)
def test_bar(began: float, length: float, drawn: str) -> None:
    assert bar(began, length, 10.0, 10) == drawn


def test_bar_of_nothing() -> None:
    assert bar(0.0, 0.0, 0.0, 10) == ""
