"""What hmctl keeps of a lab's cluster goes with the lab; what it keeps of any other cluster never does."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from hmctl.lab import records
from hmctl.lab.state import LabState
from hmctl.state import OperatorStore, Place

NOW = datetime(2026, 11, 22, tzinfo=UTC)
LAB = LabState(name="lab", subnet=5, cluster_id="hm-thelab0000", image="", nodes=("node1",), inventory="")
INSIDE = Place("node1", "198.18.5.1", 7443)


@pytest.fixture
def store(tmp_path: Path) -> OperatorStore:
    """Of the lab's cluster, formed, beside that of another one."""
    for cluster in ("hm-precious00", LAB.cluster_id):
        store = OperatorStore.open(cluster, tmp_path)
        store.create_authority(NOW)
    store.begin_formation([INSIDE])
    return store


def test_the_ca_of_the_lab_goes_and_that_of_another_cluster_stays(store: OperatorStore, tmp_path: Path) -> None:
    assert records.forget(LAB, [tmp_path, tmp_path / "absent"]) == [records.Kept(store.folder)]
    assert [folder.name for folder in tmp_path.iterdir()] == ["hm-precious00"]
    assert OperatorStore.open("hm-precious00", tmp_path).has_authority()
    assert records.forget(LAB, [tmp_path]) == []


@pytest.mark.parametrize("address", ["198.18.6.2", "10.0.0.1", "node.example"])
def test_the_ca_of_a_cluster_that_has_other_machines_too_stays(address: str, tmp_path: Path) -> None:
    """Somebody edited the lab's inventory and deployed it to other hosts, under the lab's id."""
    store = OperatorStore.open(LAB.cluster_id, tmp_path)
    store.create_authority(NOW)
    store.begin_formation([INSIDE, Place("web", address, 7443)])
    (kept,) = records.forget(LAB, [tmp_path])
    assert kept.why is not None
    assert f"web ({address}:7443)" in kept.why
    assert "node1" not in kept.why
    assert store.has_authority()


def test_what_cannot_be_read_or_is_in_use_stays(store: OperatorStore, tmp_path: Path) -> None:
    with store.lock("deploy"):
        (kept,) = records.forget(LAB, [tmp_path])
    assert kept.why is not None
    assert "hmctl deploy" in kept.why
    (store.folder / "cluster.json").write_text("{")
    (kept,) = records.forget(LAB, [tmp_path])
    assert kept.why is not None
    assert "is damaged" in kept.why
    assert store.has_authority()


def test_under_sudo_the_callers_records_are_meant_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert records.data_folders({}) == [tmp_path / "hypermesh"]
    assert records.data_folders({"SUDO_USER": "no-such-user-here"}) == [tmp_path / "hypermesh"]
    assert records.data_folders({"SUDO_USER": "root"}) == [tmp_path / "hypermesh", Path("/root/.local/share/hypermesh")]
