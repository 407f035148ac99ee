"""What is sealed is opened by whom it was sealed for, as what it was sealed as, and by nobody else."""

from __future__ import annotations

import logging

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from hmcore.apps.secrets import Secret, secret_key
from hmcore.errors import SecretError
from node_agent.vault.sealing import (
    Hidden,
    Inner,
    VaultKey,
    boxes_of,
    digest_of,
    new_private,
    new_vault_key,
    open_vault,
    pass_on,
    public_of,
    rewrap,
    seal,
    seal_value,
    take_layer_off,
    take_value,
    unseal,
    unwrap,
)

NAMES = ("node1", "node2", "node3", "node4", "node5")
PRIVATE = {name: new_private() for name in NAMES}
PUBLIC = {name: public_of(key) for name, key in PRIVATE.items()}


def kept(vault: VaultKey, value: bytes, name: str = "db", salt: Hidden | None = None) -> Secret:
    made = seal_value(vault, "secret", name, value, salt)
    return Secret(sort="secret", name=name, digest=made.digest, size=made.size, sealed=made.sealed, wrapped=made.wrapped)


@given(st.binary(max_size=2000), st.binary(max_size=40))
def test_a_box_opens_for_its_key_and_purpose_alone(value, purpose):
    private, other = new_private(), new_private()
    box = seal(value, public_of(private), purpose)
    assert unseal(box, private, purpose).data == value
    for key, said in ((other, purpose), (private, purpose + b"x")):
        with pytest.raises(SecretError):
            unseal(box, key, said)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_box(noise):
    with pytest.raises(SecretError):
        unseal(noise, PRIVATE["node1"], b"")


@given(st.binary(max_size=40))
def test_any_bytes_are_a_key_or_an_error(noise):
    try:
        seal(b"value", noise, b"")
    except SecretError:
        assert len(noise) != 32 or not any(noise)


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_every_keeper_opens_the_vault_with_any_other_and_none_alone(data):
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=5, unique=True))
    key = new_vault_key(3)
    boxes = boxes_of("hm-a", key, {name: PUBLIC[name] for name in names})
    assert {(box.node, box.helper) for box in boxes} == {(a, b) for a in names for b in names if a != b}
    for box in boxes:
        left = take_layer_off("hm-a", 3, box, PRIVATE[box.helper])
        assert open_vault("hm-a", 3, box.node, left, PRIVATE[box.node]) == key
        for name in names:
            with pytest.raises(SecretError):  # the disk of one node: its key, and all boxes
                open_vault("hm-a", 3, box.node, box.sealed, PRIVATE[name])
            if name != box.helper:
                with pytest.raises(SecretError):
                    take_layer_off("hm-a", 3, box, PRIVATE[name])
            if name != box.node:
                with pytest.raises(SecretError):  # the helper does not learn it
                    open_vault("hm-a", 3, box.node, left, PRIVATE[name])


def test_the_only_control_node_opens_the_vault_alone():
    key = new_vault_key(1)
    (box,) = boxes_of("hm-a", key, {"node1": PUBLIC["node1"]})
    assert box.helper == ""
    assert open_vault("hm-a", 1, "node1", box.sealed, PRIVATE["node1"]) == key


def test_a_box_of_another_cluster_or_epoch_is_none():
    key = new_vault_key(1)
    (box,) = boxes_of("hm-a", key, {"node1": PUBLIC["node1"]})
    for cluster, epoch in (("hm-b", 1), ("hm-a", 2)):
        with pytest.raises(SecretError):
            open_vault(cluster, epoch, "node1", box.sealed, PRIVATE["node1"])


@given(st.binary(max_size=5000))
def test_a_value_arrives_where_it_was_sent(value):
    vault = new_vault_key(1)
    secret = kept(vault, value)
    assert secret.size == len(value)
    assert len(value) < 8 or value not in secret.sealed + secret.wrapped
    private = new_private()
    box = pass_on(unwrap(vault, secret), public_of(private), "node7", secret.key)
    assert take_value(box, secret.sealed, private, "node7", "secret", "db", secret.digest).data == value
    for node, name, digest in (("node8", "db", secret.digest), ("node7", "dc", secret.digest), ("node7", "db", "0" * 32)):
        with pytest.raises(SecretError):
            take_value(box, secret.sealed, private, node, "secret", name, digest)
    with pytest.raises(SecretError):
        take_value(box, secret.sealed[:-1] + bytes([secret.sealed[-1] ^ 1]), private, "node7", "secret", "db", secret.digest)


def test_a_value_that_was_sealed_under_the_digest_of_another_is_refused():
    key, private, digest = Hidden(b"k" * 32), new_private(), "0" * 32
    named = secret_key("secret", "db", digest)
    sealed = ChaCha20Poly1305(key.data).encrypt(bytes(12), b"value", named.encode())
    box = pass_on(Inner(key, Hidden(b"s" * 32)), public_of(private), "node7", named)
    with pytest.raises(SecretError, match="not what its digest says"):
        take_value(box, sealed, private, "node7", "secret", "db", digest)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_digests_tell_under_one_name_whether_values_are_the_same_and_nothing_under_another(one, other):
    vault = new_vault_key(1)
    first = kept(vault, one)
    salt = unwrap(vault, first).salt
    assert (kept(vault, other, salt=salt).digest == first.digest) == (one == other)
    assert kept(vault, one, "web").digest != first.digest


def test_a_secret_is_not_taken_for_another_nor_opened_with_another_key():
    vault, other = new_vault_key(1), new_vault_key(1)
    secret = kept(vault, b"value")
    swapped = Secret(sort="secret", name="web", digest=secret.digest, size=5, sealed=secret.sealed, wrapped=secret.wrapped)
    for key, found in ((other, secret), (vault, swapped), (VaultKey(2, vault.key), secret)):
        with pytest.raises(SecretError):
            unwrap(key, found)
    cut = Secret(sort="secret", name="db", digest=secret.digest, size=5, sealed=secret.sealed, wrapped=secret.wrapped[:5])
    with pytest.raises(SecretError):
        unwrap(vault, cut)


def test_a_turned_key_opens_the_same_and_the_old_one_no_more():
    old, new = new_vault_key(1), new_vault_key(2)
    secret = kept(old, b"value")
    turned = Secret(sort="secret", name="db", digest=secret.digest, size=5, sealed=secret.sealed, wrapped=rewrap(old, new, secret))
    assert unwrap(new, turned) == unwrap(old, secret)
    with pytest.raises(SecretError):
        unwrap(old, turned)


def test_keys_and_values_do_not_show(caplog):
    vault = VaultKey(1, Hidden(b"PRECIOUS" * 4))
    inner = Inner(Hidden(b"PRECIOUS" * 4), Hidden(b"PRECIOUS" * 4))
    logging.getLogger("x").warning("%r %s %r", vault, inner, [Hidden(b"PRECIOUS")])
    assert "PRECIOUS" not in caplog.text
    assert "hidden" in caplog.text
    assert digest_of(Hidden(b"s" * 32), b"PRECIOUS") == digest_of(Hidden(b"s" * 32), b"PRECIOUS")
