"""What --since takes: the same for every command."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import UsageError
from hmctl.times import LATEST, since_time

NOW = datetime(2026, 11, 22, 18, 30, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("now", "2026-11-22T17:30:00Z"),
        ("today", "2026-11-21T23:00:00Z"),
        ("yesterday", "2026-11-20T23:00:00Z"),
        ("10m", "2026-11-22T17:20:00Z"),
        ("1h30m", "2026-11-22T16:00:00Z"),
        ("1h 30min", "2026-11-22T16:00:00Z"),
        ("1.5h", "2026-11-22T16:00:00Z"),
        ("2 hours ago", "2026-11-22T15:30:00Z"),
        ("-5s", "2026-11-22T17:29:55Z"),
        ("2d", "2026-11-20T17:30:00Z"),
        ("1w", "2026-11-15T17:30:00Z"),
        ("1M", "2026-10-23T07:00:00Z"),
        ("@1700000000", "2023-11-14T22:13:20Z"),
        ("08:00", "2026-11-22T07:00:00Z"),
        ("8:00", "2026-11-22T07:00:00Z"),
        ("8:00:30", "2026-11-22T07:00:30Z"),
        ("08:00Z", "2026-11-22T08:00:00Z"),
        ("2026-11-22 08:00", "2026-11-22T07:00:00Z"),
        ("2026-11-22 08:00:01.5", "2026-11-22T07:00:01.500Z"),
        ("2026-11-22 08:00 UTC", "2026-11-22T08:00:00Z"),
        ("2026-11-22T08:00:00Z", "2026-11-22T08:00:00Z"),
        ("2026-11-22T08:00:00+02:00", "2026-11-22T06:00:00Z"),
        ("2026-11-21", "2026-11-20T23:00:00Z"),
        ("Sun 2026-11-22 08:00", "2026-11-22T07:00:00Z"),
    ],
)
def test_since_is_understood(text: str, at: str) -> None:
    assert datetime.fromtimestamp(since_time(text, NOW), UTC) == datetime.fromisoformat(at)


def test_a_date_is_meant_with_the_offset_of_its_own_day() -> None:
    now = datetime(2026, 10, 25, 12, 0, tzinfo=ZoneInfo("Europe/Berlin"))  # the clocks were put back this morning
    assert datetime.fromtimestamp(since_time("yesterday", now), UTC) == datetime(2026, 10, 23, 22, 0, tzinfo=UTC)
    assert datetime.fromtimestamp(since_time("2026-10-24 08:00", now), UTC) == datetime(2026, 10, 24, 6, 0, tzinfo=UTC)
    assert datetime.fromtimestamp(since_time("10:00", now), UTC) == datetime(2026, 10, 25, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "yesterdy",
        "",
        "10",
        "10 parsecs",
        "2026-11",
        "22.11.2026",
        "ago",
        "8",
        "25:00",
        "2026-02-30",
        "Mon 2026-11-22",
        "-ago",
        "9999y",
        "Z",
    ],
)
def test_what_is_no_time_is_said_in_our_words(text: str) -> None:
    with pytest.raises(UsageError, match="that is no time") as refused:
        since_time(text, NOW)
    assert refused.value.fix is not None
    assert refused.value.__cause__ is None


@given(st.text(max_size=12) | st.from_regex(r"[0-9: smhdwTMyago@.-]{0,14}", fullmatch=True))
def test_since_is_a_time_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert 0 <= since_time(text, NOW) <= LATEST
