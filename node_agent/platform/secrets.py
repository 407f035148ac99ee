"""Operators' secrets, configs and registry credentials: sealed where the leader is, passed on by any control node to those that need them.

No call gives a value to anybody but a node, and to a node only what a replica needs that the cluster has placed there.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection

from hmcore.api import ChangeReply
from hmcore.apps.secrets import (
    MOST_SECRET,
    EnrolRequest,
    FetchReply,
    FetchRequest,
    PutSecretReply,
    PutSecretRequest,
    RemoveSecretRequest,
    Secret,
    SecretsReply,
    SecretsRequest,
    SecretView,
    Sort,
    UnlockReply,
    UnlockRequest,
    registry_of,
    secret_key,
    why_no_name,
)
from hmcore.apps.spec import ContainerSpec
from hmcore.errors import InvalidRequest, NotLeader, PermissionDenied, SecretsLocked, TooLarge
from hmcore.pki import Identity, Kind
from node_agent.consensus.statemachine.effects.secrets import all_users, sources
from node_agent.consensus.statemachine.secretcommands import PutSecret, RemoveSecret
from node_agent.consensus.statemachine.state import State
from node_agent.platform.changes import Changes, checked_reason, checked_request
from node_agent.vault.holder import Holder
from node_agent.vault.keeper import VaultKeeper, vault_of
from node_agent.vault.sealing import digest_of, pass_on, seal_value, unwrap

log = logging.getLogger(__name__)


class Secrets:
    def __init__(
        self,
        me: str,
        changes: Changes,
        *,
        holder: Holder | None,
        keeper: VaultKeeper | None,
        state: Callable[[], State | None],
        leader: Callable[[], str | None],
        barrier: Callable[[], Awaitable[object]],
    ) -> None:
        """`holder`, `keeper` and what `state` gives are None on a worker, which can open nothing."""
        self._me = me
        self._changes = changes
        self._holder = holder
        self._keeper = keeper
        self._state = state
        self._leader = leader
        self._barrier = barrier

    # --- operators

    async def put(self, request: PutSecretRequest, author: Identity) -> PutSecretReply:
        """Raises NotLeader, NoQuorum, InvalidRequest, TooLarge, LevelTooLow, SecretsLocked, SecretError."""
        self._changes.leading()
        checked_request(request.id)
        _check(request.sort, request.name)
        if len(request.value) > MOST_SECRET:
            raise TooLarge(f"a {request.sort} holds {MOST_SECRET} bytes at most, this one has {len(request.value)}")
        if request.dry:
            return await self._try(request)
        assert self._keeper is not None  # only a control node leads
        async with self._keeper.key() as vault:
            before = _current(self._read(), request.sort, request.name)
            salt = unwrap(vault, before).salt if before is not None and before.wrapped else None
            made = seal_value(vault, request.sort, request.name, request.value, salt)
            command = PutSecret(
                sort=request.sort,
                name=request.name,
                digest=made.digest,
                size=made.size,
                sealed=made.sealed,
                wrapped=made.wrapped,
                epoch=vault.epoch,
                note=checked_reason(request.note),
            )
            done = await self._changes.carry_out(command, request=request.id, author=author)
            state = self._read()
            kept = _current(state, request.sort, request.name)  # of a request that was asked again, the first one's
            digest = digest_of(unwrap(vault, kept).salt, request.value) if kept is not None and kept.wrapped else made.digest
        return PutSecretReply(
            index=done.index, changed=done.changed, digest=digest, apps=_behind(state, request.sort, request.name, digest)
        )

    async def _try(self, request: PutSecretRequest) -> PutSecretReply:
        state = self._read()
        before = _current(state, request.sort, request.name)
        if before is None or not before.wrapped:
            return PutSecretReply(index=state.index, changed=True)
        digest = digest_of(unwrap(await self._holding().key(), before).salt, request.value)
        apps = _behind(state, request.sort, request.name, digest)
        return PutSecretReply(index=state.index, changed=digest != before.digest, digest=digest, apps=apps)

    async def remove(self, request: RemoveSecretRequest, author: Identity) -> ChangeReply:
        """Raises what Changes.carry_out raises: InvalidRequest names the apps that use it."""
        _check(request.sort, request.name)
        return await self._changes.carry_out(RemoveSecret(sort=request.sort, name=request.name), request=request.id, author=author)

    async def list(self, request: SecretsRequest) -> SecretsReply:
        """Raises NotLeader on a worker, NoQuorum if it is to be consistent and cannot be."""
        if request.consistent:
            await self._barrier()
        state = self._read()
        vault = vault_of(state)
        used, versions = all_users(state), Counter((each.sort, each.name) for each in state.secrets.values())
        current = sorted((each for each in state.secrets.values() if each.current), key=lambda each: (each.sort, each.name))
        return SecretsReply(
            index=state.index,
            secrets=[_view(each, versions[each.sort, each.name], used.get((each.sort, each.name), set())) for each in current],
            keepers=tuple(sorted(vault.keepers)) if vault else (),
            epoch=vault.epoch if vault else 0,
        )

    # --- nodes

    async def enrol(self, request: EnrolRequest, author: Identity) -> ChangeReply:
        """A control node's key, by its own word. Raises NotLeader, HyperMeshError."""
        self._changes.leading()
        assert self._keeper is not None
        await self._keeper.admit(author.name, request.public)
        return ChangeReply(index=self._read().index, changed=True)

    async def unlock(self, request: UnlockRequest, author: Identity) -> UnlockReply:
        """Raises what Holder.unlock raises, SecretsLocked on a worker."""
        return self._holding().unlock(request, author)

    async def fetch(self, request: FetchRequest, author: Identity) -> FetchReply:
        """What `author`, a node, needs for what runs there. Raises PermissionDenied, NotLeader on a worker, SecretsLocked, SecretError."""
        state = self._read()
        if author.kind is not Kind.NODE:
            raise PermissionDenied("values are given to nodes only")
        if request.sort == "registry":
            secret = _of_registry(state, author.name, request.source)
            if secret is None:
                return FetchReply()
        else:
            secret = _of_replica(state, author.name, request)
        if not secret.wrapped:
            raise InvalidRequest(f"the {secret.sort} {secret.name} is lost, and must be set anew", fix="hmctl secret set --help")
        inner = unwrap(await self._holding().key(), secret)
        box = pass_on(inner, request.public, author.name, secret.key)
        log.info("%s gets the %s %s%s", author.name, secret.sort, secret.name, f" for {request.allocation}" if request.allocation else "")
        return FetchReply(name=secret.name, digest=secret.digest, sealed=secret.sealed, box=box)

    def _holding(self) -> Holder:
        if self._holder is None:
            raise SecretsLocked(f"{self._me} is a worker and can open no secrets")
        return self._holder

    def _read(self) -> State:
        found = self._state()
        if found is None:
            raise NotLeader(f"{self._me} is a worker and knows of no secrets", leader=self._leader())
        return found


def _of_replica(state: State, node: str, request: FetchRequest) -> Secret:
    """What an allocation on this node refers to. Raises PermissionDenied, InvalidRequest."""
    allocation = state.allocations.get(f"{node}/{request.allocation}")
    made = None if allocation is None else state.generations.get(f"{allocation.app}@{allocation.generation}")
    if allocation is None or made is None or allocation.stop:
        raise PermissionDenied(f"{node} runs no replica {request.allocation[:200]!r}, as far as is known here")
    container = made.spec.services[allocation.service].container if allocation.service in made.spec.services else None
    source = sources(made.spec, request.sort).get(request.source)
    if container is None or source is None or not _attached(container, request):
        raise PermissionDenied(f"{allocation.app}/{allocation.service} has no {request.sort} {request.source[:100]!r}")
    found = state.secrets.get(secret_key(request.sort, source.name, source.digest))
    if found is None:
        raise InvalidRequest(
            f"the {request.sort} {source.name} is not kept any more as it was", fix=f"hmctl app deploy of {allocation.app}"
        )
    return found


def _attached(container: ContainerSpec, request: FetchRequest) -> bool:
    return any(file.kind == request.sort and file.source == request.source for file in container.files)


def _of_registry(state: State, node: str, host: str) -> Secret | None:
    """For the vault's keepers, which ask registries what names mean before anything runs, and can open all secrets anyway (what a node says
    of its role does not count); of the others for those that run something whose image is from there. Raises PermissionDenied."""
    found, vault = _current(state, "registry", host), vault_of(state)
    if found is None or (vault is not None and node in vault.keepers) or _runs_of(state, node, host):
        return found
    raise PermissionDenied(f"{node} runs nothing of the registry {host[:100]!r}")


def _runs_of(state: State, node: str, host: str) -> bool:
    for allocation in state.allocations.values():
        made = state.generations.get(f"{allocation.app}@{allocation.generation}") if allocation.node == node else None
        service = None if made is None else made.spec.services.get(allocation.service)
        if service is not None and registry_of(service.container.image) == host:
            return True
    return False


def _current(state: State, sort: Sort, name: str) -> Secret | None:
    prefix = secret_key(sort, name, "")
    return next((each for key, each in state.secrets.items() if each.current and key.startswith(prefix)), None)


def _behind(state: State, sort: Sort, name: str, digest: str) -> tuple[str, ...]:
    """The apps that shall run with another version."""
    present = (state.generations.get(f"{app.name}@{app.generation}") for app in state.apps.values())
    return tuple(
        sorted(
            made.app
            for made in present
            if made is not None and any(source.name == name and source.digest != digest for source in sources(made.spec, sort).values())
        )
    )


def _view(secret: Secret, versions: int, apps: Collection[str]) -> SecretView:
    return SecretView(
        sort=secret.sort,
        name=secret.name,
        digest=secret.digest,
        size=secret.size,
        versions=versions,
        lost=not secret.wrapped,
        apps=tuple(sorted(apps)),
        note=secret.note,
        author=secret.author,
        unix_time=secret.unix_time,
    )


def _check(sort: Sort, name: str) -> None:
    if (why := why_no_name(sort, name)) is not None:
        raise InvalidRequest(why)
