"""Who gets a certificate, what it says, and who is turned away: the refusals that the cluster's security rests on."""

import contextlib
import functools
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from hmcore import pki
from hmcore.errors import PkiError
from hmcore.pki import Identity, KeyPair, Kind

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ID = "hm-abc123defg"
NODE = Identity(ID, Kind.NODE, "node1")
OPERATOR = Identity(ID, Kind.OPERATOR, "alice")
VIEWER = Identity(ID, Kind.VIEWER, "bob")
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def authority():
    return pki.create_authority(ID, NOW)


@pytest.fixture(scope="module")
def node_key():
    return pki.create_key()


@pytest.fixture(scope="module")
def node(authority, node_key):
    return pki.sign_request(authority, pki.create_request(node_key, NODE), NODE, NOW)


def verify(certificate, authority, now=NOW, *, cluster=ID, serving=True):
    return pki.verify(certificate, authority.certificate, now, cluster=cluster, serving=serving)


def parsed(certificate):
    return x509.load_pem_x509_certificate(certificate)


def extension(certificate, kind):
    return parsed(certificate).extensions.get_extension_for_class(kind)


# What is issued


def test_a_nodes_certificate_says_who_it_is_and_nothing_else(node, node_key, authority):
    assert verify(node, authority) == verify(node, authority, serving=False) == pki.read_identity(node) == NODE
    names = extension(node, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node1.hm-abc123defg.hm"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["hypermesh://hm-abc123defg/node/node1"]
    assert len(names) == 2
    assert pki.public_key(node) == pki.public_key(node_key)
    constraints = extension(node, x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    usage = extension(node, x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign


@pytest.mark.parametrize("identity", [OPERATOR, VIEWER], ids=str)
def test_operators_and_viewers_can_call_but_never_serve(authority, identity):
    issued = pki.issue(authority, identity, NOW)
    assert verify(issued.certificate, authority, serving=False) == identity
    with pytest.raises(PkiError, match="may not be used to accept connections"):
        verify(issued.certificate, authority, serving=True)
    assert list(extension(issued.certificate, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_the_authority_can_sign_certificates_but_no_further_authorities(authority):
    constraints = extension(authority.certificate, x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert extension(authority.certificate, x509.KeyUsage).value.key_cert_sign
    assert pki.read_authority(authority.certificate) == ID
    assert pki.public_key(authority.certificate) == pki.public_key(authority.key)


def test_no_two_certificates_are_the_same(authority, node_key):
    request = pki.create_request(node_key, NODE)
    first, second = (pki.sign_request(authority, request, NODE, NOW) for _ in range(2))
    assert parsed(first).serial_number != parsed(second).serial_number
    assert pki.fingerprint(first) != pki.fingerprint(second)
    assert pki.create_authority(ID, NOW) != pki.create_authority(ID, NOW)


@pytest.mark.parametrize(("identity", "days"), [(NODE, 730), (OPERATOR, 365), (VIEWER, 365)], ids=str)
def test_lifetimes(authority, identity, days):
    issued = pki.issue(authority, identity, NOW).certificate
    assert pki.valid_until(issued) == NOW + days * DAY
    assert pki.valid_until(authority.certificate) == NOW + 3650 * DAY
    assert parsed(issued).not_valid_before_utc == NOW - timedelta(hours=1), "a clock that lags can use it at once"


def test_openssl_accepts_the_chain(authority, node):
    """A second opinion: cryptography's own path validation, with the DNS name that dialers ask for."""
    store = x509.verification.Store([parsed(authority.certificate)])
    builder = x509.verification.PolicyBuilder().store(store).time(NOW)
    chain = builder.build_server_verifier(x509.DNSName(NODE.dns)).verify(parsed(node), [])
    assert len(chain) == 2
    with pytest.raises(x509.verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("node2.hm-abc123defg.hm")).verify(parsed(node), [])


# When it is renewed


@pytest.mark.parametrize("identity", [NODE, OPERATOR], ids=str)
def test_renewal_begins_when_a_third_is_left(authority, identity):
    certificate = pki.issue(authority, identity, NOW).certificate
    start, end = parsed(certificate).not_valid_before_utc, parsed(certificate).not_valid_after_utc
    at = start + (end - start) * 2 / 3
    assert not pki.needs_renewal(certificate, NOW)
    assert not pki.needs_renewal(certificate, at - SECOND)
    assert pki.needs_renewal(certificate, at + SECOND)
    assert pki.needs_renewal(certificate, end + DAY)


# Who is turned away


def test_a_strangers_authority(node):
    with pytest.raises(PkiError, match="signed by another CA"):
        verify(node, pki.create_authority(ID, NOW))


def test_an_authority_that_only_bears_the_same_name(authority, node_key):
    """Same subject, other key: the signature decides, not the name."""
    stranger = pki.create_authority(ID, NOW)
    forged = pki.sign_request(stranger, pki.create_request(node_key, NODE), NODE, NOW)
    assert parsed(forged).issuer == parsed(authority.certificate).subject
    with pytest.raises(PkiError, match="signed by another CA"):
        verify(forged, authority)


def test_a_certificate_signed_by_a_nodes_key(authority, node, node_key):
    """A node is no authority: what it signs convinces nobody, whether it is shown with the CA or with the node's certificate."""
    victim = Identity(ID, Kind.OPERATOR, "root")
    forged = pki.issue(KeyPair(node, node_key), victim, NOW).certificate
    with pytest.raises(PkiError, match="signed by another CA"):
        verify(forged, authority, serving=False)


def test_a_self_signed_certificate(authority, node_key):
    with pytest.raises(PkiError, match="signed by another CA"):
        verify(crafted(KeyPair(b"", node_key), node_key, self_signed=True), authority)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (NOW + 730 * DAY, "expired on 2028-11-21"),
        (NOW + 5000 * DAY, "expired"),
        (NOW - timedelta(hours=1, seconds=1), r"not valid before .* are the clocks right\?"),
        (NOW - 365 * DAY, "not valid before"),
    ],
)
def test_outside_its_time(node, authority, now, reason):
    with pytest.raises(PkiError, match=reason):
        verify(node, authority, now)


@pytest.mark.parametrize("now", [NOW - timedelta(minutes=59), NOW + 730 * DAY - SECOND])
def test_at_the_edges_of_its_time(node, authority, now):
    assert verify(node, authority, now) == NODE


def test_an_authority_that_expired(node_key):
    old = pki.create_authority(ID, NOW - 3000 * DAY)
    certificate = pki.sign_request(old, pki.create_request(node_key, NODE), NODE, NOW)
    assert verify(certificate, old, NOW) == NODE
    with pytest.raises(PkiError, match="expired"):
        verify(certificate, old, NOW + 650 * DAY)  # the node's own would be good for 80 more days


def test_another_cluster(authority, node_key):
    other = Identity("hm-other00000", Kind.NODE, "node1")
    certificate = pki.sign_request(authority, pki.create_request(node_key, other), other, NOW)
    with pytest.raises(PkiError, match=f"belongs to cluster hm-other00000, this is {ID}"):
        verify(certificate, authority)


@pytest.mark.parametrize(
    ("usages", "serving", "reason"),
    [
        ([ExtendedKeyUsageOID.SERVER_AUTH], False, "may not be used to make connections"),
        ([ExtendedKeyUsageOID.CLIENT_AUTH], True, "may not be used to accept connections"),
        ([ExtendedKeyUsageOID.EMAIL_PROTECTION], True, "may not be used"),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], True, "may not be used"),
        (None, True, "carries no extended key usage"),
        (None, False, "carries no extended key usage"),
    ],
)
def test_the_wrong_usage(authority, node_key, usages, serving, reason):
    with pytest.raises(PkiError, match=reason):
        verify(crafted(authority, node_key, usages=usages), authority, serving=serving)


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["https://example.org/node1"],
        ["hypermesh://hm-abc123defg/node/node1", "hypermesh://hm-abc123defg/operator/root"],
        ["hypermesh://hm-abc123defg/root/node1"],
        ["hypermesh://hm-abc123defg/node/node1/"],
        ["hypermesh://hm-abc123defg/node/NODE1"],
        ["hypermesh://hm-abc123defg/node/-"],
        ["hypermesh://hm-abc123defg/node/node1?x"],
        ["xhypermesh://hm-abc123defg/node/node1"],
        None,
    ],
)
def test_a_certificate_that_names_nobody_or_several(authority, node_key, uris):
    certificate = crafted(authority, node_key, uris=uris)
    with pytest.raises(PkiError):
        verify(certificate, authority)


# What a request may ask for: nothing


def test_names_in_a_request_are_ignored(authority, node_key):
    """A node that asks for an operator's certificate, or for a CA's, gets a node's."""
    wanted = [
        x509.DNSName("*.hm-abc123defg.hm"),
        x509.UniformResourceIdentifier("hypermesh://hm-abc123defg/operator/root"),
    ]
    key = serialization.load_pem_private_key(node_key, None)
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]))
        .add_extension(x509.SubjectAlternativeName(wanted), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    issued = pki.sign_request(authority, request, NODE, NOW)
    assert verify(issued, authority) == NODE
    assert parsed(issued).subject.rfc4514_string() == "CN=node1"
    assert not extension(issued, x509.BasicConstraints).value.ca
    assert b"root" not in parsed(issued).public_bytes(serialization.Encoding.DER)


def test_a_request_that_somebody_changed_is_refused(authority, node_key):
    request = x509.load_pem_x509_csr(pki.create_request(node_key, NODE))
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[der.index(b"node1")] = ord("m")
    changed = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(PkiError, match="not signed by"):
        pki.sign_request(authority, changed, NODE, NOW)


@pytest.mark.parametrize(
    "make", [lambda: rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate], ids=["rsa", "ed25519"]
)
def test_a_request_for_another_kind_of_key_is_refused(authority, make):
    key = make()
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, algorithm)
    with pytest.raises(PkiError, match="elliptic-curve"):
        pki.sign_request(authority, request.public_bytes(serialization.Encoding.PEM), NODE, NOW)


# Bytes from elsewhere


@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=60).map(lambda b: b"-----BEGIN CERTIFICATE-----\n" + b + b"\n-----END CERTIFICATE-----\n"),
    )
)
def test_any_bytes_are_judged_or_refused(content):
    identity = NODE
    for judge in (
        lambda: pki.read_identity(content),
        lambda: pki.read_authority(content),
        lambda: pki.public_key(content),
        lambda: pki.fingerprint(content),
        lambda: pki.valid_until(content),
        lambda: pki.verify(content, content, NOW, cluster=ID, serving=True),
        lambda: pki.sign_request(KeyPair(content, content), content, identity, NOW),
    ):
        with pytest.raises(PkiError):
            judge()


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(st.integers(0, 2000), st.integers(0, 255))
@example(12, 1)  # the version: a library raises something of its own
def test_a_certificate_with_a_changed_byte_is_never_accepted_as_another(position, byte):
    authority, certificate, _ = _fixed()
    der = bytearray(ssl.PEM_cert_to_DER_cert(certificate.decode()))
    position %= len(der)
    unchanged = der[position] == byte
    der[position] = byte
    changed = ssl.DER_cert_to_PEM_cert(bytes(der)).encode()
    for judge in (pki.read_identity, pki.read_authority, pki.public_key, pki.valid_until, pki.fingerprint):
        with contextlib.suppress(PkiError):
            judge(changed)
    try:
        identity = verify(changed, authority)
    except PkiError:
        assert not unchanged
    else:
        assert identity == NODE  # an encoding that means the same


@given(st.integers(0, 2000), st.integers(0, 255))
def test_a_request_with_a_changed_byte_is_refused(position, byte):
    authority, certificate, request = _fixed()
    der = bytearray(x509.load_pem_x509_csr(request).public_bytes(serialization.Encoding.DER))
    position %= len(der)
    unchanged = der[position] == byte
    der[position] = byte
    changed = ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST").encode()
    try:
        issued = pki.sign_request(authority, changed, NODE, NOW)
    except PkiError:
        assert not unchanged
    else:
        assert pki.public_key(issued) == pki.public_key(certificate)


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a" * 64, "a.b", "a/b", "ä", "a\n"])
def test_names_are_dns_labels(name):
    with pytest.raises(PkiError):
        Identity(ID, Kind.NODE, name)
    with pytest.raises(PkiError):
        Identity(name, Kind.NODE, "node1")


def test_a_key_is_not_a_certificate_nor_the_other_way_round(authority, node):
    with pytest.raises(PkiError, match="not a certificate"):
        pki.read_identity(authority.key)
    with pytest.raises(PkiError, match="not a private key"):
        pki.create_request(node, NODE)
    with pytest.raises(PkiError, match="not the certificate of a HyperMesh CA"):
        pki.read_authority(node)


# Helpers


def crafted(
    authority, key_pem, *, uris=(NODE.uri,), usages=(ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH), self_signed=False
):
    """A certificate as our own code would never issue it, signed by `authority`."""
    key = serialization.load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node1")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if self_signed else parsed(authority.certificate).subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
    )
    if uris is not None:
        names = [x509.DNSName(NODE.dns), *map(x509.UniformResourceIdentifier, uris)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
    signing = key if self_signed else serialization.load_pem_private_key(authority.key, None)
    return builder.sign(signing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@functools.cache
def _fixed():
    """An authority, a node's certificate and the request that it was issued for: the same for every example."""
    authority, key = pki.create_authority(ID, NOW), pki.create_key()
    request = pki.create_request(key, NODE)
    return authority, pki.sign_request(authority, request, NODE, NOW), request
