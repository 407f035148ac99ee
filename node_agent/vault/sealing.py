"""How secrets are sealed. Composed of two things from the `cryptography` library: HPKE (RFC 9180: X25519, HKDF-SHA256, ChaCha20-Poly1305)
for what is for one node, and ChaCha20-Poly1305 (RFC 8439) for what is for whoever has a key.

    value --(a key of its own)--> Secret.sealed
    that key and the salt of its digest --(the vault's key)--> Secret.wrapped
    the vault's key --(node's public key)--(helper's public key)--> Box

Everything is bound to what it is (associated data, HPKE's `info`), so that nothing can be put in another's place. Keys in memory are
Hidden: they do not show in logs, tracebacks or reprs.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from hmcore.apps.secrets import Box, Secret, Sort, secret_key
from hmcore.errors import SecretError

KEY = 32  # bytes of every key here, and of a salt
_NONCE = 12
_ONCE = bytes(_NONCE)  # the nonce of a key that encrypts one thing only
_DIGEST = 16  # bytes


@dataclass(frozen=True, slots=True, repr=False)
class Hidden:
    """Bytes that nobody shall see by accident."""

    data: bytes

    def __repr__(self) -> str:
        return f"<{len(self.data)} hidden bytes>"


@dataclass(frozen=True, slots=True)
class VaultKey:
    epoch: int
    key: Hidden


@dataclass(frozen=True, slots=True)
class Inner:
    """What `Secret.wrapped` holds: the value's key, and the salt of the digests under its name."""

    key: Hidden
    salt: Hidden

    def joined(self) -> bytes:
        return self.key.data + self.salt.data


@dataclass(frozen=True, slots=True)
class Sealed:
    """A value, ready to be replicated. See hmcore.apps.secrets.Secret."""

    digest: str
    size: int
    sealed: bytes
    wrapped: bytes


def new_private() -> Hidden:
    """A private key (X25519)."""
    return Hidden(X25519PrivateKey.generate().private_bytes_raw())


def public_of(private: Hidden) -> bytes:
    """Raises SecretError."""
    return _private(private).public_key().public_bytes_raw()


def seal(value: bytes, public: bytes, purpose: bytes) -> bytes:
    """For the holder of `public`'s private key, who must know the `purpose`. Raises SecretError if it is no key."""
    try:
        return _suite().encrypt(value, X25519PublicKey.from_public_bytes(public), purpose)
    except ValueError as error:
        raise SecretError(f"not a public key: {error}") from error


def unseal(box: bytes, private: Hidden, purpose: bytes) -> Hidden:
    """Raises SecretError: of another key or purpose, or damaged."""
    try:
        return Hidden(_suite().decrypt(box, _private(private), purpose))
    except (InvalidTag, ValueError) as error:
        raise SecretError("the box is damaged, or not for us") from error


# --- the vault's key


def new_vault_key(epoch: int) -> VaultKey:
    return VaultKey(epoch, Hidden(os.urandom(KEY)))


def boxes_of(cluster: str, key: VaultKey, keepers: Mapping[str, bytes]) -> tuple[Box, ...]:
    """The key for each of the `keepers` (public keys by node) with the help of each other one; alone, if there is no other.

    Raises SecretError."""
    if len(keepers) == 1:
        return tuple(
            Box(node=node, sealed=seal(key.key.data, public, _inner(cluster, key.epoch, node))) for node, public in keepers.items()
        )
    made: list[Box] = []
    for node, helper in permutations(sorted(keepers), 2):
        inside = seal_vault_key(cluster, key, node, keepers[node])
        made.append(Box(node=node, helper=helper, sealed=seal(inside, keepers[helper], _outer(cluster, key.epoch, node, helper))))
    return tuple(made)


def seal_vault_key(cluster: str, key: VaultKey, node: str, public: bytes) -> bytes:
    """For `node` alone. Raises SecretError."""
    return seal(key.key.data, public, _inner(cluster, key.epoch, node))


def take_layer_off(cluster: str, epoch: int, box: Box, helper: Hidden) -> bytes:
    """What is left is for the box's node alone. Raises SecretError."""
    return unseal(box.sealed, helper, _outer(cluster, epoch, box.node, box.helper)).data


def open_vault(cluster: str, epoch: int, node: str, sealed: bytes, private: Hidden) -> VaultKey:
    """`sealed`: a box without its helper's layer. Raises SecretError."""
    return VaultKey(epoch, unseal(sealed, private, _inner(cluster, epoch, node)))


def _inner(cluster: str, epoch: int, node: str) -> bytes:
    return f"hypermesh vault\0{cluster}\0{epoch}\0{node}".encode()


def _outer(cluster: str, epoch: int, node: str, helper: str) -> bytes:
    return f"hypermesh vault box\0{cluster}\0{epoch}\0{node}\0{helper}".encode()


# --- values


def seal_value(vault: VaultKey, sort: Sort, name: str, value: bytes, salt: Hidden | None) -> Sealed:
    """`salt`: of the versions that there are under the name; None: there are none."""
    inner = Inner(Hidden(os.urandom(KEY)), salt or Hidden(os.urandom(KEY)))
    digest = digest_of(inner.salt, value)
    named = secret_key(sort, name, digest).encode()
    sealed = ChaCha20Poly1305(inner.key.data).encrypt(_ONCE, value, named)
    return Sealed(digest, len(value), sealed, _wrap(vault, inner, named))


def digest_of(salt: Hidden, value: bytes) -> str:
    """HMAC-SHA256, shortened; hexadecimal. Without the salt nobody can try out which value it may be of."""
    return hmac.digest(salt.data, value, "sha256")[:_DIGEST].hex()


def unwrap(vault: VaultKey, secret: Secret) -> Inner:
    """Raises SecretError."""
    nonce, box = secret.wrapped[:_NONCE], secret.wrapped[_NONCE:]
    try:
        return _parted(ChaCha20Poly1305(vault.key.data).decrypt(nonce, box, _wrapping(vault, secret.key.encode())))
    except (InvalidTag, ValueError) as error:
        raise SecretError(f"{secret.name} was not sealed with the key that we have") from error


def rewrap(old: VaultKey, new: VaultKey, secret: Secret) -> bytes:
    """Raises SecretError."""
    return _wrap(new, unwrap(old, secret), secret.key.encode())


def pass_on(inner: Inner, public: bytes, node: str, key: str) -> bytes:
    """To a node, for the request that brought `public`. `key`: of the secret in its table. Raises SecretError."""
    return seal(inner.joined(), public, _passing(node, key))


def take_value(box: bytes, sealed: bytes, private: Hidden, node: str, sort: Sort, name: str, digest: str) -> Hidden:
    """The value, from what a control node answered. Raises SecretError unless it is the one that has this digest."""
    key = secret_key(sort, name, digest)
    inner = _parted(unseal(box, private, _passing(node, key)).data)
    try:
        value = ChaCha20Poly1305(inner.key.data).decrypt(_ONCE, sealed, key.encode())
    except (InvalidTag, ValueError) as error:
        raise SecretError(f"{name} is damaged") from error
    if not hmac.compare_digest(digest_of(inner.salt, value), digest):
        raise SecretError(f"{name} is not what its digest says")
    return Hidden(value)


def _wrap(vault: VaultKey, inner: Inner, named: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + ChaCha20Poly1305(vault.key.data).encrypt(nonce, inner.joined(), _wrapping(vault, named))


def _wrapping(vault: VaultKey, named: bytes) -> bytes:
    return f"hypermesh secret\0{vault.epoch}\0".encode() + named


def _passing(node: str, key: str) -> bytes:
    return f"hypermesh delivery\0{node}\0{key}".encode()


def _parted(joined: bytes) -> Inner:
    """Raises SecretError."""
    if len(joined) != 2 * KEY:
        raise SecretError("what was sealed is no key")
    return Inner(Hidden(joined[:KEY]), Hidden(joined[KEY:]))


def _private(key: Hidden) -> X25519PrivateKey:
    try:
        return X25519PrivateKey.from_private_bytes(key.data)
    except ValueError as error:
        raise SecretError("not a private key") from error


def _suite() -> Suite:
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
