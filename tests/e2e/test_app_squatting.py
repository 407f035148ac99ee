"""A port that an app publishes, and on which a program of a node listens already: the node leaves it to that, and says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from composing import IMAGE, Apps, serving

PORT = 18110
UNIT = "e2e-squatter"
WEB = f"""
services:
  web:
    image: {IMAGE}
    init: true
    command: {serving("ours")}
    ports: ["{PORT}:8080"]
    deploy: {{update_config: {{monitor: 0s}}}}
"""
SAID = f"tcp port {PORT} is not published here: a program of this node listens on it"


@pytest.fixture
def squatted(apps: Apps) -> Iterator[str]:
    """The node whose own web server has the port."""
    cluster = apps.cluster
    node = cluster.names[1]
    serve = f"mkdir -p /run/squatter; echo theirs > /run/squatter/index.html; exec busybox httpd -f -p {PORT} -h /run/squatter"
    listens = f"until busybox nc -w 1 127.0.0.1 {PORT} < /dev/null; do sleep 0.1; done"
    cluster.inside(node, "systemd-run", "--quiet", f"--unit={UNIT}", "sh", "-c", serve)
    try:
        cluster.inside(node, "timeout", "10", "sh", "-c", listens)
        yield node
    finally:
        cluster.inside(node, "sh", "-c", f"systemctl stop {UNIT} 2> /dev/null || true")


def test_a_port_that_a_node_uses_itself_is_said_to_be_and_published_there_once_it_is_free(
    apps: Apps, squatted: str, eventually: Callable[..., None]
) -> None:
    cluster = apps.cluster

    def answers() -> dict[str, str]:
        return {node: (apps.get(f"{apps.address(node)}:{PORT}").split() or [""])[0] for node in cluster.names}

    done = apps.deploy("squatting", WEB)
    assert done["ending"] == "healthy"
    assert f"warning: the containers' network of {squatted}: {SAID}\n  fix: on {squatted}: ss -lntup" in done["said"]
    eventually(lambda: answers() == dict.fromkeys(cluster.names, "ours") | {squatted: "theirs"})
    status = cluster.status()
    assert status["health"] == "warning"
    (reason,) = next(node["reasons"] for node in status["nodes"] if node["name"] == squatted)
    assert SAID in reason
    assert any(squatted in check["message"] and SAID in check["message"] for check in status["checks"] if check["status"] == "warn")

    cluster.inside(squatted, "systemctl", "stop", UNIT)
    eventually(lambda: answers() == dict.fromkeys(cluster.names, "ours"), within=15)
    cluster.until_healthy(within=5)
