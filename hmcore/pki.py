"""Issue and verify the cluster's certificates. Bytes in (PEM), bytes out; the time is an argument.

One CA per cluster, kept by the operator. A certificate says who its holder is in its URI SAN, `hypermesh://<cluster>/<kind>/<name>`,
and carries the DNS SAN `<name>.<cluster>.hm` for TLS's own name check. Nodes serve and call; operators and viewers only call: their
certificates cannot be used to impersonate a node (extended key usage, RFC 5280 section 4.2.1.12).
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hmcore.errors import PkiError

CA_LIFETIME = timedelta(days=3650)
NODE_LIFETIME = timedelta(days=730)
OPERATOR_LIFETIME = timedelta(days=365)
BACKDATE = timedelta(hours=1)  # so that a node whose clock lags can use its certificate at once
RENEW_AT = 1 / 3  # of the lifetime left

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_URI = re.compile(r"hypermesh://([a-z0-9-]{1,63})/(node|operator|viewer)/([a-z0-9-]{1,63})")
_PEM = serialization.Encoding.PEM
# What the library raises for a certificate that is well formed, but not as anybody should write one. It has no common base.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class Kind(StrEnum):
    """Whom a certificate was issued to; decides what its holder may call."""

    NODE = "node"
    OPERATOR = "operator"
    VIEWER = "viewer"


class Identity(msgspec.Struct, frozen=True):
    """Who somebody is: `name` within `cluster` (its id). Raises PkiError unless both are DNS labels."""

    cluster: str
    kind: Kind
    name: str

    def __post_init__(self) -> None:
        for label in (self.cluster, self.name):
            if not _NAME.fullmatch(label):
                raise PkiError(f"{label!r} is no name: lower-case letters, digits and inner hyphens, 63 at most")

    @property
    def uri(self) -> str:
        return f"hypermesh://{self.cluster}/{self.kind}/{self.name}"

    @property
    def dns(self) -> str:
        return f"{self.name}.{self.cluster}.hm"

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class KeyPair(msgspec.Struct, frozen=True):
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


def create_key() -> bytes:
    """A new private key (ECDSA P-256), PEM (PKCS 8)."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def create_authority(cluster: str, now: datetime) -> KeyPair:
    """A new CA for the cluster with id `cluster`, valid for ten years from `now`."""
    key_pem = create_key()
    key = _load_key(key_pem)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "HyperMesh CA"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster)])
    certificate = (
        _builder(name, name, key.public_key(), now, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(certificate.public_bytes(_PEM), key_pem)


def create_request(key: bytes, identity: Identity) -> bytes:
    """A certificate signing request (PEM) for the holder of `key`. The CA decides what the certificate will say."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.name)])
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(_load_key(key), hashes.SHA256()).public_bytes(_PEM)


def sign_request(authority: KeyPair, request: bytes, identity: Identity, now: datetime) -> bytes:
    """The certificate (PEM) for `request`. Names and usages come from `identity`, never from the request.

    Raises PkiError when the request is no request or was not signed by the key it names.
    """
    try:
        csr = x509.load_pem_x509_csr(request)
        public, signed = csr.public_key(), csr.is_signature_valid
    except _UNREADABLE as error:
        raise PkiError(f"not a certificate request: {error}") from error
    if not signed or not isinstance(public, ec.EllipticCurvePublicKey):
        raise PkiError("the certificate request is not signed by an elliptic-curve key of its own")
    return _issue(authority, public, identity, now)


def issue(authority: KeyPair, identity: Identity, now: datetime) -> KeyPair:
    """A key made here and its certificate: for operators, whose key is born where the CA is."""
    key = create_key()
    return KeyPair(_issue(authority, _load_key(key).public_key(), identity, now), key)


def read_identity(certificate: bytes | x509.Certificate) -> Identity:
    """Whom `certificate` (PEM or parsed) was issued to. Raises PkiError unless it carries exactly one of our URIs. Verifies nothing."""
    parsed = certificate if isinstance(certificate, x509.Certificate) else _load_certificate(certificate)
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except _UNREADABLE as error:
        raise PkiError("the certificate says not whom it was issued to") from error
    uris = [match for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if (match := _URI.fullmatch(uri))]
    if len(uris) != 1:
        raise PkiError("the certificate was not issued by a HyperMesh CA: it carries no hypermesh:// name")
    return Identity(uris[0][1], Kind(uris[0][2]), uris[0][3])


def read_authority(certificate: bytes) -> str:
    """The id of the cluster whose CA certificate (PEM) this is. Raises PkiError if it is no CA of ours."""
    parsed = _load_certificate(certificate)
    try:
        names = [str(name.value) for name in parsed.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        is_authority = parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except _UNREADABLE:
        names, is_authority = [], False
    if not is_authority or len(names) != 1:
        raise PkiError("this is not the certificate of a HyperMesh CA")
    return names[0]


def verify(certificate: bytes | x509.Certificate, authority: bytes, now: datetime, *, cluster: str, serving: bool) -> Identity:
    """Whom `certificate` was issued to, if the CA `authority` (PEM) vouches for it now, for this cluster and this use.

    `serving` asks for a certificate that may accept connections (serverAuth), otherwise one that may make them (clientAuth).
    Raises PkiError with the reason: stranger's CA, expired, not yet valid, of another cluster, or wrong usage.
    """
    parsed = certificate if isinstance(certificate, x509.Certificate) else _load_certificate(certificate)
    issuer = _load_certificate(authority)
    try:
        parsed.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_UNREADABLE) as error:
        raise PkiError("the certificate was signed by another CA") from error
    if now >= parsed.not_valid_after_utc or now >= issuer.not_valid_after_utc:
        raise PkiError(f"the certificate expired on {min(parsed.not_valid_after_utc, issuer.not_valid_after_utc):%Y-%m-%d %H:%M} UTC")
    if now < parsed.not_valid_before_utc:
        raise PkiError(f"the certificate is not valid before {parsed.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: are the clocks right?")
    identity = read_identity(parsed)
    if identity.cluster != cluster:
        raise PkiError(f"the certificate belongs to cluster {identity.cluster}, this is {cluster}")
    wanted = ExtendedKeyUsageOID.SERVER_AUTH if serving else ExtendedKeyUsageOID.CLIENT_AUTH
    try:
        usages = parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except _UNREADABLE as error:
        raise PkiError("the certificate carries no extended key usage") from error
    if wanted not in usages:
        raise PkiError(f"the certificate may not be used to {'accept' if serving else 'make'} connections")
    return identity


def needs_renewal(certificate: bytes, now: datetime) -> bool:
    """Whether a third of the certificate's lifetime, or less, is left."""
    parsed = _load_certificate(certificate)
    lifetime = parsed.not_valid_after_utc - parsed.not_valid_before_utc
    return parsed.not_valid_after_utc - now <= lifetime * RENEW_AT


def public_key(pem: bytes) -> bytes:
    """The public key (DER) of a private key or certificate (PEM): to tell whether they belong together."""
    try:
        key = _load_certificate(pem).public_key() if b"CERTIFICATE" in pem else _load_key(pem).public_key()
    except _UNREADABLE as error:
        raise PkiError(f"not a public key that we know: {error}") from error
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of the certificate, hexadecimal."""
    return _load_certificate(certificate).fingerprint(hashes.SHA256()).hex()


def valid_until(certificate: bytes) -> datetime:
    """When the certificate (PEM) expires, in UTC."""
    return _load_certificate(certificate).not_valid_after_utc


def _issue(authority: KeyPair, public: ec.EllipticCurvePublicKey, identity: Identity, now: datetime) -> bytes:
    issuer = _load_certificate(authority.certificate)
    lifetime = NODE_LIFETIME if identity.kind is Kind.NODE else OPERATOR_LIFETIME
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if identity.kind is Kind.NODE:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    signing = _load_key(authority.key)
    certificate = (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.name)]), issuer.subject, public, now, lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(identity.dns), x509.UniformResourceIdentifier(identity.uri)]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .sign(signing, hashes.SHA256())
    )
    return certificate.public_bytes(_PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + lifetime)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _load_certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except _UNREADABLE as error:
        raise PkiError(f"not a certificate: {error}") from error


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except _UNREADABLE as error:
        raise PkiError(f"not a private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError("the private key is not an elliptic-curve key")
    return key
