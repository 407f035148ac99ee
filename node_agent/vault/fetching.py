"""What this node needs of the cluster's secrets, asked of the control nodes: each value with a key made for that one request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from hmcore.apps.secrets import Credentials, FetchReply, FetchRequest, Sort, decode_credentials
from hmcore.apps.spec import Source
from hmcore.errors import HyperMeshError, InvalidRequest, PermissionDenied, SecretError, SecretsLocked
from node_agent.vault.sealing import Hidden, new_private, public_of, take_value

T = TypeVar("T")
Ask = Callable[[str, FetchRequest], Awaitable[FetchReply]]


class Fetching:
    """Of node `me`."""

    def __init__(self, me: str, ask: Ask, *, control_nodes: Callable[[], Sequence[str]]) -> None:
        """`ask` a control node by name, this one among them; it must end by itself, and raises HyperMeshError. `control_nodes`: those that
        a call would reach now."""
        self._me = me
        self._ask = ask
        self._control_nodes = control_nodes

    async def value(self, allocation: str, sort: Sort, source: str, wanted: Source) -> Hidden:
        """What the app calls `source`, for a replica that is on this node: the version that `wanted` names, whatever has been set since.

        Raises SecretsLocked when no control node gives it now, PermissionDenied or InvalidRequest when they say that none will.
        """
        private = new_private()
        request = FetchRequest(sort=sort, source=source, public=public_of(private), allocation=allocation)

        def take(reply: FetchReply) -> Hidden:
            if (reply.name, reply.digest) != (wanted.name, wanted.digest):
                raise SecretError(f"{source} is answered with another {sort} than was deployed")
            return take_value(reply.box, reply.sealed, private, self._me, sort, wanted.name, wanted.digest)

        return await self._from_any(request, take)

    async def credentials(self, host: str) -> Credentials | None:
        """For a registry (hmcore.apps.secrets.registry_of); None: the cluster has none. Raises what `value` raises."""
        private = new_private()
        request = FetchRequest(sort="registry", source=host, public=public_of(private))

        def take(reply: FetchReply) -> Credentials | None:
            if not reply.box:
                return None
            value = take_value(reply.box, reply.sealed, private, self._me, "registry", host, reply.digest)
            return decode_credentials(value.data)

        return await self._from_any(request, take)

    async def _from_any(self, request: FetchRequest, take: Callable[[FetchReply], T]) -> T:
        """One that lags behind may not know yet what is on this node, so its refusal counts only if all refuse."""
        failures: list[tuple[str, HyperMeshError]] = []
        for name in self._in_turn():
            try:
                return take(await self._ask(name, request))
            except HyperMeshError as error:
                failures.append((name, error))
        what = f"the {request.sort} {request.source}"
        said = "; ".join(f"{name}: {error.message}" for name, error in failures) or "none is within reach"
        if failures and all(isinstance(error, PermissionDenied | InvalidRequest) for _, error in failures):
            raise type(failures[-1][1])(f"no control node gives {what}: {said}")
        raise SecretsLocked(f"no control node gives {what} now: {said}", fix="hmctl status")

    def _in_turn(self) -> Sequence[str]:
        """Each node begins with another one."""
        names = sorted(self._control_nodes())
        first = sum(self._me.encode()) % len(names) if names else 0
        return names[first:] + names[:first]
