"""The configuration as documents for people and machines: what an inventory comes to, and what the presets hold. Pure; shows no secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hmcore.config.catalogue import Effect, catalogue, value_at
from hmcore.config.inventory import Inventory, SshTarget
from hmcore.config.presets import PRESETS
from hmcore.errors import Problem

EFFECTS: Mapping[Effect, str] = {
    "restart": "Applying it restarts the agents, one by one.",
    "hmctl": "Takes effect at once: only hmctl reads it.",
    "fixed": "A running cluster cannot change it.",
}
HIDDEN = "(hidden)"


def inventory_document(inventory: Inventory) -> dict[str, Any]:
    """`inventory` resolved: defaults applied, ranges expanded, paths absolute; passwords hidden."""
    return {
        "id": inventory.id,
        "name": inventory.name,
        "preset": inventory.preset,
        "packages": inventory.packages,
        "hosts": [
            {
                "name": host.name,
                "address": host.address,
                "port": host.port,
                "role": str(host.role),
                "labels": dict(host.labels),
                "apps": host.apps,
                "ssh": _ssh_document(host.ssh),
            }
            for host in inventory.hosts
        ],
        "settings": inventory.settings.model_dump(mode="json"),
    }


def _ssh_document(target: SshTarget) -> dict[str, Any]:
    def path(value: object) -> str | None:
        return None if value is None else str(value)

    return {
        "address": target.address,
        "user": target.user,
        "port": target.port,
        "key": path(target.key),
        "agent": target.agent,
        "config": path(target.config),
        "known_hosts": path(target.known_hosts),
        "bastion": None if target.bastion is None else _ssh_document(target.bastion),
        "sudo": target.sudo,
        "sudo_password": None if target.sudo_password is None else HIDDEN,
        "python": target.python,
    }


def presets_document() -> dict[str, Any]:
    """Every preset with all its values, and every setting with its unit and reason."""
    return {
        "presets": {
            preset.name: {
                "summary": preset.summary,
                "control_nodes": preset.control_nodes,
                "settings": preset.settings.model_dump(mode="json"),
            }
            for preset in PRESETS.values()
        },
        "settings": [
            {
                "path": setting.path,
                "unit": setting.unit,
                "default": setting.default,
                "description": setting.description,
                "effect": setting.effect,
            }
            for setting in catalogue()
        ],
    }


def preset_rows() -> list[list[str]]:
    """One row a setting: its path, then its value in each preset, with its unit."""
    resolved = [preset.settings for preset in PRESETS.values()]
    control = ["control nodes", *(str(preset.control_nodes) + ("+" if preset.control_nodes == 1 else "") for preset in PRESETS.values())]
    rows = [
        [
            setting.path,
            *(_value(value_at(settings, setting.path), setting.unit) for settings in resolved),
        ]
        for setting in catalogue()
    ]
    return [control, *rows]


def problems_document(file: str, problems: Iterable[Problem]) -> dict[str, Any]:
    """What `config validate` found."""
    found = list(problems)
    return {
        "file": file,
        "valid": all(problem.warning for problem in found),
        "problems": [
            {
                "severity": "warning" if problem.warning else "error",
                "file": problem.file,
                "line": problem.line,
                "path": problem.path,
                "message": problem.message,
                "hint": problem.hint,
            }
            for problem in found
        ],
    }


def _value(value: object, unit: str) -> str:
    if unit == "bytes" and isinstance(value, int) and value % 2**20 == 0:
        return f"{value // 2**20} MiB"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{text} {unit}".strip()
