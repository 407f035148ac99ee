from __future__ import annotations

from pathlib import Path

import pytest
from answering import NAMES, Cluster, node_report
from app_world import FILE, World

from hmctl import client
from hmctl.actions import agents, change
from hmctl.actions import survey as surveys
from hmctl.actions.apps import calls
from hmctl.actions.status import Answer


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cluster:
    made = Cluster({name: Answer(node_report(name), 0.0012) for name in NAMES})
    monkeypatch.setattr(surveys, "survey", made.survey)
    hosts = "".join(f"  - {{name: {name}, address: 10.0.0.{number}, role: control}}\n" for number, name in enumerate(NAMES, 1))
    (tmp_path / "cluster.yaml").write_text(f"id: hm-abc123defg\nname: lab\nssh: {{user: root}}\nhosts:\n{hosts}")
    monkeypatch.setenv("HMCTL_INVENTORY", str(tmp_path / "cluster.yaml"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return made


@pytest.fixture
def world(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> World:
    """Reached by every command that asks about apps."""
    made = World()
    monkeypatch.setattr(agents, "connect", made.connect)
    monkeypatch.setattr(change, "connect", made.connect)
    monkeypatch.setattr(client.Access, "of", lambda store, via=None: client.Access(store.cluster, store.known_hosts))
    monkeypatch.setattr(calls, "RETRY", 0.01)
    monkeypatch.setattr(calls, "GAP", 0.0)
    monkeypatch.setattr(calls, "HOLD", 0.02)
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one that hmctl runs in, with an app's file."""
    made = tmp_path / "shop"
    made.mkdir()
    (made / "compose.yaml").write_text(FILE % "rollback")
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's own: it builds and saves the image in `docker.tar` beside it, and tells in `docker.log` what it was asked."""
    tools = tmp_path / "tools"
    tools.mkdir()
    script = tools / "docker"
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {tools}/docker.log\n'
        f'if [ "$1" = save ]; then exec /bin/cp {tools}/docker.tar "$3"; fi\n'
        f"echo 'STEP 1: FROM scratch'; [ ! -e {tools}/broken ] || {{ echo 'no space left on device'; exit 1; }}\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/bin:/usr/bin")
    return tools
