"""hmctl image, as typed: what it brings goes to real stores over real TLS; names are the state machine's business, without a network."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest
from docker_archives import Made, layer, legacy
from image_log import Log

from hmcore import api, pki
from hmcore.apps.calls import APPS, AppsReply
from hmcore.apps.records import Generation
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
from hmcore.config.inventory import Host
from hmcore.errors import HyperMeshError, PeerUnreachable
from hmcore.images.calls import IMAGES, NAME_IMAGE, REMOVE_IMAGE, Pinned, Pull
from hmcore.pki import Identity, Kind
from hmcore.stoq.bulk.client import connect
from hmcore.stoq.bulk.server import BulkListener
from hmcore.stoq.faults import error_of, fault_of
from hmcore.stoq.mtls import Credentials
from hmctl import client
from hmctl.actions import agents, change, image_upload
from hmctl.cli import main
from node_agent.platform.changes import Changes
from node_agent.platform.images import Images
from node_agent.transport.blobs import BlobStore

CLUSTER = "hm-abc123defg"
ANN = Identity(CLUSTER, Kind.OPERATOR, "ann")
WEB = Made((layer("base", os.urandom(400_000)), layer("top", os.urandom(5_000))))


class Cluster:
    """One control node. Every run of hmctl has an event loop of its own, so the node's port is open while it is dialled."""

    def __init__(self, folder: Path) -> None:
        self.log = Log()
        self.down = False
        self.folder = folder
        self.apps = AppsReply(index=1)
        self.authority = pki.create_authority(CLUSTER, datetime.now(UTC))
        self.images = Images(
            "node1",
            Changes("node1", self.log, self.log, timeout=1.0),  # type: ignore[arg-type]
            state=lambda: self.log.state,
            leader=lambda: "node1",
            barrier=self.log.barrier,
            pin=no_pin,
        )

    def credentials(self, name: str, kind: Kind) -> Credentials:
        pair = pki.issue(self.authority, Identity(CLUSTER, kind, name), datetime.now(UTC))
        return Credentials(self.authority.certificate, pair.certificate, pair.key)

    @contextlib.asynccontextmanager
    async def dial(self, host: Host, access: object) -> Any:
        if self.down:
            raise PeerUnreachable("no answer within 5 s", host=host.name)
        store = BlobStore(self.folder, reserve=0)
        await store.open()
        listener = BulkListener("127.0.0.1", 0, credentials=self.credentials("node1", Kind.NODE), cluster=CLUSTER, store=store)
        await listener.open()
        try:
            server = Identity(CLUSTER, Kind.NODE, "node1")
            ours = self.credentials("ann", Kind.OPERATOR)
            async with await connect("127.0.0.1", listener.port, credentials=ours, server=server) as found:
                yield found
        finally:
            await listener.close()
            store.close()

    async def connect(self, host: Host, access: object, **options: Any) -> Agent:
        if self.down:
            raise PeerUnreachable("no answer within 2 s", host=host.name)
        return Agent(self)


async def no_pin(name: str, pull: Pull, had: Pinned | None) -> Pinned:
    raise AssertionError("nothing is to be resolved")


class Agent:
    name = "node1"

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def close(self) -> None:
        pass

    async def state(self) -> api.StateReply:
        return api.StateReply(index=self.cluster.log.state.index, leader="node1", term=1, nodes=[])

    async def call(self, method: api.Method[Any, Any], request: Any, *, timeout: float | None = None) -> Any:
        images = self.cluster.images
        try:
            if method is APPS:
                return self.cluster.apps
            if method is IMAGES:
                return await images.list(request)
            return await {NAME_IMAGE: images.name, REMOVE_IMAGE: images.remove}[method](request, ANN)
        except HyperMeshError as error:
            raise error_of(fault_of(error), host="node1") from None


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cluster:
    made = Cluster(tmp_path / "blobs")
    (tmp_path / "cluster.yaml").write_text(
        f"id: {CLUSTER}\nname: lab\nssh: {{user: root}}\nhosts:\n  - {{name: node1, address: 10.0.0.1, role: control}}\n"
    )
    monkeypatch.setenv("HMCTL_INVENTORY", str(tmp_path / "cluster.yaml"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(agents, "connect", made.connect)
    monkeypatch.setattr(change, "connect", made.connect)
    monkeypatch.setattr(image_upload, "dial", made.dial)
    monkeypatch.setattr(client.Access, "of", lambda store, via=None: client.Access(store.cluster, store.known_hosts))
    return made


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[], Any]:
    """The document that the command printed last."""
    return lambda: json.loads(capsys.readouterr().out)


@pytest.fixture
def archive(tmp_path: Path) -> str:
    path = tmp_path / "web.tar"
    path.write_bytes(legacy(WEB))
    return str(path)


def test_an_image_is_pushed_listed_and_removed(cluster: Cluster, archive: str, told: Callable[[], Any]) -> None:
    assert main.run(["image", "push", archive, "-o", "json"]) == 0
    (pushed,) = told()["images"]
    assert (pushed["name"], pushed["id"], pushed["node"], pushed["changed"]) == ("web:1", WEB.id, "node1", True)
    assert pushed["size"] <= pushed["sent"] < 1.05 * pushed["size"]
    assert main.run(["image", "ls", "-o", "json"]) == 0
    (listed,) = told()["images"]
    assert (listed["name"], listed["layers"], listed["holders"], listed["author"]) == ("web:1", 2, ["node1"], "ann")
    assert main.run(["image", "push", archive, "--name", "other", "-o", "json"]) == 0
    (again,) = told()["images"]
    assert (again["name"], again["was_there"], again["sent"] < 1000) == ("other:latest", again["size"], True)
    assert main.run(["image", "rm", "web:1", "docker.io/library/other", "--yes", "-o", "json"]) == 0
    assert [(each["name"], each["changed"]) for each in told()["images"]] == [("web:1", True), ("other:latest", True)]
    assert cluster.log.state.images == {}


def test_people_are_told_what_was_sent(cluster: Cluster, archive: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["image", "ls"]) == 0
    assert "there are no images yet" in capsys.readouterr().err
    assert main.run(["image", "push", archive]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"web:1 is now {WEB.id[7:19]} (linux/amd64, ")
    assert "sending what the cluster lacks" in said.err
    assert " sent to node1" in said.err
    assert main.run(["image", "push", archive]) == 0
    said = capsys.readouterr()
    assert "web:1 is already" in said.out
    assert "the cluster has all of it already" in said.err
    assert main.run(["image", "ls"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["IMAGE", "ID", "SIZE", "PLATFORM", "PUSHED", "USED", "BY", "NODES"]
    assert row.startswith("web:1")
    assert row.split()[-2:] == ["-", "node1"]


def test_to_remove_one_asks_and_says_what_goes(cluster: Cluster, archive: str, capsys: pytest.CaptureFixture[str]) -> None:
    main.run(["image", "push", archive])
    capsys.readouterr()
    assert main.run(["image", "rm", "web:1"]) == 2  # stdin is no terminal
    said = capsys.readouterr().err
    assert "web:1 is " in said
    assert "on 1 node" in said
    assert "web:1" in cluster.log.state.images
    assert main.run(["image", "rm", "web:1", "web:2", "-y"]) == 1
    assert "there is no image web:2" in capsys.readouterr().err
    assert "web:1" in cluster.log.state.images


def running(app: str, **container: str) -> Generation:
    services = {"web": ServiceSpec(container=ContainerSpec(**container))}
    return Generation(app=app, number=1, spec=AppSpec(services=services), digest="d")


def test_apps_that_run_one_are_named_before_it_goes(
    cluster: Cluster, archive: str, told: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    main.run(["image", "push", archive])
    by_bytes, by_name = running("shop", image="other:2", image_id=WEB.id), running("blog", image="docker.io/library/web:1")
    another = running("none", image="web:1", image_id="sha256:" + "0" * 64)  # it meant something else by then
    cluster.apps = AppsReply(index=1, generations=[by_bytes, by_name, another, running("id", image=f"sha256:{'1' * 64}")])
    capsys.readouterr()
    assert main.run(["image", "ls", "-o", "json"]) == 0
    assert told()["images"][0]["apps"] == ["blog", "shop"]
    assert main.run(["image", "ls"]) == 0
    assert "blog and shop" in capsys.readouterr().out
    assert main.run(["image", "rm", "web:1"]) == 2
    assert "Remove web:1, which blog and shop use?" in capsys.readouterr().err
    assert main.run(["image", "rm", "web:1", "--yes"]) == 0
    said = capsys.readouterr().err
    assert "warning: blog, shop use web:1: their replicas run on" in said
    assert "to deploy with that name again it has to be pushed, or be in a registry" in said


def test_a_file_that_is_no_image_is_not_asked_of_docker(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("services: {}\n", "# a long one\n" * 100):
        (tmp_path / "compose.yaml").write_text(text)
        assert main.run(["image", "push", "compose.yaml"]) == 1
        error, fix = capsys.readouterr().err.splitlines()[-2:]
        assert error.startswith("error: compose.yaml: not a tar archive: ")
        assert fix == "  fix: docker save NAME -o FILE.tar; then hmctl image push FILE.tar"
    assert main.run(["image", "push", "busybox.tar"]) == 1
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "error: busybox.tar cannot be read: no such file or directory",
        "  fix: name a file that docker save wrote: docker save NAME -o FILE.tar; then hmctl image push FILE.tar",
    ]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["push", "./not-there.tar"], 1, "cannot be read"),
        (["push", "web:1"], 1, "there is no docker command here"),
        (["push", "No Name"], 2, "is no name of an image"),
        (["rm", "--", "-x"], 2, "is no name of an image"),
    ],
)
def test_what_cannot_be_says_why(
    words: list[str], code: int, said: str, cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main.run(["image", *words]) == code
    assert said in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_is_named(cluster: Cluster, archive: str, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.down = True
    assert main.run(["image", "push", archive]) == 1
    assert "no answer within 5 s" in capsys.readouterr().err
    assert cluster.log.state.images == {}
