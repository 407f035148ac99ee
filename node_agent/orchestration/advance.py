"""Which feature level all can live with, by what their heartbeats tell (docs/adr/0068). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from node_agent.consensus.statemachine import levels
from node_agent.orchestration.hearing import View


@dataclass(frozen=True, slots=True)
class Known:
    """`level`: the highest that all who were heard know. `silent`: who was not heard, or is about to stop; nobody can vouch for these."""

    level: int
    silent: tuple[str, ...]
    levels: tuple[tuple[str, int], ...]  # of each who was heard

    @property
    def behind(self) -> tuple[str, ...]:
        """Who keeps the others from a higher level."""
        return tuple(name for name, level in self.levels if level < levels.LATEST)


def known(names: Iterable[str], view: View, now: float, patience: float) -> Known:
    """What `names` tell. A heartbeat older than `patience` (seconds) tells nothing: another release may run there by now."""
    heard = {name: found.beat for name, found in view.heard.items() if now < found.at + patience and not found.beat.leaving}
    wanted = sorted(set(names))
    told = tuple((name, heard[name].level) for name in wanted if name in heard)
    return Known(
        level=max(levels.BASE, min((levels.LATEST, *(level for _, level in told)))),
        silent=tuple(name for name in wanted if name not in heard),
        levels=told,
    )


def to_form_at(voters: Iterable[str], view: View, now: float, patience: float) -> int | None:
    """The level at which the first leader forms the cluster; None: wait until all voters were heard, for `patience` seconds at most."""
    found = known(voters, view, now, patience)
    if not found.silent:
        return found.level
    return None if now < view.leader_since + patience else levels.BASE
