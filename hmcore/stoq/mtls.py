"""Who gets in: mutual TLS, finished by us. aioquic's server never asks for a certificate unless told to by a private flag, and then
neither requires one nor checks who signed it. docs/adr/0002 says which private parts we rely on and how we notice when they change.

Both ends judge the other's certificate inside the TLS handshake, so that a refusal reaches the other end with its reason, and before
any byte of the application is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicProtocolVersion
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hmcore import pki
from hmcore.errors import PkiError
from hmcore.pki import Identity

ALPN = "stoq/1"
IDLE_TIMEOUT = 15.0  # seconds without a packet; a dialer pings three times as often
DATAGRAM = 1350  # bytes of UDP payload: fits into Ethernet's 1500 with a VXLAN or WireGuard header and IPv6
KEY_EXCHANGE = tls.Group.X25519  # RFC 7748
REASON = 300  # characters of a reason that are sent or believed


@dataclass(frozen=True, slots=True)
class Credentials:
    """The cluster's CA, our certificate and its key, all PEM."""

    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)


class Verdict(msgspec.Struct):
    """What the handshake found out. `identity` is set once the certificate was accepted, `refused` if it was not; `instead` if that was
    because it is a good one, of another."""

    identity: Identity | None = None
    refused: str | None = None
    instead: Identity | None = None


def configuration(credentials: Credentials, *, server: Identity | None) -> QuicConfiguration:
    """For dialling `server`, or (None) for accepting. Raises PkiError for credentials that are none."""
    try:
        certificate = x509.load_pem_x509_certificate(credentials.certificate)
        key = load_pem_private_key(credentials.key, password=None)
    except (ValueError, TypeError) as error:
        raise PkiError(f"the certificate or key cannot be read: {error}") from error
    if not credentials.ca:
        raise PkiError("no cluster CA: without one aioquic would trust the public certificate authorities")
    return QuicConfiguration(
        is_client=server is not None,
        server_name=server.dns if server else None,
        alpn_protocols=[ALPN],
        certificate=certificate,
        private_key=key,
        cadata=credentials.ca,
        idle_timeout=IDLE_TIMEOUT,
        max_datagram_size=DATAGRAM,
        supported_versions=[QuicProtocolVersion.VERSION_1],
    )


def judge(quic: QuicConnection, authority: bytes, *, cluster: str, server: Identity | None) -> Verdict:
    """Make `quic` demand and check the other end's certificate. A dialer insists that it is `server`'s."""
    verdict = Verdict()

    def check(certificate: x509.Certificate | None) -> None:
        try:
            if certificate is None:
                raise PkiError("a certificate of the cluster is required")
            identity = pki.verify(certificate, authority, datetime.now(UTC), cluster=cluster, serving=server is not None)
            if server is not None and identity != server:
                verdict.instead = identity
                raise PkiError(f"the certificate belongs to {identity}, not to {server}")
            tls.verify_certificate(certificate, cadata=authority)  # a second opinion, OpenSSL's, on the chain and the dates
        except (PkiError, tls.Alert) as error:
            verdict.refused = brief(str(error))
            raise tls.AlertBadCertificate(verdict.refused) from error
        verdict.identity = identity

    _on_certificate(quic, check, serving=server is None)
    return verdict


def _on_certificate(quic: QuicConnection, check: Callable[[x509.Certificate | None], None], *, serving: bool) -> None:
    """Call `check` with the other end's certificate when it arrives, or with None when it sent none.

    aioquic makes its TLS context in `_initialize` (again after a Retry packet). A name that is gone raises AttributeError there: no
    handshake succeeds any more, none goes unchecked.
    """
    initialize = quic._initialize
    handler_name = "_server_handle_certificate" if serving else "_client_handle_certificate"

    def initialized(*args: Any, **kwargs: Any) -> None:
        initialize(*args, **kwargs)
        context = quic.tls
        handle = getattr(context, handler_name)
        if serving:
            assert context._request_client_certificate is False
            context._request_client_certificate = True
        else:  # one key exchange is offered, not a key for each of four: they are made anew for every connection
            context._supported_groups = [group for group in context._supported_groups if group is KEY_EXCHANGE] or context._supported_groups

        def checked(*args: Any, **kwargs: Any) -> None:
            handle(*args, **kwargs)
            check(context._peer_certificate)

        setattr(context, handler_name, checked)

    quic._initialize = initialized  # type: ignore[method-assign]


def brief(reason: str) -> str:
    """A reason fit for a packet and a log line: one line, printable, bounded."""
    return "".join(c if c.isprintable() else " " for c in reason.encode("utf-8", "replace")[:REASON].decode("utf-8", "ignore"))
