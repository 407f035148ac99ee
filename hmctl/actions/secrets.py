"""Secrets, configs and registry credentials: set, listed, removed; and what an app brings along, given to the cluster before its deploy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
from msgspec.structs import replace

from hmcore.apps.secrets import (
    LIST_SECRETS,
    MOST_SECRET,
    PUT_SECRET,
    REMOVE_SECRET,
    PutSecretReply,
    PutSecretRequest,
    RemoveSecretRequest,
    SecretsReply,
    SecretsRequest,
    Sort,
    why_no_name,
)
from hmcore.apps.spec import AppSpec, Source
from hmcore.errors import HyperMeshError, InvalidRequest, NotLeader, TooLarge, UsageError
from hmcore.records import Role
from hmctl.actions.agents import Agents
from hmctl.actions.change import change, nobody_answers, request_id
from hmctl.client import Access, Via

if TYPE_CHECKING:
    from hmcore.api import ChangeReply
    from hmcore.config.inventory import Inventory
    from hmctl.state import OperatorStore

AppSort = Literal["secret", "config"]
LIMIT = f"{MOST_SECRET >> 10} KiB"


class SecretChange(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl secret set` and `rm`. `digest`: of the value that is current now, null once it is removed. `apps`: those that use another
    value until they are deployed again."""

    kind: Sort
    name: str
    changed: bool
    index: int
    digest: str | None = None
    apps: list[str] = []


class ListedSecret(msgspec.Struct, frozen=True, kw_only=True):
    """`size` in bytes, `versions`: how many are kept. `lost`: it must be set anew. `set_at`: seconds since 1970."""

    kind: Sort
    name: str
    digest: str
    size: int
    versions: int
    lost: bool
    apps: list[str]
    username: str | None
    set_by: str
    set_at: float


class SecretList(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl secret ls`: as of log index `index`. `keepers`: the control nodes that can open them, two together."""

    index: int
    keepers: list[str]
    secrets: list[ListedSecret]


class Calls(Protocol):
    async def put(self, sort: Sort, name: str, value: bytes, *, note: str = "", dry: bool = False) -> PutSecretReply: ...
    async def list(self) -> SecretsReply: ...


def _unheard(words: str) -> None:
    """Nobody wants to know."""


class SecretCalls:
    """To the cluster of an inventory. Values go to its leader alone."""

    def __init__(
        self, inventory: Inventory, store: OperatorStore, *, via: Via = Via.AUTO, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """`say` is told what is waited for, if that takes long."""
        self._inventory = inventory
        self._store = store
        self._via = via
        self._say = say

    async def put(self, sort: Sort, name: str, value: bytes, *, note: str = "", dry: bool = False) -> PutSecretReply:
        """`dry`: only what would come of it. Raises UsageError for what is no name, TooLarge, and what change() raises."""
        check_name(sort, name)
        if len(value) > MOST_SECRET:
            raise TooLarge(f"the {sort} {name} is too large: {LIMIT} ({MOST_SECRET} bytes) is the limit, this is {len(value)}")
        request = PutSecretRequest(id=f"{request_id()}:1", sort=sort, name=name, value=value, note=note, dry=dry)
        try:
            return await change(
                self._inventory, self._store, PUT_SECRET, request, via=self._via, say=self._say, look=f"hmctl secret ls {name}"
            )
        except InvalidRequest as error:  # the node that says so is not at fault
            raise type(error)(error.message, fix=error.fix) from error

    async def remove(self, sort: Sort, name: str) -> ChangeReply:
        """Raises UsageError, InvalidRequest that names the apps which use it, and what change() raises."""
        check_name(sort, name)
        request = RemoveSecretRequest(id=f"{request_id()}:1", sort=sort, name=name)
        try:
            return await change(
                self._inventory, self._store, REMOVE_SECRET, request, via=self._via, say=self._say, look=f"hmctl secret ls {name}"
            )
        except InvalidRequest as error:
            raise type(error)(error.message, fix=error.fix or f"hmctl secret ls {name} says which apps use it") from error

    async def list(self) -> SecretsReply:
        """By the control node that has applied most. Raises PeerUnreachable, CallRefused."""
        controls = [host for host in self._inventory.hosts if host.role is Role.CONTROL]
        async with Agents(self._inventory.hosts, Access.of(self._store, self._via), via=self._via) as agents:
            answers = await agents.ask_all(lambda agent: agent.call(LIST_SECRETS, SecretsRequest()), controls)
        said = [answer for answer in answers.values() if isinstance(answer, SecretsReply)]
        if not said:
            failures = [answer for answer in answers.values() if isinstance(answer, HyperMeshError)]
            raise nobody_answers([error for error in failures if not isinstance(error, NotLeader)] or failures)
        return max(said, key=lambda reply: reply.index)


def removable(reply: SecretsReply, sort: Sort, name: str) -> bool:
    """Whether it is there. Raises HyperMeshError while apps use it."""
    found = next((each for each in reply.secrets if (each.sort, each.name) == (sort, name)), None)
    if found is not None and found.apps:
        apps = list(found.apps)
        fix = f"deploy {', '.join(apps)} without it, or remove {'that' if len(apps) == 1 else 'those'}: hmctl app rm {apps[0]}"
        raise HyperMeshError(f"the {sort} {name} is used by {', '.join(apps)}", fix=fix)
    return found is not None


async def settle(calls: Calls, spec: AppSpec, contents: Mapping[tuple[AppSort, str], bytes], *, dry: bool) -> AppSpec:
    """`spec` with the digests of all secrets and configs, as the cluster tells them. `contents`: of those that the app brings along, by
    kind and name in the app; they are given to the cluster under the names that the spec has for them, unless it is `dry`: then digests
    of what is set for the first time stay empty.

    Raises UsageError with all that the cluster should have and does not, before anything is given to it; TooLarge; what calling raises.
    """
    kept = await calls.list() if spec.secrets or spec.configs else SecretsReply(index=0, secrets=[])
    known = {(each.sort, each.name): each.digest for each in kept.secrets if not each.lost}
    wanted = [(sort, name, source) for sort, sources in _both(spec) for name, source in sorted(sources.items())]
    if missing := [
        (sort, source.name) for sort, name, source in wanted if (sort, name) not in contents and (sort, source.name) not in known
    ]:
        words = ", ".join(f"the {sort} {name}" for sort, name in missing)
        sort, name = missing[0]
        raise UsageError(f"the cluster does not have {words}", fix=f"hmctl secret set {name}{' --config' if sort == 'config' else ''}")
    digests: dict[tuple[AppSort, str], str] = {}
    for sort, name, source in wanted:
        if (sort, name) in contents:
            digests[sort, name] = (await calls.put(sort, source.name, contents[sort, name], dry=dry)).digest
        else:
            digests[sort, name] = known[sort, source.name]

    def told(sort: AppSort, sources: Mapping[str, Source]) -> dict[str, Source]:
        return {name: replace(source, digest=digests[sort, name]) for name, source in sources.items()}

    return replace(spec, secrets=told("secret", spec.secrets), configs=told("config", spec.configs))


def _both(spec: AppSpec) -> tuple[tuple[AppSort, Mapping[str, Source]], ...]:
    return ("secret", spec.secrets), ("config", spec.configs)


def check_name(sort: Sort, name: str) -> None:
    """Raises UsageError."""
    if (why := why_no_name(sort, name)) is not None:
        raise UsageError(why, fix="hmctl secret set --help")


def listing(reply: SecretsReply, name: str = "") -> SecretList:
    """All, or what is called `name`, and what the app `name` owns."""
    chosen = [each for each in reply.secrets if not name or each.name == name or each.name.startswith(f"{name}/")]
    return SecretList(
        index=reply.index,
        keepers=list(reply.keepers),
        secrets=[
            ListedSecret(
                kind=each.sort,
                name=each.name,
                digest=each.digest,
                size=each.size,
                versions=each.versions,
                lost=each.lost,
                apps=list(each.apps),
                username=each.note or None if each.sort == "registry" else None,
                set_by=each.author,
                set_at=each.unix_time,
            )
            for each in chosen
        ],
    )
