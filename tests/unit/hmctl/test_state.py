"""The operator's folder: never a second CA or bootstrap id, never readable by others, whole after any interruption."""

import contextlib
import json
import os
import stat
from datetime import UTC, datetime, timedelta

import pytest

from hmcore import pki
from hmcore.errors import FormationFailed, HyperMeshError, PkiError, UsageError
from hmctl import files, state
from hmctl.failure import explain
from hmctl.state import OperatorStore, Place

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ID = "hm-abc123defg"


@pytest.fixture
def store(tmp_path):
    return OperatorStore.open(ID, tmp_path / "data")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_opening_a_store_leaves_no_trace(store):
    assert not store.has_authority()
    assert store.formed_at is None
    assert not store.folder.exists()


def test_nobody_else_can_read_the_keys(store):
    store.create_authority(NOW)
    store.operator_credentials(NOW)
    store.bootstrap()
    assert mode(store.folder) == 0o700
    for path in store.folder.iterdir():
        assert mode(path) == 0o600, path


def test_a_key_that_others_can_read_is_refused(store):
    store.create_authority(NOW)
    (store.folder / "ca.key").chmod(0o644)
    with pytest.raises(PkiError, match="others can read"):
        store.authority()


def test_the_authority_is_made_once(store):
    made = store.create_authority(NOW)
    assert store.authority() == made
    with pytest.raises(UsageError, match="already"):
        store.create_authority(NOW)
    assert store.authority() == made


def test_without_an_authority_the_way_to_get_it_is_named(store):
    with pytest.raises(PkiError) as refused:
        store.authority()
    assert "hmctl ca import" in str(refused.value.fix)
    with pytest.raises(PkiError):
        store.operator_credentials(NOW)
    assert not store.folder.exists()


def test_an_interruption_before_the_certificate_leaves_no_authority(store, monkeypatch):
    written = []
    real = files.write

    def only_the_key(path, content, **options):
        if path.name == "ca.pem":
            raise KeyboardInterrupt
        real(path, content, **options)
        written.append(path.name)

    monkeypatch.setattr(files, "write", only_the_key)
    with pytest.raises(KeyboardInterrupt):
        store.create_authority(NOW)
    assert written == ["ca.key"]
    assert not store.has_authority()
    monkeypatch.setattr(files, "write", real)
    assert store.create_authority(NOW) == store.authority()


def test_the_authority_of_another_cluster_is_refused(store, tmp_path):
    other = OperatorStore.open("hm-other00000", tmp_path / "data")
    other.create_authority(NOW)
    other.folder.rename(store.folder)
    with pytest.raises(PkiError, match="belongs to cluster hm-other00000"):
        store.authority()


def test_a_key_of_another_authority_is_refused(store):
    store.create_authority(NOW)
    files.write(store.folder / "ca.key", pki.create_key())
    with pytest.raises(PkiError, match="do not belong together"):
        store.authority()


def test_the_operators_certificate_is_kept_until_a_third_is_left(store):
    authority = store.create_authority(NOW)
    first = store.operator_credentials(NOW)
    assert store.operator_credentials(NOW + timedelta(days=200)) == first
    renewed = store.operator_credentials(NOW + timedelta(days=300))
    assert renewed != first
    later = NOW + timedelta(days=500)
    identity = pki.verify(renewed.certificate, authority.certificate, later, cluster=ID, serving=False)
    assert identity.kind is pki.Kind.OPERATOR


@pytest.mark.parametrize("damage", ["certificate", "key", "expired"])
def test_an_operators_certificate_that_is_no_good_is_issued_anew(store, damage):
    store.create_authority(NOW)
    first = store.operator_credentials(NOW)
    now = NOW + timedelta(days=400) if damage == "expired" else NOW
    if damage == "certificate":
        files.write(store.folder / "operator.pem", b"torn")
    elif damage == "key":  # as after an interruption between the two writes
        files.write(store.folder / "operator.key", pki.create_key())
    again = store.operator_credentials(now)
    assert again != first
    assert pki.public_key(again.certificate) == pki.public_key(again.key)


def test_without_the_cas_key_a_valid_certificate_still_serves(store):
    store.create_authority(NOW)
    issued = store.operator_credentials(NOW)
    (store.folder / "ca.key").unlink()
    assert not store.has_authority()
    assert store.operator_credentials(NOW + timedelta(days=360)) == issued
    with pytest.raises(PkiError, match="not on this machine"):
        store.operator_credentials(NOW + timedelta(days=366))


def test_the_bootstrap_id_is_made_once(store, tmp_path):
    first = store.bootstrap()
    assert first
    assert store.bootstrap() == first
    assert OperatorStore.open(ID, tmp_path / "data").bootstrap() == first
    assert OperatorStore.open("hm-other00000", tmp_path / "data").bootstrap() != first


def test_a_formation_is_recorded_once(store):
    store.bootstrap()
    store.mark_formed(NOW)
    store.mark_formed(NOW + timedelta(days=1))
    assert store.formed_at == NOW


def test_a_damaged_record_is_never_replaced_by_a_fresh_one(store):
    store.bootstrap()
    path = store.folder / "cluster.json"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(HyperMeshError, match="damaged"):
        store.bootstrap()
    with pytest.raises(HyperMeshError, match="damaged"):
        store.mark_formed(NOW)


def test_what_was_exported_can_be_imported_elsewhere(store, tmp_path):
    store.create_authority(NOW)
    bootstrap = store.bootstrap()
    store.mark_formed(NOW)
    store.known_hosts.write_text("10.0.0.1 ssh-ed25519 AAAA\n")
    file = tmp_path / "ca.json"
    store.export(file)
    assert mode(file) == 0o600

    for _ in range(2):  # again is harmless
        there = OperatorStore.import_(file, tmp_path / "elsewhere")
    assert there.authority() == store.authority()
    assert there.bootstrap() == bootstrap
    assert there.formed_at == NOW
    assert there.known_hosts.read_text() == store.known_hosts.read_text()
    assert not (there.folder / "operator.pem").exists()


def test_export_overwrites_nothing(store, tmp_path):
    store.create_authority(NOW)
    file = tmp_path / "ca.json"
    file.write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        store.export(file)
    assert file.read_text() == "precious"
    assert set(os.listdir(tmp_path)) == {"data", "ca.json"}  # nothing is left beside it


def test_a_file_that_cannot_be_written_or_read_is_the_callers_mistake(store, tmp_path):
    store.create_authority(NOW)
    with pytest.raises(UsageError, match="cannot be written: No such file or directory") as caught:
        store.export(tmp_path / "nowhere" / "ca.json")
    assert caught.value.fix
    with pytest.raises(UsageError) as caught:
        OperatorStore.import_(tmp_path / "nofile")
    assert explain(caught.value)[0].endswith("nofile cannot be read: No such file or directory")
    assert explain(caught.value)[1:] == ["  fix: name the file that `hmctl ca export` wrote"]


def test_import_never_replaces_another_authority(store, tmp_path):
    store.create_authority(NOW)
    file = tmp_path / "ca.json"
    store.export(file)
    here = OperatorStore.open(ID, tmp_path / "elsewhere")
    mine = here.create_authority(NOW)
    with pytest.raises(PkiError, match="another CA"):
        OperatorStore.import_(file, tmp_path / "elsewhere")
    assert here.authority() == mine


def exported(store, path, *, formed):
    store.bootstrap()
    if formed:
        store.mark_formed(NOW)
    store.export(path)


@pytest.mark.parametrize(("formed_here", "formed_there"), [(False, False), (False, True), (True, False)])
def test_of_two_bootstrap_ids_the_one_that_formed_the_cluster_stays(tmp_path, formed_here, formed_there):
    there = OperatorStore.open(ID, tmp_path / "there")
    there.create_authority(NOW)
    bare = tmp_path / "bare.json"
    there.export(bare)
    here = OperatorStore.import_(bare, tmp_path / "here")
    mine = here.bootstrap()
    if formed_here:
        here.mark_formed(NOW)
    exported(there, tmp_path / "full.json", formed=formed_there)
    OperatorStore.import_(tmp_path / "full.json", tmp_path / "here")
    assert here.bootstrap() == (mine if formed_here else there.bootstrap())


PLACES = [Place("node2", "10.0.0.2", 7443), Place("node1", "10.0.0.1", 7443)]


def test_who_was_asked_to_form_stays_until_the_cluster_is_given_up(tmp_path):
    store = OperatorStore.open(ID, tmp_path)
    first = store.bootstrap()
    assert store.voters is None
    store.begin_formation(PLACES)
    store.begin_formation(reversed(PLACES))
    again = OperatorStore.open(ID, tmp_path)
    for others in (PLACES[:1], [*PLACES, Place("node3", "10.0.0.3", 7443)], [PLACES[0], Place("node1", "10.0.0.9", 7443)]):
        with pytest.raises(FormationFailed, match=r"node1 \(10.0.0.1:7443\) and node2") as caught:
            again.begin_formation(others)
        assert "hmctl reset" in (caught.value.fix or "")
    assert again.voters == tuple(sorted(PLACES))
    assert again.formed_at is None
    again.forget_formation()
    assert store.voters is None
    assert store.bootstrap() != first


def test_who_was_asked_to_form_is_exported_too(tmp_path):
    there = OperatorStore.open(ID, tmp_path / "there")
    there.create_authority(NOW)
    there.bootstrap()
    there.begin_formation(PLACES)
    there.export(tmp_path / "ca.json")
    here = OperatorStore.import_(tmp_path / "ca.json", tmp_path / "here")
    assert here.voters == there.voters
    assert here.bootstrap() == there.bootstrap()


@pytest.mark.parametrize("begun_there", [False, True])
def test_a_formation_that_was_begun_here_is_not_lost_by_an_import(tmp_path, begun_there):
    there = OperatorStore.open(ID, tmp_path / "there")
    there.create_authority(NOW)
    there.export(tmp_path / "bare.json")
    here = OperatorStore.import_(tmp_path / "bare.json", tmp_path / "here")
    mine = here.bootstrap()
    here.begin_formation(PLACES)
    there.bootstrap()
    if begun_there:
        there.begin_formation(PLACES)
    there.export(tmp_path / "full.json")
    with pytest.raises(HyperMeshError, match="formed twice") if begun_there else contextlib.nullcontext():
        OperatorStore.import_(tmp_path / "full.json", tmp_path / "here")
    assert (here.bootstrap(), here.voters) == (mine, tuple(sorted(PLACES)))


def test_one_bootstrap_id_with_two_lists_is_not_merged(tmp_path):
    there = OperatorStore.open(ID, tmp_path / "there")
    there.create_authority(NOW)
    there.bootstrap()
    there.export(tmp_path / "early.json")
    here = OperatorStore.import_(tmp_path / "early.json", tmp_path / "here")
    here.begin_formation(PLACES)
    there.begin_formation(PLACES[:1])
    there.export(tmp_path / "late.json")
    with pytest.raises(HyperMeshError, match="two lists of control nodes"):
        OperatorStore.import_(tmp_path / "late.json", tmp_path / "here")
    assert here.voters == tuple(sorted(PLACES))


def test_two_formations_of_one_cluster_are_not_merged(tmp_path):
    there = OperatorStore.open(ID, tmp_path / "there")
    there.create_authority(NOW)
    there.export(tmp_path / "bare.json")
    here = OperatorStore.import_(tmp_path / "bare.json", tmp_path / "here")
    mine = here.bootstrap()
    here.mark_formed(NOW)
    exported(there, tmp_path / "full.json", formed=True)
    with pytest.raises(HyperMeshError, match="formed twice"):
        OperatorStore.import_(tmp_path / "full.json", tmp_path / "here")
    assert here.bootstrap() == mine


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(format="something-else/1"),
        lambda document: document.update(cluster="../../etc"),
        lambda document: document.update(cluster="hm-other00000"),
        lambda document: document.update(key=pki.create_key().decode()),
        lambda document: document.update(certificate="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        lambda document: document.pop("key"),
    ],
)
def test_an_export_that_was_tampered_with_is_refused(store, tmp_path, change):
    store.create_authority(NOW)
    file = tmp_path / "ca.json"
    store.export(file)
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    with pytest.raises((PkiError, UsageError)):
        OperatorStore.import_(file, tmp_path / "elsewhere")
    assert not list((tmp_path / "elsewhere").rglob("ca.*"))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[1]"])
def test_what_is_no_export_is_refused(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(UsageError, match="was not written by"):
        OperatorStore.import_(tmp_path / "f", tmp_path)


@pytest.mark.parametrize("cluster", ["", "..", "a/b", "A", "a" * 64])
def test_a_cluster_id_never_leads_out_of_the_folder(tmp_path, cluster):
    with pytest.raises(UsageError):
        OperatorStore.open(cluster, tmp_path)


def test_the_data_folder_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert state.data_folder() == tmp_path / "hypermesh"
    monkeypatch.setenv("HOME", "/home/alice")
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_DATA_HOME", ignored)
        assert str(state.data_folder()) == "/home/alice/.local/share/hypermesh"


@pytest.mark.parametrize(("login", "name"), [("alice", "alice"), ("Al.Ice_2", "al-ice-2"), ("___", "operator"), ("x" * 80, "x" * 63)])
def test_the_operators_name_is_a_dns_label(monkeypatch, login, name):
    monkeypatch.setenv("SUDO_USER", login)
    assert state.operator_name() == name
    pki.Identity(ID, pki.Kind.OPERATOR, state.operator_name())
