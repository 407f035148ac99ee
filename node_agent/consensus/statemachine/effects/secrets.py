"""Secrets and the vault's key: all of it ciphertext. Who may open what is decided before (node_agent/vault)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from hmcore.apps.records import Generation
from hmcore.apps.secrets import MOST_SECRET, Keeper, Secret, Sort, Vault, secret_key
from hmcore.apps.spec import AppSpec, Source
from hmcore.records import Node, Role
from node_agent.consensus.statemachine.commands import Applied, Refused, Result
from node_agent.consensus.statemachine.secretcommands import PutKeeper, PutSecret, RemoveSecret, TurnKey
from node_agent.consensus.statemachine.state import Draft, Entry, State

VAULT = "vault"  # the key of the one record of its table
PUBLIC = 32  # bytes of a public key
MOST_SECRETS = 2000  # versions, of all names: what wraps their keys is replaced by one command
MOST_IN_ALL = 64 << 20  # bytes of all values: every control node holds them in memory
APP_SORTS: tuple[Sort, ...] = ("secret", "config")
_OVERHEAD = 256  # bytes that sealing may add to a value


def put_keeper(draft: Draft, command: PutKeeper, entry: Entry) -> Result:
    node: Node | None = draft.table("nodes").get(command.node)
    if node is None or node.role is not Role.CONTROL:
        return Refused(f"{command.node} is no control node")
    if len(command.public) != PUBLIC:
        return Refused(f"a public key has {PUBLIC} bytes, this one {len(command.public)}")
    before: Keeper | None = draft.table("keepers").get(command.node)
    if before is not None and before.public == command.public:
        return Applied(changed=False)
    draft.put("keepers", command.node, Keeper(node=command.node, public=command.public, index=entry.index))
    return Applied()


def turn_key(draft: Draft, command: TurnKey, entry: Entry) -> Result:
    """All or nothing: no secret is ever left wrapped with a key that is not in its box."""
    before = vault_of(draft)
    epoch = 0 if before is None else before.epoch
    keepers: Mapping[str, Keeper] = draft.table("keepers")
    secrets: Mapping[str, Secret] = draft.table("secrets")
    if command.basis != epoch:
        return Refused(f"the vault's key is number {epoch} by now, not {command.basis}")
    if not command.keepers or any(node not in keepers or keepers[node].public != key for node, key in command.keepers.items()):
        return Refused("the keys of the control nodes are others by now")
    if {(box.node, box.helper) for box in command.boxes} != _pairs(command.keepers):
        return Refused("not a box for each pair of control nodes")
    if set(command.wraps) != (set() if command.lost else {key for key, each in secrets.items() if each.wrapped}):
        return Refused("the secrets are others by now")
    for key, secret in list(secrets.items()):
        if secret.wrapped:
            draft.put("secrets", key, replace(secret, wrapped=command.wraps.get(key, b"")))
    vault = Vault(epoch=epoch + 1, keepers=dict(command.keepers), boxes=command.boxes, index=entry.index)
    draft.put("vault", VAULT, vault)
    names = ", ".join(sorted(command.keepers))
    if command.lost:
        draft.record(entry, "secrets.lost", names, "nobody could open the secrets any more: each must be set anew")
    else:
        draft.record(entry, "secrets.key-turned", names, f"key {vault.epoch} of the secrets is sealed for {names}")
    return Applied()


def _pairs(keepers: Mapping[str, bytes]) -> set[tuple[str, str]]:
    if len(keepers) == 1:
        return {(node, "") for node in keepers}
    return {(node, helper) for node in keepers for helper in keepers if node != helper}


def put_secret(draft: Draft, command: PutSecret, entry: Entry) -> Result:
    vault = vault_of(draft)
    if vault is None or vault.epoch != command.epoch:
        return Refused(f"the secrets' key is number {vault.epoch if vault else 0} by now, not {command.epoch}")
    if command.size > MOST_SECRET or len(command.sealed) > MOST_SECRET + _OVERHEAD or not command.wrapped:
        return Refused(f"a {command.sort} holds {MOST_SECRET} bytes at most")
    key = secret_key(command.sort, command.name, command.digest)
    before: Secret | None = draft.table("secrets").get(key)
    if before is not None and before.current and before.wrapped and before.note == command.note:
        return Applied(changed=False)
    if (full := _full(draft, key, command)) is not None:
        return full
    for other_key, other in list(_versions(draft, command.sort, command.name)):
        if other.current:
            draft.put("secrets", other_key, replace(other, current=False))
    draft.put(
        "secrets",
        key,
        Secret(
            sort=command.sort,
            name=command.name,
            digest=command.digest,
            size=command.size,
            sealed=command.sealed,
            wrapped=command.wrapped,
            note=command.note,
            author=entry.author,
            unix_time=entry.unix_time,
            index=entry.index,
        ),
    )
    forget_unused(draft)
    draft.record(entry, f"{command.sort}.set", command.name, "it has another value" if before is None else "it has an earlier value again")
    return Applied()


def _full(draft: Draft, key: str, command: PutSecret) -> Refused | None:
    """Beside what stays: the version before makes room for this one, unless a generation refers to it."""
    replaced = {other for other, _ in _versions(draft, command.sort, command.name)} - _referred(draft) | {key}
    others = [each for other, each in draft.table("secrets").items() if other not in replaced]
    if len(others) >= MOST_SECRETS:
        return Refused(f"{MOST_SECRETS} secrets and configs are kept, no more")
    if sum(len(each.sealed) for each in others) + len(command.sealed) > MOST_IN_ALL:
        return Refused(f"all secrets and configs together may hold {MOST_IN_ALL >> 20} MiB, and are full")
    return None


def remove_secret(draft: Draft, command: RemoveSecret, entry: Entry) -> Result:
    if apps := users(draft.finish(entry.index), command.sort, command.name):
        return Refused(f"the {command.sort} {command.name} is used by {', '.join(apps)}")
    versions = [key for key, _ in _versions(draft, command.sort, command.name)]
    for key in versions:
        draft.remove("secrets", key)
    if not versions:
        return Applied(changed=False)
    draft.record(entry, f"{command.sort}.removed", command.name, "it is kept no longer")
    return Applied()


def users(state: State, sort: Sort, name: str) -> list[str]:
    """The apps that use any version of it."""
    return sorted(all_users(state).get((sort, name), ()))


def all_users(state: State) -> dict[tuple[Sort, str], set[str]]:
    """The apps that use something, by sort and name: by what they shall be, were last when they were well, or still run."""
    wanted = {f"{app.name}@{number}" for app in state.apps.values() for number in (app.generation, app.healthy)}
    wanted |= {f"{each.app}@{each.generation}" for each in state.allocations.values()}
    found: dict[tuple[Sort, str], set[str]] = {}
    for made in (made for key, made in state.generations.items() if key in wanted):
        for sort in APP_SORTS:
            for source in sources(made.spec, sort).values():
                found.setdefault((sort, source.name), set()).add(made.app)
    return found


def missing(draft: Draft, spec: AppSpec) -> str | None:
    """What an app cannot be without, in words."""
    secrets: Mapping[str, Secret] = draft.table("secrets")
    for sort in APP_SORTS:
        for source in sources(spec, sort).values():
            found = secrets.get(secret_key(sort, source.name, source.digest))
            if found is None:
                return f"there is no {sort} {source.name} with the digest {source.digest or '(none)'}"
            if not found.wrapped:
                return f"the {sort} {source.name} is lost, and must be set anew"
    return None


def forget_unused(draft: Draft) -> None:
    """Versions that are neither current nor any generation's."""
    old = [key for key, each in draft.table("secrets").items() if not each.current]
    if not old:
        return
    kept = _referred(draft)
    for key in old:
        if key not in kept:
            draft.remove("secrets", key)


def _referred(draft: Draft) -> set[str]:
    return {key for made in draft.table("generations").values() for key in _keys(made)}


def forget_app(draft: Draft, name: str) -> None:
    """What the app brought along goes with it."""
    for key in [key for key, each in draft.table("secrets").items() if each.sort != "registry" and each.name.startswith(f"{name}/")]:
        draft.remove("secrets", key)
    forget_unused(draft)


def forget_keeper(draft: Draft, node: str) -> None:
    if node in draft.table("keepers"):
        draft.remove("keepers", node)


def vault_of(draft: Draft) -> Vault | None:
    return draft.table("vault").get(VAULT)


def _versions(draft: Draft, sort: Sort, name: str) -> Iterator[tuple[str, Secret]]:
    prefix = secret_key(sort, name, "")
    return ((key, each) for key, each in draft.table("secrets").items() if key.startswith(prefix))


def _keys(made: Generation) -> Iterator[str]:
    yield from (secret_key("secret", source.name, source.digest) for source in made.spec.secrets.values())
    yield from (secret_key("config", source.name, source.digest) for source in made.spec.configs.values())


def sources(spec: AppSpec, sort: Sort) -> Mapping[str, Source]:
    match sort:
        case "secret":
            return spec.secrets
        case "config":
            return spec.configs
        case "registry":
            return {}
