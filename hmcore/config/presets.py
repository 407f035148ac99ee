"""The four presets: what a cluster is tuned for, as differences from the defaults in settings.py (which are `balanced`)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from hmcore.config.conflicts import conflicts
from hmcore.config.problems import Mistake, examine, locate, nearest
from hmcore.config.settings import Settings
from hmcore.errors import ConfigError

DEFAULT_PRESET = "balanced"


class Preset(msgspec.Struct, frozen=True):
    """`control_nodes` is how many it is made for; fewer than `control_minimum` are refused, anything between is a warning."""

    name: str
    summary: str
    control_nodes: int
    control_minimum: int
    changes: Mapping[str, Any]

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(dict(self.changes))


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            Preset(
                "development",
                "one machine or a few; policies are reported, not enforced; upgrades go all at once",
                control_nodes=1,
                control_minimum=1,
                changes={
                    "health": {"interval": 5.0, "timeout": 2.0},
                    "registry": {"ttl": 30.0, "refresh": 10.0},
                    "metrics": {"interval": 5.0},
                    "security": {"mode": "audit"},
                    "upgrade": {"batch": "all"},
                },
            ),
            Preset(
                "balanced", "the default: a failed node is noticed in 4 s at little cost", control_nodes=3, control_minimum=1, changes={}
            ),
            Preset(
                "high-performance",
                "failures are noticed twice as fast, on a fast and quiet network, for more CPU",
                control_nodes=3,
                control_minimum=1,
                changes={
                    "membership": {"heartbeat": 0.25, "suspect": 1.0, "down": 2.0},
                    "raft": {"heartbeat": 0.1, "election_min": 0.5, "election_max": 1.0},
                    "calls": {"timeout": 5.0, "retries": 3},
                    "health": {"interval": 5.0, "timeout": 2.0},
                    "registry": {"ttl": 30.0, "refresh": 10.0},
                    "metrics": {"interval": 5.0},
                    "upgrade": {"batch": "25%"},
                },
            ),
            Preset(
                "high-reliability",
                "two control nodes may fail; slow networks and disks do not cause failovers; every layer is required",
                control_nodes=5,
                control_minimum=3,
                changes={
                    "initialization_timeout": 120.0,
                    "optional_layers": "refuse",
                    "membership": {"heartbeat": 1.0, "suspect": 5.0, "down": 10.0},
                    "raft": {"heartbeat": 0.5, "election_min": 2.5, "election_max": 5.0},
                    "calls": {"timeout": 30.0, "retries": 5},
                    "registry": {"ttl": 120.0, "refresh": 30.0},
                    "upgrade": {"batch": 1, "soak": 30.0},
                },
            ),
        )
    }
)


def default_control_nodes(preset: str, hosts: int) -> int:
    """How many of `hosts` are control nodes unless somebody says otherwise: the largest odd number that the preset has a use for."""
    most = max(3, PRESETS[preset].control_nodes)
    return max(odd for odd in (1, 3, 5) if odd <= min(most, max(1, hosts)))


def settings_for(preset: str, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings of `preset` with `overrides` (nested as in the inventory) over them. Raises ConfigError with every mistake."""
    if preset not in PRESETS:
        raise ConfigError(locate([Mistake(("preset",), f"no preset is called {preset!r}", nearest(preset, PRESETS))], "settings", {}))
    settings, wrong = resolve(PRESETS[preset], {} if overrides is None else overrides)
    if settings is None or wrong:
        raise ConfigError(locate((mistake.under(("settings",)) for mistake in wrong), "settings", {}))
    return settings


def resolve(preset: Preset, overrides: object) -> tuple[Settings | None, list[Mistake]]:
    """The same for whatever a document holds under `settings:`, with paths below it. None when a value by itself is wrong."""
    settings, wrong = examine(Settings, _merged(preset.changes, overrides) if isinstance(overrides, Mapping) else overrides)
    return settings, wrong + (conflicts(settings) if settings else [])


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
