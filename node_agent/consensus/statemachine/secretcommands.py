"""The commands about secrets (see commands.py). They carry ciphertext alone: whoever makes them has the keys, whoever applies them none."""

from __future__ import annotations

import msgspec

from hmcore.apps.secrets import Box, Sort


class PutKeeper(msgspec.Struct, frozen=True, kw_only=True, tag="put-keeper"):
    """A control node's public key, as it told the leader."""

    node: str
    public: bytes


class TurnKey(msgspec.Struct, frozen=True, kw_only=True, tag="turn-key"):
    """Another key for the vault: the one of epoch `basis` + 1 (`basis` 0: there is none yet), for these `keepers`.

    `wraps`: of all secrets by their keys, as they are wrapped now; refused unless it is all that can be opened. `lost`: nobody can open the
    vault any more, and so none of its secrets; they stay as names to be set anew.
    """

    basis: int
    keepers: dict[str, bytes]
    boxes: tuple[Box, ...]
    wraps: dict[str, bytes] = {}
    lost: bool = False


class PutSecret(msgspec.Struct, frozen=True, kw_only=True, tag="put-secret"):
    """A value, wrapped with the vault's key of `epoch`; refused if that has been turned since. See hmcore.apps.secrets.Secret."""

    sort: Sort
    name: str
    digest: str
    size: int
    sealed: bytes
    wrapped: bytes
    epoch: int
    note: str = ""


class RemoveSecret(msgspec.Struct, frozen=True, kw_only=True, tag="remove-secret"):
    """All versions of it. Refused while an app uses one."""

    sort: Sort
    name: str
