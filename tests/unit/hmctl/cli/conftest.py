from __future__ import annotations

from pathlib import Path

import pytest
from answering import NAMES, Cluster, node_report

from hmctl.actions import survey as surveys
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
