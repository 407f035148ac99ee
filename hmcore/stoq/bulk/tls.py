"""Who is at the other end of a bulk connection: TLS 1.3, both ends with the certificates that they have for QUIC, and the same check of
them (hmcore/pki.py). OpenSSL verifies the chain, the dates, the usage and, for the dialer, the name; then we do."""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime

from cryptography import x509

from hmcore import pki
from hmcore.errors import AnotherNode, HandshakeRefused, PkiError
from hmcore.pki import Identity
from hmcore.stoq.mtls import Credentials, brief

ALPN = "stoq-bulk/1"  # a client of another protocol, or QUIC's, gets nowhere


def context(credentials: Credentials, *, serving: bool) -> ssl.SSLContext:
    """Raises PkiError for credentials that are none."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if serving else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.check_hostname = not serving
    made.set_alpn_protocols([ALPN])
    if serving:
        made.num_tickets = 0  # every connection shows its certificate anew
    try:
        if not credentials.ca:
            raise PkiError("no cluster CA: nobody could be verified")
        made.load_verify_locations(cadata=credentials.ca.decode("ascii"))
        with _readable(credentials.certificate + b"\n" + credentials.key) as path:
            made.load_cert_chain(path)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise PkiError(f"the certificate or key cannot be used: {error}") from error
    return made


def judge(connection: ssl.SSLObject, authority: bytes, *, cluster: str, server: Identity | None) -> Identity:
    """Whom the other end's certificate was issued to. A dialer insists that it is `server`; an acceptor gives None.

    Raises AnotherNode, or HandshakeRefused with the reason.
    """
    shown = connection.getpeercert(binary_form=True)
    try:
        if shown is None:
            raise PkiError("a certificate of the cluster is required")
        if connection.selected_alpn_protocol() != ALPN:
            raise PkiError(f"it does not speak {ALPN}")
        try:
            certificate = x509.load_der_x509_certificate(shown)
        except ValueError as error:
            raise PkiError(f"not a certificate: {error}") from error
        identity = pki.verify(certificate, authority, datetime.now(UTC), cluster=cluster, serving=server is not None)
    except PkiError as error:
        raise HandshakeRefused(brief(error.message), host=server.name if server else None) from error
    if server is not None and identity != server:
        raise AnotherNode(f"the certificate belongs to {identity}, not to {server}", found=identity.name, host=server.name)
    return identity


@contextlib.contextmanager
def _readable(secret: bytes) -> Iterator[str]:
    """A path from which `secret` can be read, as OpenSSL's bindings want it; on no disk where that can be had."""
    if sys.platform == "linux":
        with open(os.memfd_create("credentials"), "wb", buffering=0) as file:
            file.write(secret)
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as file:  # only its owner may read it
            file.write(secret)
            file.flush()
            yield file.name
