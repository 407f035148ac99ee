"""Changes that deploy and config apply will not roll through a running cluster: why, and what to do instead. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hmcore.config.mixtures import unrollable
from hmcore.config.problems import spell

if TYPE_CHECKING:
    from hmcore.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Refusal:
    """A change that cannot be rolled, why, and what to do instead."""

    path: str
    message: str
    fix: str | None


def unsafe(present: Sequence[Settings], wanted: Settings, staying: Mapping[str, Settings] | None = None) -> tuple[Refusal, ...]:
    """What must not meet while nodes that run with `present` are brought to `wanted` one by one (docs/adr/0059), beside those in
    `staying`, by name, that keep theirs."""
    found = unrollable(present, wanted, staying)
    return tuple(Refusal(spell(("settings", *mistake.path)), mistake.message, mistake.hint) for mistake in found)
