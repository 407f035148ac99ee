"""How one gets into the hosts of a lab."""

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from hmctl.lab import access
from hmctl.lab.state import LabState


def design(inventory: Path) -> LabState:
    return LabState(name="lab", subnet=300, cluster_id="hm-abc123defg", image="0" * 16, nodes=("node1",), inventory=str(inventory))


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")
def test_the_key_is_made_once_and_one_that_is_half_made_is_made_anew(tmp_path):
    public = access.ensure_key(tmp_path, "lab")
    assert public.startswith("ssh-ed25519 ")
    assert public.split()[2] == "hypermesh-lab-lab"
    assert access.ensure_key(tmp_path, "lab") == public
    (tmp_path / "key.pub").unlink()
    assert access.ensure_key(tmp_path, "lab") != public


def test_every_inventory_that_was_asked_for_is_kept_up_to_date_and_removed_with_the_lab(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    asked, known = access.write_inventories(tmp_path, design(first))
    assert (asked, set(known.written)) == (True, {str(first)})
    wider = msgspec.structs.replace(known, inventory=str(second), nodes=("node1", "node2"))
    asked, known = access.write_inventories(tmp_path, wider)
    assert (asked, set(known.written)) == (True, {str(first), str(second)})
    assert "node2" in first.read_text() == second.read_text()
    assert access.remove_inventories(known) == {}
    assert os.listdir(tmp_path) == []


def test_an_inventory_that_somebody_edited_or_removed_is_theirs(tmp_path):
    file, gone = tmp_path / "lab.yaml", tmp_path / "gone.yaml"
    _, known = access.write_inventories(tmp_path, design(gone))
    _, known = access.write_inventories(tmp_path, msgspec.structs.replace(known, inventory=str(file)))
    gone.unlink()
    file.write_text(file.read_text() + "settings: {}\n")
    asked, later = access.write_inventories(tmp_path, known)
    assert (asked, later) == (False, known)
    assert not gone.exists()
    assert access.remove_inventories(known) == {str(file): tmp_path / "lab.yaml.old"}
