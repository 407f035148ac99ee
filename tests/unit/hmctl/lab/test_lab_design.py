"""What is written from a lab's design: its state file, the switch's rules, the inventory."""

import itertools
import os

import pytest

from hmcore.config.inventory import load_inventory
from hmcore.errors import LabError
from hmcore.records import Role
from hmctl.lab import inventory, network, state
from hmctl.lab.state import Block, LabState

DESIGN = LabState(
    name="lab", subnet=300, cluster_id="hm-abc123defg", image="0" * 16, nodes=("node1", "node2", "node3", "node4"), inventory="/x/lab.yaml"
)


def cut_links(design: LabState) -> set[tuple[str, str]]:
    """The links that the rules cut, read as nftables would."""
    words = [line.split() for line in network.ruleset(design).splitlines() if "iifname" in line]
    assert all(line[0] == "iifname" and line[2] == "oifname" and line[4] == "drop" for line in words)
    return {(line[1].strip('"'), line[3].strip('"')) for line in words}


def with_partition(*groups: tuple[str, ...]) -> LabState:
    return LabState(**{**{name: getattr(DESIGN, name) for name in DESIGN.__struct_fields__}, "partition": groups})


@pytest.mark.parametrize("groups", [(), (("node1", "node2"), ("node3",)), (("node1",), ("node2",), ("node3", "node4"))])
def test_exactly_the_links_between_groups_are_cut(groups):
    side = {node: number for number, group in enumerate(groups) for node in group}
    expected = {(a, b) for a, b in itertools.permutations(side, 2) if side[a] != side[b]}
    assert cut_links(with_partition(*groups)) == expected


def test_rules_replace_those_before_in_one_transaction():
    lines = network.ruleset(DESIGN).splitlines()
    assert lines[:3] == ["table bridge lab", "delete table bridge lab", "table bridge lab {"]


def test_a_block_names_host_protocol_and_port():
    blocked = LabState(**{**{name: getattr(DESIGN, name) for name in DESIGN.__struct_fields__}, "blocks": (Block("node2", "udp", 7443),)})
    assert '    oifname "node2" udp dport 7443 drop' in network.ruleset(blocked).splitlines()


def test_the_state_file_says_what_was_saved(tmp_path):
    folder = tmp_path / "lab"
    assert state.load(folder) is None
    state.save(folder, with_partition(("node1",), ("node2",)))
    assert state.load(folder) == with_partition(("node1",), ("node2",))
    assert os.listdir(folder) == [state.FILE]


def test_a_state_file_from_before_labs_had_a_choice_of_cgroups_is_read(tmp_path):
    state.save(tmp_path, with_partition())
    file = tmp_path / state.FILE
    text = file.read_text()
    assert '"cgroups": "machine",' in text
    file.write_text(text.replace('"cgroups": "machine",', ""))
    assert state.load(tmp_path) == with_partition()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"name": "lab"}', b'{"name": 1}'])
def test_a_damaged_state_file_is_an_error_with_a_way_out(tmp_path, content):
    (tmp_path / state.FILE).write_bytes(content)
    with pytest.raises(LabError, match="is damaged") as refused:
        state.load(tmp_path)
    assert refused.value.fix == f"hmctl lab down --name {tmp_path.name} removes the lab"


def test_the_inventory_is_complete_and_valid(tmp_path):
    key, known_hosts = tmp_path / "key", tmp_path / "known_hosts"
    key.touch()
    known_hosts.touch()
    file = tmp_path / "lab.yaml"
    assert inventory.write(file, inventory.render(DESIGN, key, known_hosts), "")
    loaded, warnings = load_inventory(file, {})
    assert warnings == ()
    assert (loaded.id, loaded.name, loaded.preset) == ("hm-abc123defg", "lab", "balanced")
    assert [(host.name, host.address, host.role) for host in loaded.hosts] == [
        ("node1", "198.19.44.1", Role.CONTROL),
        ("node2", "198.19.44.2", Role.CONTROL),
        ("node3", "198.19.44.3", Role.CONTROL),
        ("node4", "198.19.44.4", Role.WORKER),
    ]
    assert {(host.ssh.user, host.ssh.key, host.ssh.known_hosts) for host in loaded.hosts} == {("root", key, known_hosts)}


def test_an_edited_inventory_is_left_alone_and_kept(tmp_path):
    file = tmp_path / "lab.yaml"
    text = inventory.render(DESIGN, tmp_path / "key", tmp_path / "known_hosts")
    assert inventory.write(file, text, "")
    assert inventory.write(file, text, inventory.digest(text)), "as we wrote it: ours to write again"
    file.write_text(text + "settings: {}\n")
    assert not inventory.write(file, text, inventory.digest(text))
    assert file.read_text().endswith("settings: {}\n")
    assert inventory.remove(file, inventory.digest(text)) == tmp_path / "lab.yaml.old"
    assert not file.exists()


def test_an_unedited_inventory_goes_with_the_lab(tmp_path):
    file = tmp_path / "lab.yaml"
    text = inventory.render(DESIGN, tmp_path / "key", tmp_path / "known_hosts")
    inventory.write(file, text, "")
    assert inventory.remove(file, inventory.digest(text)) is None
    assert os.listdir(tmp_path) == []
    assert inventory.remove(file, "") is None, "gone already"


def test_nobody_elses_file_is_touched(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text("name: precious\n")
    with pytest.raises(LabError, match="was not written by a lab"):
        inventory.check_replaceable(file)
    assert inventory.remove(file, "") is None
    assert file.read_text() == "name: precious\n"


def test_cluster_ids_differ():
    assert len({inventory.new_cluster_id() for _ in range(100)}) == 100
