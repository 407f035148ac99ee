"""Every setting, described, as the models have it: for whoever shows, compares or explains them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec

from hmcore.config.kinds import Fixed, HmctlOnly, Unit
from hmcore.config.settings import Group, Settings

# What a change takes: agents restarted one by one; nothing, for only hmctl reads it; or it cannot be done.
Effect = Literal["restart", "hmctl", "fixed"]


class Setting(msgspec.Struct, frozen=True):
    """One setting, described: `path` as in the inventory below `settings:`, `unit` empty where there is none. `effect`: what
    changing it in a running cluster takes."""

    path: str
    default: Any
    unit: str
    description: str
    effect: Effect = "restart"


def catalogue(group: type[Group] = Settings, prefix: str = "") -> Iterator[Setting]:
    """Every setting, in the order of settings.py."""
    for name, field in group.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            yield from catalogue(field.annotation, f"{prefix}{name}.")
        else:
            unit = next((mark.symbol for mark in field.metadata if isinstance(mark, Unit)), "")
            yield Setting(f"{prefix}{name}", field.default, unit, field.description or "", _effect(field.metadata))


def _effect(marks: Iterable[object]) -> Effect:
    for mark in marks:
        match mark:
            case HmctlOnly():
                return "hmctl"
            case Fixed():
                return "fixed"
    return "restart"


def value_at(settings: Settings, path: str) -> Any:
    """The value of the setting at `path`, e.g. `raft.heartbeat`."""
    value: Any = settings
    for part in path.split("."):
        value = getattr(value, part)
    return value
