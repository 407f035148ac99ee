"""A node starts only as itself: every way in which certificate, key and configuration can disagree."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hmcore.errors import PkiError
from hmcore.pki import Identity, KeyPair, Kind, create_authority, create_key, create_request, issue, sign_request
from node_agent.transport.identity import expiry_reason, load_identity

NOW = datetime(2026, 11, 22, tzinfo=UTC)
CLUSTER = "hm-abc123defg"


@pytest.fixture(scope="module")
def authority() -> KeyPair:
    return create_authority(CLUSTER, NOW)


@pytest.fixture
def pki(tmp_path, authority):
    """A directory as `hmctl deploy` leaves it."""
    key = create_key()
    identity = Identity(CLUSTER, Kind.NODE, "node1")
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    (tmp_path / "node.key").write_bytes(key)
    (tmp_path / "node.pem").write_bytes(sign_request(authority, create_request(key, identity), identity, NOW))
    return tmp_path


def load(directory, *, cluster=CLUSTER, node="node1", now=NOW):
    return load_identity(directory, cluster=cluster, node=node, now=now)


def test_what_deploy_wrote_is_accepted(pki):
    loaded = load(pki)
    assert loaded.identity == Identity(CLUSTER, Kind.NODE, "node1")
    assert loaded.expires == NOW + timedelta(days=730)


@pytest.mark.parametrize("missing", ["ca.pem", "node.pem", "node.key"])
def test_a_missing_file_is_named_with_what_mends_it(pki, missing):
    (pki / missing).unlink()
    with pytest.raises(PkiError, match=rf"{missing} cannot be read: No such file") as caught:
        load(pki)
    assert caught.value.fix == "hmctl deploy"


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"node": "node2"}, "issued to node node1, this is node node2"),
        ({"cluster": "hm-other"}, "belongs to cluster hm-abc123defg"),
        ({"now": NOW + timedelta(days=800)}, "expired on 2028-11-21"),
        ({"now": NOW - timedelta(days=1)}, "not valid before"),
    ],
)
def test_a_certificate_that_does_not_fit_is_refused(pki, kwargs, reason):
    with pytest.raises(PkiError, match=reason):
        load(pki, **kwargs)


def test_a_key_of_another_certificate_is_refused(pki):
    (pki / "node.key").write_bytes(create_key())
    with pytest.raises(PkiError, match="belongs to another key"):
        load(pki)


def test_a_strangers_ca_is_refused(pki):
    (pki / "ca.pem").write_bytes(create_authority(CLUSTER, NOW).certificate)
    with pytest.raises(PkiError, match="another CA"):
        load(pki)


def test_an_operators_certificate_makes_no_node(pki, authority):
    operator = issue(authority, Identity(CLUSTER, Kind.OPERATOR, "node1"), NOW)
    (pki / "node.pem").write_bytes(operator.certificate)
    (pki / "node.key").write_bytes(operator.key)
    with pytest.raises(PkiError, match="may not be used to accept connections"):
        load(pki)


def test_garbage_is_a_typed_error(pki):
    (pki / "node.pem").write_bytes(b"\xff garbage")
    with pytest.raises(PkiError, match="not a certificate"):
        load(pki)


def test_expiry_is_announced_a_month_ahead():
    expires = NOW + timedelta(days=100)
    assert expiry_reason(expires, NOW) is None
    assert expiry_reason(expires, expires - timedelta(days=29)) == "the certificate expires on 2027-03-02: run `hmctl deploy`"
    assert expiry_reason(expires, expires) == "the certificate expired on 2027-03-02: run `hmctl deploy`"
