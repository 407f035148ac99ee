"""The times of --since: one way to read them, whichever command asks. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from hmcore.errors import UsageError

LATEST = 253_402_300_799.0  # the last second of the year 9999: no clock here gets there

_UNITS = {  # as journalctl reads them, a month and a year included
    r"us": 1e-6,
    r"ms": 1e-3,
    r"s|sec|seconds?": 1.0,
    r"m|min|minutes?": 60.0,
    r"h|hr|hours?": 3600.0,
    r"d|days?": 86_400.0,
    r"w|weeks?": 604_800.0,
    r"M|months?": 2_629_800.0,
    r"y|years?": 31_557_600.0,
}
_AMOUNT = rf"(\d{{1,9}}(?:\.\d{{1,6}})?)\s*({'|'.join(_UNITS)})(?![a-zA-Z])\s*"
_SPANS = _AMOUNT.replace("(\\d", "(?:\\d").replace("*(us", "*(?:us")
_SPAN = re.compile(rf"-(?:{_SPANS})+|(?:{_SPANS})+(?:ago)?")
_EPOCH = re.compile(r"@(\d{1,12}(?:\.\d{1,6})?)")
_MOMENT = re.compile(
    r"(?:(?P<weekday>Mon|Tue|Wed|Thu|Fri|Sat|Sun) )?(?P<date>\d{4}-\d\d-\d\d)?"
    r"(?P<gap>[ T])?(?P<clock>\d\d?:\d\d(?::\d\d(?:\.\d{1,6})?)?)?(?P<zone>Z| ?UTC|[+-]\d\d:\d\d)?"
)
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAYS_AGO = {"today": 0, "yesterday": 1}


def since_time(text: str, now: datetime) -> float:
    """Seconds since 1970. Dates and clocks are meant in the zone of `now`, in this machine's if it has none; spans lie in the past.
    Raises UsageError for what is no time."""
    words = text.strip()
    try:
        at = _seconds(words, now)
    except (ValueError, OverflowError, OSError):
        at = None
    if at is None or not 0 <= at <= LATEST:
        fix = "give it like 10m, 1h30m, '2h ago', yesterday, 08:00 or '2026-11-22 08:00'"
        raise UsageError(f"--since {text}: that is no time", fix=fix) from None
    return at


def _seconds(text: str, now: datetime) -> float | None:
    if text == "now":
        return now.timestamp()
    if text in _DAYS_AGO:
        return (now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=_DAYS_AGO[text])).timestamp()
    if _SPAN.fullmatch(text):
        return now.timestamp() - sum(float(count) * _length(unit) for count, unit in re.findall(_AMOUNT, text))
    if epoch := _EPOCH.fullmatch(text):
        return float(epoch[1])
    found = _MOMENT.fullmatch(text)
    if found is None or not (found["date"] or found["clock"]) or bool(found["gap"]) != bool(found["date"] and found["clock"]):
        return None
    return _moment(found, now)


def _length(unit: str) -> float:
    return next(seconds for words, seconds in _UNITS.items() if re.fullmatch(words, unit))


def _moment(found: re.Match[str], now: datetime) -> float | None:
    date, clock, zone = found["date"] or f"{now:%Y-%m-%d}", found["clock"] or "00:00", (found["zone"] or "").strip()
    if zone in ("Z", "UTC") and not found["date"]:
        date = f"{datetime.fromtimestamp(now.timestamp(), UTC):%Y-%m-%d}"  # today, where it is meant
    hour, _, rest = clock.partition(":")
    at = datetime.fromisoformat(f"{date}T{hour:0>2}:{rest}{'+00:00' if zone in ('Z', 'UTC') else zone}")
    if found["weekday"] and found["weekday"] != _WEEKDAYS[at.weekday()]:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=now.tzinfo)).timestamp()
