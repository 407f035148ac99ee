"""What containers ask for names: the agent, and nobody before it; with the search domains and options that Docker would have given them."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker_model import NODE, wanted
from hypothesis import given
from hypothesis import strategies as st

from hmcore.apps.spec import Attachment, ContainerSpec, Mount
from hmcore.errors import HyperMeshError, LayerDown
from node_agent.container.creation import NodeFacts, Wanted, resolvconf_path
from node_agent.container.resolvconf import content, is_ours, is_stub
from node_agent.container.resolvconf_files import LaidResolvConf

ID, OTHER = "shop/web.1.7", "shop/web.2.8"
GATEWAY = "10.1.0.1"
HOST = """# made by a program
domain early.example
search corp.example  lab.example  # ours
nameserver 192.0.2.53
options edns0 trust-ad
options rotate timeout:2
"""


def said(node: str = "", **container: Any) -> list[str]:
    return content(ContainerSpec(image="i", **container), GATEWAY, node).splitlines()


def test_the_agent_is_asked_and_names_are_asked_for_as_they_are() -> None:
    assert said() == [f"nameserver {GATEWAY}", "options ndots:0"]


def test_search_domains_and_options_are_the_nodes_own_as_docker_has_it() -> None:
    expected = ["search corp.example lab.example", f"nameserver {GATEWAY}", "options edns0 trust-ad timeout:2 ndots:0"]
    assert said(HOST) == expected, "without rotate: ours is asked first, each time"


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ({"dns": ("9.9.9.9", "::1")}, [f"nameserver {GATEWAY}", "nameserver 9.9.9.9", "nameserver ::1", "options ndots:0"]),
        ({"dns_search": ("a.example", "b.example")}, ["search a.example b.example", f"nameserver {GATEWAY}", "options ndots:0"]),
        ({"dns_search": (".",)}, [f"nameserver {GATEWAY}", "options ndots:0"]),  # how Docker is told: none
        ({"dns_options": ("use-vc", "ndots:2")}, [f"nameserver {GATEWAY}", "options use-vc ndots:2"]),
        ({"dns_options": ("rotate",)}, [f"nameserver {GATEWAY}", "options ndots:0"]),
    ],
)
def test_what_a_service_says_of_it_counts(given: dict[str, Any], lines: list[str]) -> None:
    assert said(**given) == lines


def test_a_service_goes_before_its_node() -> None:
    assert said(HOST, dns_search=("a.example",), dns_options=("timeout:1",)) == [
        "search a.example",
        f"nameserver {GATEWAY}",
        "options timeout:1 ndots:0",
    ]


@given(st.text(max_size=200))
def test_whatever_a_node_has_for_a_file_the_agent_is_asked_first(node: str) -> None:
    servers = [line for line in said(node) if line.startswith("nameserver")]
    assert servers == [f"nameserver {GATEWAY}"]


def test_systemd_resolved_is_known_by_its_address_alone() -> None:
    assert is_stub("nameserver 127.0.0.53\noptions edns0\n")
    assert not is_stub("nameserver 127.0.0.53\nnameserver 192.0.2.53\n")
    assert not is_stub("")


@pytest.mark.parametrize(
    "theirs",
    [
        {"mounts": (Mount(kind="bind", source="/srv/resolv.conf", target="/etc/resolv.conf"),)},
        {"mounts": (Mount(kind="volume", source="data", target="//etc/./resolv.conf/"),)},
        {"files": (Attachment(kind="config", source="names", target="/etc/../etc/resolv.conf"),)},
        {"network_mode": "host"},
        {"network_mode": "none"},
    ],
)
def test_who_has_a_file_or_a_network_of_its_own_keeps_it(theirs: dict[str, Any]) -> None:
    assert not is_ours(ContainerSpec(image="i", **theirs), GATEWAY)


def test_only_where_the_agent_answers() -> None:
    assert is_ours(ContainerSpec(image="i", mounts=(Mount(kind="tmpfs", target="/etc/resolv.conf.d"),)), GATEWAY)
    assert not is_ours(ContainerSpec(image="i"), "")


# --- as files


class Node:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.facts: NodeFacts | None = replace(NODE, resolvers=str(root / "resolv"))
        self.wanted: dict[str, Wanted] | None = {ID: wanted(ID), OTHER: wanted(OTHER)}
        self.own, self.resolved = root / "own", root / "resolved"
        self.files = self.again()

    def again(self) -> LaidResolvConf:
        """Of an agent that has just been started."""
        return LaidResolvConf(
            self.root / "resolv", facts=lambda: self.facts, wanted=lambda: self.wanted, own=self.own, resolved=self.resolved
        )

    def path(self, id: str = ID) -> Path:
        assert self.facts is not None
        return Path(resolvconf_path(self.facts, id))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_it_lies_where_the_container_mounts_it_for_whatever_user(node: Node) -> None:
    await node.files.lay_ready(ID)
    assert node.path().read_text() == "nameserver 10.1.0.1\noptions ndots:0\n"
    assert (stat.S_IMODE(node.path().stat().st_mode), stat.S_IMODE(node.path().parent.stat().st_mode)) == (0o644, 0o755)
    assert not node.path(OTHER).exists()


async def test_it_is_written_anew_for_a_start_and_never_under_one_who_has_it(node: Node) -> None:
    await node.files.lay_ready(ID)
    with node.path().open() as mounted:
        same = node.path().stat().st_ino
        await node.files.lay_ready(ID)
        assert node.path().stat().st_ino == same, "nothing is different"
        node.own.write_text("search corp.example\n")
        await node.files.lay_ready(ID)
        assert "corp" not in mounted.read()
    assert node.path().read_text().startswith("search corp.example\n")


async def test_a_host_that_was_started_again_lays_it_again(node: Node) -> None:
    await node.files.lay_ready(ID)
    node.path().unlink()
    node.path().parent.rmdir()
    await node.again().lay_ready(ID)
    assert node.path().exists()


async def test_of_systemd_resolved_what_it_goes_by_counts(node: Node) -> None:
    node.own.write_text("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch stub.example\n")
    await node.files.lay_ready(ID)
    assert "search stub.example" in node.path().read_text(), "there is no other"
    node.resolved.write_text("nameserver 192.0.2.53\nsearch real.example\n")
    await node.files.lay_ready(ID)
    assert node.path().read_text() == "search real.example\nnameserver 10.1.0.1\noptions ndots:0\n"


async def test_it_goes_with_its_allocation_and_so_does_what_nobody_has_any_more(node: Node) -> None:
    for id in (ID, OTHER):
        await node.files.lay_ready(id)
    begun = node.path().parent / ".new-shop@web.9.9"
    begun.write_text("half")
    node.wanted = None
    await node.files.take_away(ID)
    assert (node.path().exists(), node.path(OTHER).exists(), begun.exists()) == (False, True, True), "nobody knows who is wanted"
    node.wanted = {OTHER: wanted(OTHER)}
    await node.files.take_away("shop/web.3.9")
    assert [path.name for path in node.path().parent.iterdir()] == ["shop@web.2.8"]


async def test_taking_away_what_never_was_there_is_nothing(node: Node) -> None:
    await node.files.take_away(ID)
    assert not (node.root / "resolv").exists()


async def test_nothing_is_laid_for_whom_docker_looks_after(node: Node) -> None:
    node.wanted = {ID: wanted(ID, network_mode="host")}
    await node.files.lay_ready(ID)
    await node.files.lay_ready("shop/gone.1.1")
    assert not (node.root / "resolv").exists()


async def test_before_the_node_is_ready_it_is_tried_again(node: Node) -> None:
    node.facts = None
    with pytest.raises(LayerDown, match="not ready"):
        await node.files.lay_ready(ID)


async def test_a_place_that_cannot_be_written_to_is_said(node: Node) -> None:
    (node.root / "resolv").write_text("a file")
    with pytest.raises(HyperMeshError, match="cannot be written"):
        await node.files.lay_ready(ID)
