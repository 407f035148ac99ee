"""Amounts as the Compose Specification writes them (11-extension.md), and values as Compose spells them. Pure; None for what is none."""

from __future__ import annotations

import math
import re
from decimal import Decimal

LONGEST = 1_000_000_000  # seconds; some thirty years
LARGEST = 1 << 60  # bytes

_NANOSECONDS = {
    **{"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 1_000_000, "s": 1_000_000_000},
    **{"m": 60_000_000_000, "h": 3_600_000_000_000, "d": 86_400_000_000_000, "w": 604_800_000_000_000},
}
_AMOUNT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{0,12})?)(ns|us|µs|μs|ms|s|m|h|d|w)", re.ASCII)
_DURATION = re.compile(rf"(?:{_AMOUNT.pattern})+", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([kmgtp]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DIGITS = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}", re.ASCII)
_OCTAL = re.compile(r"(?:0o)?[0-7]{1,5}", re.ASCII)
_OWNER_READS, _CLASSES = 4, 3


def seconds(text: str) -> float | None:
    """`1m30s`, `500ms`, `0`; days and weeks, too, as Compose reads them."""
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        return None
    total = sum(int(Decimal(amount) * _NANOSECONDS[unit]) for amount, unit in _AMOUNT.findall(text))
    return total / 1_000_000_000 if total <= LONGEST * 1_000_000_000 else None


def byte_count(text: str) -> int | None:
    """`512m`, `1gb`, `1.5 GiB`: all in powers of 1024."""
    found = _SIZE.fullmatch(text)
    if found is None:
        return None
    amount = int(Decimal(found[1]) * 1024 ** _POWER[found[2].lower()])
    return amount if amount <= LARGEST else None


def whole(text: str) -> int | None:
    return int(text) if _DIGITS.fullmatch(text) else None


def thousandths(value: int | float | str) -> int | None:
    """`0.5` processors are 500."""
    if isinstance(value, int | float):
        value = format(value, "f") if abs(value) <= 1e9 else ""
    return round(Decimal(value) * 1000) if _DECIMAL.fullmatch(value) else None


def permissions(value: int | str) -> int | None:
    """A file's mode. Text is octal. A number that YAML 1.2 read is not (`0440` is 440 there, `0o440` is 288): it is what its digits say in
    octal if that is a mode that people write (whoever may anything may read, and nobody may more than the owner), else its value."""
    if isinstance(value, str):
        return int(value.removeprefix("0o"), 8) & 0o7777 if _OCTAL.fullmatch(value) and int(value.removeprefix("0o"), 8) <= 0o7777 else None
    if not 0 <= value <= 7777:
        return None
    digits = str(value)
    if _OCTAL.fullmatch(digits) and _usual(int(digits, 8)):
        return int(digits, 8)
    return value if value <= 0o7777 else None


def _usual(mode: int) -> bool:
    owner, group, others = (mode >> 6 & 7, mode >> 3 & 7, mode & 7)
    readable = all(part & _OWNER_READS for part in (owner, group, others) if part) and owner
    return bool(readable) and not group & ~owner and not others & ~group


def spelled(value: bool | int | float) -> str | None:
    """As Compose writes a number or a truth value where it wants text (Go's strconv.FormatFloat: 1e+06). None: nobody can."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 4096 else None  # Python refuses to print longer ones
    if not math.isfinite(value):
        return None
    sign, digits, _ = Decimal(repr(value)).normalize().as_tuple()
    exponent = Decimal(repr(value)).adjusted() if value else 0
    written = "".join(map(str, digits))
    minus = "-" if sign else ""
    if exponent < -4 or exponent >= 6:
        fraction = f".{written[1:]}" if len(written) > 1 else ""
        return f"{minus}{written[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):02}"
    if exponent < 0:
        return f"{minus}0.{'0' * (-exponent - 1)}{written}"
    padded = written.ljust(exponent + 1, "0")
    return f"{minus}{padded[: exponent + 1]}" + (f".{padded[exponent + 1 :]}" if padded[exponent + 1 :] else "")
