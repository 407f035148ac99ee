"""hmctl app against real agents: what is typed travels over QUIC to the leader, is followed, and undone. They have no Docker, so that
nothing ever starts: what the commands say of that is looked at, too."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cluster import CLUSTER, WAIT, ClusterOfProcesses

from hmcore.config.inventory import Host
from hmctl import client
from hmctl.actions import agents, change
from hmctl.cli import main
from hmctl.cli.app.waiting import Rows
from hmctl.client import AgentClient
from hmctl.state import OperatorStore

IMAGE = f"web@sha256:{'7' * 64}"  # nobody is asked what it is


class Desk:
    """An operator's machine: an inventory, the CA, and an app's folder, in which hmctl runs. (An inventory has no place for nodes that
    share one address; these do.)"""

    def __init__(self, cluster: ClusterOfProcesses, folder: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self.folder = folder / "alive"
        self.folder.mkdir()
        nodes = enumerate(cluster.nodes.items(), 1)
        hosts = "".join(f"  - {{name: {name}, address: 10.0.0.{n}, role: {node.config.role.value}}}\n" for n, (name, node) in nodes)
        (self.folder / "cluster.yaml").write_text(f"id: {CLUSTER}\nname: integration\nssh: {{user: root}}\nhosts:\n{hosts}")
        patch.chdir(self.folder)
        patch.delenv("HMCTL_INVENTORY", raising=False)
        patch.setenv("XDG_DATA_HOME", str(folder))
        store = OperatorStore.open(CLUSTER)
        store.create_authority(cluster.now)
        (store.folder / "ca.key").write_bytes(cluster.authority.key)
        (store.folder / "ca.pem").write_bytes(cluster.authority.certificate)
        connect = client.connect

        async def to_where_it_is(host: Host, *given: Any, **more: Any) -> AgentClient:
            port = cluster.nodes[host.name].config.port
            return await connect(replace(host, address="127.0.0.1", port=port), *given, **more)

        for module in (agents, change):
            patch.setattr(module, "connect", to_where_it_is)

    async def hmctl(self, *words: str, code: int = 0) -> tuple[str, str]:
        """What it prints to stdout and to stderr."""
        self._capture.readouterr()
        status = await asyncio.to_thread(main.run, ["app", *words, *(["--via", "quic"] if words[0] != "config" else [])])
        said = self._capture.readouterr()
        assert status == code, f"{words}: {said.out}\n{said.err}"
        return said.out, said.err


@pytest.fixture
def desk(cluster: ClusterOfProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(cluster, tmp_path, monkeypatch, capsys)


async def test_an_app_is_deployed_looked_into_changed_and_removed(desk: Desk) -> None:
    (desk.folder / "compose.yaml").write_text(f"services: {{web: {{image: '{IMAGE}', deploy: {{replicas: 2}}}}}}\n")
    _, said = await desk.hmctl("deploy", "-y", "--timeout", "3", code=1)
    assert "  + web" in said
    assert "error: alive is not there after 3 s: web: pulled 0/2, started 0/2, healthy 0/2; waiting: " in said
    assert said.endswith("its rollout goes on\n  fix: hmctl app explain alive\n")

    out, _ = await desk.hmctl("deploy", "--no-wait", "-o", "json")
    assert json.loads(out)["ending"] == "unchanged"
    (listed,) = json.loads((await desk.hmctl("ls", "-o", "json"))[0])["apps"]
    assert (listed["name"], listed["generation"], listed["stage"], listed["services"][0]["desired"]) == ("alive", 1, "rolling", 2)
    explained = json.loads((await desk.hmctl("explain", "alive/web", "-o", "json"))[0])
    assert explained["leader"]
    assert explained["services"][0]["waits"]
    assert "no replica of alive has a place" in (await desk.hmctl("ps", "alive"))[1]

    await desk.hmctl("scale", "alive/web=3", "--no-wait")
    await desk.hmctl("rollback", "alive", "--to", "1", "--no-wait", "-y")
    generations = json.loads((await desk.hmctl("history", "alive", "-o", "json"))[0])["generations"]
    assert [(each["number"], each["origin"], each["note"]) for each in generations] == [
        (1, None, ""),
        (2, None, "scaled: web=3"),
        (3, 1, ""),
    ]
    assert len({each["author"] for each in generations} - {""}) == 1  # whoever typed it
    assert (await desk.hmctl("rm", "alive", "-y"))[0] == "alive is removed\n"
    assert "there is no app alive" in (await desk.hmctl("ps", "alive", code=1))[1]


async def test_the_watching_survives_the_death_of_the_leader(
    cluster: ClusterOfProcesses, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, show = threading.Event(), Rows.show

    def tell(rows: Rows, found: Any) -> None:
        shown.set()
        show(rows, found)

    monkeypatch.setattr(Rows, "show", tell)
    (desk.folder / "compose.yaml").write_text(f"services: {{web: {{image: '{IMAGE}'}}}}\n")
    await desk.hmctl("deploy", "-y", "--no-wait")
    states = await cluster.states()
    leader = next(state.leader for state in states.values() if state.leader is not None)
    watching = asyncio.create_task(desk.hmctl("scale", "alive/web=2", "--timeout", "12", code=1), name="scale")
    assert await asyncio.to_thread(shown.wait, WAIT)
    cluster.nodes[leader].kill()
    try:
        _, said = await watching
    finally:
        cluster.nodes[leader].start()
    assert f"{leader}: " in said  # that it was lost
    assert "is followed now" in said
    assert "error: alive is not there after 12 s: web: pulled 0/2, started 0/2, healthy 0/2; waiting: " in said
    await cluster.until_whole("the leader is back")
    await desk.hmctl("rm", "alive", "-y")
