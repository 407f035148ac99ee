"""Secrets and configs as files: whole or not there, with the owner and mode that were asked for, and gone with their allocation."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.apps.records import Allocation
from hmcore.apps.spec import AppSpec, Attachment, ContainerSpec, ServiceSpec, Source
from hmcore.errors import HyperMeshError, SecretError, SecretsLocked
from node_agent.container import files as module
from node_agent.container.creation import NodeFacts, Wanted, file_path
from node_agent.container.files import LaidFiles, filesystem_of
from node_agent.vault.sealing import Hidden

ID = "shop/web.1.7"
MEMORY = "25 1 0:22 / / rw - tmpfs tmpfs rw"
DISK = "25 1 0:22 / / rw - ext4 /dev/sda1 rw"


class Node:
    """A node's allocations, and control nodes that give values."""

    def __init__(self, folder: Path, mounts: str = MEMORY) -> None:
        self.folder = folder
        self.values = {("secret", "password"): b"hunter22", ("config", "conf"): b"x" * 5000}
        self.asked: list[str] = []
        self.away = False
        self.wanted: dict[str, Wanted] | None = {}
        self.files = LaidFiles(folder, wanted=lambda: self.wanted, fetch=self.fetch, mounts=lambda: mounts)

    def place(self, *attached: Attachment, id: str = ID) -> None:
        allocation = Allocation(id=id, app="shop", service="web", slot=1, node="node1", generation=1, revision="r")
        web = ServiceSpec(container=ContainerSpec(image="i", files=attached))
        app = AppSpec(
            services={"web": web}, secrets={"password": Source(name="db", digest="d")}, configs={"conf": Source(name="shop/conf")}
        )
        assert self.wanted is not None
        self.wanted[id] = Wanted(allocation, app)

    async def fetch(self, allocation: str, sort: str, source: str, wanted: Source) -> Hidden:
        self.asked.append(f"{allocation} {sort} {source} {wanted.name}")
        if self.away:
            raise SecretsLocked("no control node gives it now")
        return Hidden(self.values[sort, source])

    def path(self, number: int, id: str = ID) -> Path:
        return Path(file_path(NodeFacts(cluster="hm-a", files=str(self.folder)), id, number))


def secret(target: str = "/run/secrets/password", **more: int) -> Attachment:
    return Attachment(kind="secret", source="password", target=target, **more)


def config(**more: int) -> Attachment:
    return Attachment(kind="config", source="conf", target="/etc/conf", **more)


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path / "files")


async def test_files_are_where_the_container_looks_for_them(node):
    node.place(secret(mode=0o440), config(), secret("/other", mode=0o4755))
    await node.files.lay_ready(ID)
    assert [node.path(number).read_bytes() for number in range(3)] == [b"hunter22", b"x" * 5000, b"hunter22"]
    assert [stat.S_IMODE(node.path(number).stat().st_mode) for number in range(3)] == [0o440, 0o444, 0o755]
    assert stat.S_IMODE(node.folder.stat().st_mode) == stat.S_IMODE(node.path(0).parent.stat().st_mode) == 0o700
    assert node.asked == [f"{ID} secret password db", f"{ID} config conf shop/conf"], "each once"


@pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="only root gives files away; in CI they run")
async def test_files_belong_to_whom_the_service_says(node):
    node.place(secret(uid=1000, gid=2000, mode=0o400))
    await node.files.lay_ready(ID)
    found = node.path(0).stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1000, 2000, 0o400)


async def test_what_is_there_is_not_asked_for_again(node):
    node.place(secret(), config())
    await node.files.lay_ready(ID)
    node.away = True
    again = Node(node.folder)
    again.wanted, again.away = node.wanted, True
    await again.files.lay_ready(ID)
    assert again.asked == [], "the agent was started again"


async def test_after_a_host_has_started_again_all_is_laid_anew(node):
    node.place(secret(), config())
    await node.files.lay_ready(ID)
    for lost in (node.path(1).unlink, lambda: [node.path(n).unlink() for n in (0, 1)]):
        lost()
        await node.files.lay_ready(ID)
        assert node.path(1).read_bytes() == b"x" * 5000


async def test_a_service_without_files_asks_nobody(node):
    node.place()
    await node.files.lay_ready(ID)
    assert (node.asked, node.folder.exists()) == ([], False)


async def test_without_a_value_nothing_is_laid_and_the_container_is_not_started(node):
    node.place(secret(), config())
    node.away = True
    with pytest.raises(SecretsLocked):
        await node.files.lay_ready(ID)
    assert not node.path(0).parent.exists()


async def test_a_disk_that_is_full_leaves_nothing_half(node, monkeypatch):
    node.place(secret(), config())

    def full(path: Path, file: Attachment, value: bytes) -> None:
        if file.kind == "config":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, file, value)

    write = module._write
    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(SecretError, match="No space left"):
        await node.files.lay_ready(ID)
    assert list(node.folder.iterdir()) == []
    monkeypatch.setattr(module, "_write", write)
    await node.files.lay_ready(ID)
    assert {each.name for each in node.folder.iterdir()} == {"shop@web.1.7"}


async def test_secrets_are_never_written_to_a_disk(tmp_path):
    node = Node(tmp_path / "files", DISK)
    node.place(secret())
    with pytest.raises(SecretError, match="is on ext4: secrets are written to memory only"):
        await node.files.lay_ready(ID)
    assert not node.folder.exists()


async def test_a_container_that_was_removed_takes_its_files_along(node):
    node.place(secret())
    node.place(secret(), id="shop/web.2.8")
    for id in (ID, "shop/web.2.8"):
        await node.files.lay_ready(id)
    await node.files.take_away(ID)
    await node.files.take_away(ID)
    assert {each.name for each in node.folder.iterdir()} == {"shop@web.2.8"}
    await node.files.lay_ready(ID)
    assert node.path(0).exists(), "another container of the same allocation"


async def test_what_was_left_behind_is_swept_away_once_it_is_known_what_is_wanted(node):
    node.place(secret())
    await node.files.lay_ready(ID)
    for name in ("blog@web.1.1", ".new-blog@web.1.2"):
        (node.folder / name).mkdir()
        (node.folder / name / "0").write_text("old")
    (node.folder / "stray").write_text("old")
    wanted, node.wanted = node.wanted, None
    node.files.sweep()
    assert len(list(node.folder.iterdir())) == 4, "nobody knows yet"
    node.wanted = wanted
    node.files.sweep()
    assert {each.name for each in node.folder.iterdir()} == {"shop@web.1.7"}


async def test_what_the_app_does_not_have_is_an_error(node):
    node.place(Attachment(kind="config", source="nothing", target="/x"))
    with pytest.raises(SecretError, match="shop has no config nothing"):
        await node.files.lay_ready(ID)
    with pytest.raises(SecretError, match="not known here"):
        await node.files.lay_ready("shop/web.3.9")


@given(st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70))
@pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="only root gives files away; in CI they run")
async def test_any_owner_and_mode_gives_a_file_or_an_error(tmp_path_factory, uid, gid, mode):
    node = Node(tmp_path_factory.mktemp("node") / "files")
    node.place(secret(uid=uid, gid=gid, mode=mode))
    try:
        await node.files.lay_ready(ID)
    except HyperMeshError:
        assert not node.path(0).exists()
    else:
        assert node.path(0).stat().st_mode & 0o7000 == 0


MOUNTINFO = r"""22 27 0:20 / /sys rw,nosuid - sysfs sysfs rw
27 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
28 27 0:24 / /run rw,nosuid,nodev shared:5 - tmpfs tmpfs rw,size=800k
29 28 0:24 /x /run/my\040dir rw - ramfs ramfs rw
30 27 254:2 / /var rw - xfs /dev/vda2 rw
31 30 0:30 / /var rw - tmpfs over rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/run/hypermesh/files", "tmpfs"),
        ("/run", "tmpfs"),
        ("/running", "ext4"),
        ("/run/my dir/x", "ramfs"),
        ("/var/lib", "tmpfs"),
        ("/home", "ext4"),
    ],
)
def test_file_systems_are_told_from_the_mounts(path, kind):
    assert filesystem_of(Path(path), MOUNTINFO) == kind


@given(st.text())
def test_any_text_is_read_as_mounts(text):
    assert isinstance(filesystem_of(Path("/run/x"), text), str)
