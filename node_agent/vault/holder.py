"""This control node's own key, and with it the vault's: in memory only, got by opening its box with another control node's help."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path

from hmcore.apps.secrets import Keeper, UnlockReply, UnlockRequest, Vault
from hmcore.errors import HyperMeshError, PermissionDenied, SecretError, SecretsLocked
from hmcore.files import read_or_make
from hmcore.pki import Identity, Kind
from node_agent.vault.keeping import told
from node_agent.vault.sealing import KEY, Hidden, VaultKey, new_private, open_vault, public_of, seal_vault_key, take_layer_off

Ask = Callable[[str, UnlockRequest], Awaitable[UnlockReply]]

_LOOK = "hmctl status"

log = logging.getLogger(__name__)


class Holder:
    def __init__(
        self,
        me: str,
        cluster: str,
        path: Path,
        *,
        vault: Callable[[], Vault | None],
        keepers: Callable[[], Mapping[str, Keeper]],
        voters: Callable[[], Collection[str]],
        ask: Ask,
    ) -> None:
        """`path`: where the node's private key is kept, and made when there is none. `vault`, `keepers`, `voters`: as this node knows them.
        `ask` another control node; it must end by itself, and raises HyperMeshError."""
        self._me = me
        self._cluster = cluster
        self._path = path
        self._vault = vault
        self._keepers = keepers
        self._voters = voters
        self._ask = ask
        self._private: Hidden | None = None
        self._held: VaultKey | None = None
        self._opening = asyncio.Lock()

    @property
    def public(self) -> bytes:
        """Raises SecretError: the file cannot be read, or is damaged."""
        return public_of(self._own())

    @property
    def opened(self) -> bool:
        """Whether the vault's key is at hand."""
        vault = self._vault()
        return vault is not None and self._held is not None and self._held.epoch == vault.epoch

    def keep(self, key: VaultKey) -> None:
        """It was made here."""
        self._held = key

    async def key(self) -> VaultKey:
        """The vault's present key. Raises SecretsLocked: no vault, no box for us, or nobody helps now; SecretError, of our own key."""
        async with self._opening:  # many ask at once after a start; one opens
            vault = self._vault()
            if vault is None:
                raise SecretsLocked("nothing was ever sealed in this cluster", host=self._me)
            if self._held is None or self._held.epoch != vault.epoch:
                self._held = await self._open(vault)
            return self._held

    async def _open(self, vault: Vault) -> VaultKey:
        private = self._own()
        alone = [box for box in vault.boxes if box.node == self._me and not box.helper]
        if alone and vault.keepers.get(self._me) == public_of(private):
            return open_vault(self._cluster, vault.epoch, self._me, alone[0].sealed, private)
        reasons: dict[str, str] = {}
        found: list[VaultKey] = []

        async def ask(helper: str) -> None:
            try:
                reply = await self._ask(helper, UnlockRequest(epoch=vault.epoch))
                found.append(open_vault(self._cluster, vault.epoch, self._me, reply.sealed, private))
            except HyperMeshError as error:
                reasons[helper] = error.message
                return
            for other in asking:
                other.cancel()  # one is enough, and some may be dead

        async with asyncio.TaskGroup() as tasks:
            helpers = sorted({*vault.keepers, *self._voters()} - {self._me})
            asking = [tasks.create_task(ask(helper), name=f"the secrets' key, with {helper}") for helper in helpers]
        if found:
            return found[0]
        message = f"no other control node helps {self._me} to open the secrets"
        raise SecretsLocked("; ".join([message, *(f"{name}: {why}" for name, why in sorted(reasons.items()))]), host=self._me, fix=_LOOK)

    async def is_held_by_nobody(self) -> bool:
        """Whether all voters say that they do not have the vault's present key either. Raises HyperMeshError if one does not say."""
        if (vault := self._vault()) is None:
            return False
        for helper in sorted({*self._voters()} - {self._me}):
            try:
                await self._ask(helper, UnlockRequest(epoch=vault.epoch))
            except (SecretsLocked, PermissionDenied) as error:
                log.info("%s has no key of the secrets: %s", helper, error.message)
            else:
                return False
        return not self.opened

    def unlock(self, request: UnlockRequest, peer: Identity) -> UnlockReply:
        """Help `peer`, a control node, to the vault's key: by taking our layer off its own box; or, if its key or ours is not what it was
        sealed for, by sealing the key for what it has now. Never by opening what it brings. Raises PermissionDenied, SecretsLocked."""
        vault = self._vault()
        if vault is None or vault.epoch != request.epoch:
            raise SecretsLocked(f"{self._me} knows another key than number {request.epoch}", host=self._me)
        public = told(self._keepers(), peer.name)
        if peer.kind is not Kind.NODE or public is None or peer.name not in self._voters():
            raise PermissionDenied(f"{peer} is no control node whose key is known", host=self._me)
        try:
            sealed = self._sealed_for(vault, peer.name, public)
        except SecretError as error:
            raise SecretsLocked(f"{self._me} cannot open its part: {error.message}", host=self._me) from error
        log.info("%s opens the secrets' key %d with our help", peer.name, request.epoch)
        return UnlockReply(sealed=sealed)

    def _sealed_for(self, vault: Vault, node: str, public: bytes) -> bytes:
        """Raises SecretsLocked, SecretError."""
        boxes = [box for box in vault.boxes if box.node == node and box.helper == self._me]
        if boxes and vault.keepers[node] == public and vault.keepers[self._me] == self.public:
            return take_layer_off(self._cluster, vault.epoch, boxes[0], self._own())
        if self._held is None or not self.opened:
            raise SecretsLocked(f"{self._me} has not opened the secrets itself", host=self._me)
        return seal_vault_key(self._cluster, self._held, node, public)

    def _own(self) -> Hidden:
        if self._private is None:
            self._private = _read_or_make(self._path)
        return self._private


def _read_or_make(path: Path) -> Hidden:
    """Readable by root alone, and never half written."""
    try:
        found = read_or_make(path, lambda: new_private().data)
    except OSError as error:
        raise SecretError(f"{path} cannot be made or read: {error.strerror}") from error
    return _checked(Hidden(found), path)


def _checked(key: Hidden, path: Path) -> Hidden:
    if len(key.data) != KEY:
        raise SecretError(
            f"{path} is damaged: it has {len(key.data)} bytes, not {KEY}", fix=f"rm {path}; systemctl restart hypermesh-agent"
        )
    return key
