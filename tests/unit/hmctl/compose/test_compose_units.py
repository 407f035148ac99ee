"""Amounts as the Compose Specification writes them, and numbers as Compose spells them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmctl.compose.parts import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10ms", 0.01),
        ("40s", 40),
        ("1m30s", 90),
        ("1h5m30s20ms", 3930.02),
        ("0", 0),
        ("0s", 0),
        ("1.5h", 5400),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("100ns", 1e-7),
        ("1d1m", 86_460),
        ("1w", 604_800),
        ("30", None),
        ("", None),
        ("s", None),
        ("-1s", None),
        ("1 s", None),
        ("1s ", None),
        ("1y", None),
        ("1m30", None),
        ("999999999999w", None),
        ("1s" * 1000 + "!", None),
    ],
)
def test_durations(text, seconds):
    assert units.seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2b", 2),
        ("1024kb", 1 << 20),
        ("2048k", 2 << 20),
        ("300m", 300 << 20),
        ("1gb", 1 << 30),
        ("1.5 GiB", 3 << 29),
        ("50M", 50 << 20),
        ("2T", 2 << 40),
        ("100", 100),
        ("0", 0),
        ("-1", None),
        ("", None),
        ("m", None),
        ("1x", None),
        ("1bm", None),
        ("1  m", None),
        ("99999999p", None),
    ],
)
def test_byte_values(text, count):
    assert units.byte_count(text) == count


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("0.5", 500),
        (0.5, 500),
        (2, 2000),
        ("0.001", 1),
        (".25", 250),
        (1e-7, 0),
        ("-1", None),
        (-1, None),
        ("1e3", None),
        (math.nan, None),
        (math.inf, None),
        pytest.param(1 << 20_000, None, id="endless"),
    ],
)
def test_processors(value, found):
    assert units.thousandths(value) == found


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        ("0440", 0o440),
        ("0o440", 0o440),
        ("440", 0o440),
        ("1777", 0o1777),
        (0o440, 0o440),  # 0o440 in a file, a number to YAML 1.2
        (440, 0o440),  # 0440 in a file, another number to YAML 1.2
        (0o400, 0o400),
        (400, 0o400),
        (0o444, 0o444),
        (444, 0o444),
        (0o600, 0o600),
        (600, 0o600),
        (0o755, 0o755),
        (755, 0o755),
        (0o777, 0o777),
        (777, 0o777),
        (0o500, 0o500),
        (500, 0o500),
        (0o770, 0o770),
        (1777, 0o1777),
        (0o1777, 0o1777),
        (0, 0),
        ("rwx", None),
        ("0888", None),
        (-1, None),
        (99_999, None),
        ("77777", None),
    ],
)
def test_modes(value, mode):
    assert units.permissions(value) == mode


USUAL = [0o400, 0o440, 0o444, 0o500, 0o550, 0o555, 0o600, 0o640, 0o644, 0o660, 0o664, 0o666, 0o700, 0o750, 0o755, 0o770, 0o775, 0o777]


@pytest.mark.parametrize("mode", USUAL)
def test_usual_modes_mean_the_same_however_they_are_written(mode):
    for written in (f"{mode:04o}", f"0o{mode:o}", mode, int(f"{mode:o}")):
        assert units.permissions(written) == mode


@pytest.mark.parametrize(
    ("value", "text"),
    [  # as docker compose config prints them (v2.40.3)
        (True, "true"),
        (False, "false"),
        (8080, "8080"),
        (1.0, "1"),
        (1.5, "1.5"),
        (0.0001, "0.0001"),
        (1e-05, "1e-05"),
        (100_000.0, "100000"),
        (1_000_000.0, "1e+06"),
        (123_456_789.0, "1.23456789e+08"),
        (12_345_678.5, "1.23456785e+07"),
        (1e16, "1e+16"),
        (1e20, "1e+20"),
        (0.0, "0"),
        (-2.5, "-2.5"),
        (math.inf, None),
        (math.nan, None),
        pytest.param(1 << 20_000, None, id="endless"),
    ],
)
def test_values_are_spelled_as_compose_spells_them(value, text):
    assert units.spelled(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_is_spelled_is_the_same_number(value):
    assert float(units.spelled(value)) == value


@given(st.text(alphabet="0123456789.smhukbgi -+eµ"))
def test_any_text_is_an_amount_or_none(text):
    found = units.seconds(text)
    assert found is None or 0 <= found <= units.LONGEST
    count = units.byte_count(text)
    assert count is None or 0 <= count <= units.LARGEST
    assert units.thousandths(text) is None or units.thousandths(text) >= 0
    mode = units.permissions(text)
    assert mode is None or 0 <= mode <= 0o7777
