"""Gates: files that the agent opens and lists containers in, and that the fence shuts."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_agent.container.fencing.gates import Gates, gate_name

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64
DB = "shop/db.1.7"


def test_a_gate_that_was_shut_keeps_its_list_and_lets_nothing_be_listed(tmp_path: Path) -> None:
    gates = Gates(tmp_path)
    assert not gates.any
    gates.open(DB)
    gates.list(DB, ONE)
    gates.list(DB, TWO)
    gates.list(DB, TWO)
    path = tmp_path / "open" / "shop@db.1.7"
    assert path.read_text().splitlines() == [ONE, TWO]
    assert gates.shut()
    assert not path.exists(), "Docker has nothing to mount"
    assert not gates.shut()
    assert (gates.listed(shut=True), gates.listed(shut=False), gates.any) == ({ONE, TWO}, frozenset(), True)
    with pytest.raises(FileNotFoundError):
        gates.list(DB, THREE)
    gates.open(DB)
    gates.list(DB, THREE)
    assert (gates.listed(shut=True), gates.listed(shut=False)) == (frozenset(), {ONE, TWO, THREE})


@pytest.mark.parametrize("shut", [True, False])
def test_with_its_last_container_a_gate_goes(tmp_path: Path, shut: bool) -> None:
    gates = Gates(tmp_path)
    gates.open(DB)
    gates.list(DB, ONE)
    gates.list(DB, TWO)
    if shut:
        gates.shut()
    gates.remove(DB, ONE)
    assert gates.listed(shut=shut) == {TWO}
    assert gates.listed(shut=not shut) == frozenset()
    gates.remove(DB, TWO)
    gates.remove(DB, TWO)
    assert not gates.any


def test_what_was_asked_of_docker_before_is_written_to_the_gate_wherever_it_is(tmp_path: Path) -> None:
    """The fence shuts it while the agent writes: what is written is found."""
    gates = Gates(tmp_path)
    gates.open(DB)
    with (tmp_path / "open" / gate_name(DB)).open("ab") as gate:
        gates.shut()
        gate.write(f"{ONE}\n".encode())
    assert gates.listed(shut=True) == {ONE}


@pytest.mark.parametrize("name", ["", "../x", "/etc", ".hidden", "a b", "a\n", "a" * 300])
def test_what_is_no_allocation_makes_no_file(tmp_path: Path, name: str) -> None:
    if name in ("../x", "/etc"):
        assert "/" not in _name(name)
    else:
        with pytest.raises(ValueError, match="is no allocation's id"):
            gate_name(name)
    with pytest.raises(ValueError, match="is no container's id"):
        Gates(tmp_path).list(DB, "../../etc/passwd")


def _name(name: str) -> str:
    try:
        return gate_name(name)
    except ValueError:
        return ""


def test_what_is_no_gate_is_not_looked_at(tmp_path: Path) -> None:
    gates = Gates(tmp_path)
    gates.prepare()
    (tmp_path / "open" / ".x").write_text(f"{ONE}\n")
    (tmp_path / "shut" / "shop@db.1.7").write_bytes(b"\xff\xfe\nrm -rf /\n" + ONE.encode())
    assert not gates.shut()
    assert gates.listed(shut=True) == {ONE}
