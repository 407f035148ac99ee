"""Secrets, configs and registry credentials: what is kept of them, and the calls about them (docs/adr/0082).

A value goes in by `secrets.put` and comes out sealed, to a node that runs what needs it; to nobody else, whatever the certificate says.
What anybody may read are names, sizes and digests, and those are keyed: they tell whether two values are the same, and nothing more.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from hmcore.api import ChangeReply, Method
from hmcore.errors import SecretError

MOST_SECRET = 500 << 10  # bytes of a value, as Docker has it
Sort = Literal["secret", "config", "registry"]  # each has names of its own; those of `registry` are hosts

_PART = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_NAME = re.compile(rf"{_PART}(?:/{_PART})?")
_HOST = re.compile(r"(?=.{1,128}\Z)[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?")
NAME_RULE = "1 to 64 letters, digits and _ . -, a letter or digit first; of what an app owns with the app's name and a / in front"
HOST_RULE = "a registry's host, with its port if it is another than HTTPS's"
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io", "hub.docker.com")


class Secret(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of a value. `digest` is keyed; equal ones under one name are equal values. `sealed`: the value, by a key of its own;
    `wrapped`: that key, by the vault's; empty: it is lost, and the value with it. `current`: what a deploy takes; other versions stay for
    as long as a generation refers to them. `size` in bytes; `note`: shown (of a registry its user)."""

    sort: Sort
    name: str
    digest: str
    size: int
    sealed: bytes
    wrapped: bytes
    current: bool = True
    note: str = ""
    author: str = ""
    unix_time: float = 0.0
    index: int = 0

    @property
    def key(self) -> str:
        """In the table."""
        return secret_key(self.sort, self.name, self.digest)


class Keeper(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A control node's public key (X25519, 32 bytes), told by itself over mutual TLS. The private one never leaves it."""

    node: str
    public: bytes
    index: int = 0


class Box(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The vault's key for `node`, sealed for it, and then once more for `helper`: neither can open it alone. Without a helper: of a cluster
    with one control node."""

    node: str
    sealed: bytes
    helper: str = ""


class Vault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The key that wraps those of all secrets, as it is now: its number `epoch`, and for which public keys of which nodes it was sealed."""

    epoch: int
    keepers: dict[str, bytes]
    boxes: tuple[Box, ...]
    index: int = 0


class Credentials(msgspec.Struct, frozen=True):
    """For a registry."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password=<hidden>)"


class PutSecretRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`dry`: only say what its digest would be, and whether that changes anything."""

    id: str
    sort: Sort
    name: str
    value: bytes
    note: str = ""
    dry: bool = False

    def __repr__(self) -> str:
        return f"PutSecretRequest(id={self.id!r}, sort={self.sort!r}, name={self.name!r}, value=<{len(self.value)} hidden bytes>)"


class PutSecretReply(msgspec.Struct, frozen=True, kw_only=True):
    """`digest` empty: nobody can tell yet what it would be. `apps`: those that use another version, until they are deployed again."""

    index: int
    changed: bool
    digest: str = ""
    apps: tuple[str, ...] = ()


class RemoveSecretRequest(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    sort: Sort
    name: str


class SecretsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`consistent`: linearizable, at the cost of a round between the control nodes."""

    consistent: bool = False


class SecretView(msgspec.Struct, frozen=True, kw_only=True):
    """The current version of a name. `versions`: how many are kept. `apps`: those that use any. `lost`: it must be set anew."""

    sort: Sort
    name: str
    digest: str
    size: int
    versions: int = 1
    lost: bool = False
    apps: tuple[str, ...] = ()
    note: str = ""
    author: str = ""
    unix_time: float = 0.0


class SecretsReply(msgspec.Struct, frozen=True, kw_only=True):
    """As of log index `index`. `keepers`: the control nodes for which the vault's key is sealed; none: there is no vault yet."""

    index: int
    secrets: list[SecretView]
    keepers: tuple[str, ...] = ()
    epoch: int = 0


class EnrolRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Of a control node, for itself: its public key."""

    public: bytes


class UnlockRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Take your layer off my box of this epoch."""

    epoch: int


class UnlockReply(msgspec.Struct, frozen=True, kw_only=True):
    """What is left is sealed for the one who asked."""

    sealed: bytes


class FetchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A value that the caller's replica `allocation` needs: `source` is its name in the app; of a registry its host, and no replica is
    named. `public`: a key made for this request (X25519)."""

    sort: Sort
    source: str
    public: bytes
    allocation: str = ""


class FetchReply(msgspec.Struct, frozen=True, kw_only=True):
    """`sealed`: as it is kept; `box`: its key, sealed for the request's. Without either: there are no credentials for that registry."""

    name: str = ""
    digest: str = ""
    sealed: bytes = b""
    box: bytes = b""


PUT_SECRET: Method[PutSecretRequest, PutSecretReply] = Method("secrets.put", PutSecretRequest, PutSecretReply)
REMOVE_SECRET: Method[RemoveSecretRequest, ChangeReply] = Method("secrets.remove", RemoveSecretRequest, ChangeReply)
LIST_SECRETS: Method[SecretsRequest, SecretsReply] = Method("secrets.list", SecretsRequest, SecretsReply)
ENROL: Method[EnrolRequest, ChangeReply] = Method("secrets.enrol", EnrolRequest, ChangeReply)
UNLOCK: Method[UnlockRequest, UnlockReply] = Method("secrets.unlock", UnlockRequest, UnlockReply)
FETCH: Method[FetchRequest, FetchReply] = Method("secrets.fetch", FetchRequest, FetchReply)


def secret_key(sort: Sort, name: str, digest: str) -> str:
    return f"{sort}:{name}#{digest}"


def why_no_name(sort: Sort, name: str) -> str | None:
    """Why `name` cannot be one; None: it can."""
    rule, wanted = (HOST_RULE, _HOST) if sort == "registry" else (NAME_RULE, _NAME)
    return None if wanted.fullmatch(name) else f"{name[:100]!r} is no name of a {sort}: {rule}"


def owned_name(app: str, source: str) -> str:
    """Under which the cluster keeps what an app brings along."""
    return f"{app}/{source}"


def registry_host(host: str) -> str:
    """As credentials are kept under: without scheme and path, Docker Hub by one name only."""
    bare = host.strip().lower().removeprefix("https://").removeprefix("http://").partition("/")[0]
    return "docker.io" if bare in _DOCKER_HUB else bare


def registry_of(image: str) -> str:
    """The registry that an image's name refers to, as `registry_host` writes it."""
    first, slash, _ = image.partition("/")
    named = bool(slash) and ("." in first or ":" in first or first == "localhost")
    return registry_host(first) if named else "docker.io"


_credentials: msgspec.json.Decoder[Credentials] = msgspec.json.Decoder(Credentials)


def encode_credentials(credentials: Credentials) -> bytes:
    """The value of a `registry` secret."""
    return msgspec.json.encode(credentials)


def decode_credentials(value: bytes) -> Credentials:
    """Raises SecretError, which does not say what it is instead."""
    try:
        return _credentials.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise SecretError("what is kept for the registry are no credentials", fix="hmctl secret set --help") from None
