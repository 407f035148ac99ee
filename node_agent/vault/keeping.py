"""When a control node tells its key, and when the leader gives the vault another one. Pure: decisions are values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hmcore.apps.secrets import Keeper, Vault


@dataclass(frozen=True, slots=True)
class View:
    """What a control node goes by. `public`: its own key. `nodes`: the cluster's members."""

    me: str
    public: bytes
    leads: bool
    voters: Collection[str]
    keepers: Mapping[str, Keeper]
    vault: Vault | None
    opened: bool


@dataclass(frozen=True, slots=True)
class Enrol:
    """Have the leader record our key."""


@dataclass(frozen=True, slots=True)
class Open:
    """Get the vault's key into memory now: later, whoever could help may be gone."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A new key for `keepers`. `lost`: no box can be opened by anybody; then, if nobody has the key in memory either."""

    keepers: dict[str, bytes]
    lost: bool = False


Step = Enrol | Open | Turn


def decide(view: View) -> Step | None:
    """The next step; after it, ask again. Ends: each step makes the next one another."""
    if view.me in view.voters and told(view.keepers, view.me) != view.public:
        return Enrol()
    if view.vault is None:
        return None  # made when something is to be sealed
    wanted = wanted_keepers(view.voters, view.keepers)
    if view.leads and wanted and wanted != view.vault.keepers:
        if view.opened:
            return Turn(wanted)
        return Turn(wanted, lost=True) if lost(view.vault, view.keepers) else Open()
    if not view.opened and view.vault.keepers.get(view.me) == view.public:
        return Open()
    return None


def wanted_keepers(voters: Collection[str], keepers: Mapping[str, Keeper]) -> dict[str, bytes]:
    """The voters whose keys are known."""
    return {name: keepers[name].public for name in sorted(voters) if name in keepers}


def lacking(voters: Collection[str], keepers: Mapping[str, bytes]) -> tuple[str, ...]:
    """The voters without which what is sealed could be lost while the cluster is not: any majority of the voters must hold two keepers,
    who can help each other (or the only voter). Empty: there are enough."""
    needed = min(len(voters), len(voters) - len(voters) // 2 + 1)
    without = sorted(name for name in voters if name not in keepers)
    return tuple(without) if len(voters) - len(without) < needed else ()


def lost(vault: Vault, keepers: Mapping[str, Keeper]) -> bool:
    """Whether no box can be opened any more: for each, its node or its helper has another key by now, or is gone for good."""

    def has_key(node: str) -> bool:
        return not node or told(keepers, node) == vault.keepers.get(node)

    return not any(has_key(box.node) and has_key(box.helper) for box in vault.boxes)


def told(keepers: Mapping[str, Keeper], node: str) -> bytes | None:
    found = keepers.get(node)
    return None if found is None else found.public
