"""Who this node is: its certificate and key, read once and checked against the configuration before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from hmcore.errors import PkiError
from hmcore.files import read_or_make
from hmcore.pki import Identity, Kind, create_key, public_key, verify

EXPIRY_WARNING = timedelta(days=30)
_FIX = "hmctl deploy"


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """The node's name, vouched for by the cluster's CA, and what proves it (PEM)."""

    identity: Identity
    ca: bytes
    certificate: bytes
    key: bytes
    expires: datetime


def load_identity(directory: Path, *, cluster: str, node: str, now: datetime) -> NodeIdentity:
    """Read ca.pem, node.pem and node.key. Raises PkiError: unreadable, not ours, expired, or not belonging together."""
    ca, certificate, key = (_read(directory / name) for name in ("ca.pem", "node.pem", "node.key"))
    try:
        for serving in (True, False):
            identity = verify(certificate, ca, now, cluster=cluster, serving=serving)
        if identity.kind is not Kind.NODE or identity.name != node:
            raise PkiError(f"the certificate was issued to {identity}, this is node {node}")
        if public_key(certificate) != public_key(key):
            raise PkiError("the certificate belongs to another key")
    except PkiError as error:
        raise PkiError(f"{directory / 'node.pem'}: {error.message}", fix=_FIX) from error
    return NodeIdentity(identity, ca, certificate, key, x509.load_pem_x509_certificate(certificate).not_valid_after_utc)


def expiry_reason(expires: datetime, now: datetime) -> str | None:
    """Why the certificate's age makes the node degraded; None while there is time."""
    if now >= expires:
        return f"the certificate expired on {expires:%Y-%m-%d}: run `{_FIX}`"
    if expires - now <= EXPIRY_WARNING:
        return f"the certificate expires on {expires:%Y-%m-%d}: run `{_FIX}`"
    return None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PkiError(f"{path} cannot be read: {error.strerror}", fix=_FIX) from error


def node_key(directory: Path) -> bytes:
    """This node's private key (PEM), made now if there is none: readable by root alone, and never half written."""
    path = directory / "node.key"
    try:
        return read_or_make(path, create_key)
    except OSError as error:
        raise PkiError(f"{path} cannot be made: {error.strerror}", fix="run this as root") from error
