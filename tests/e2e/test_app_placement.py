"""Where replicas run and when: on every node, nowhere and why, one after the other, once and no more."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from clusters import Cluster
from composing import IMAGE, Apps, serving

CALM = "update_config: {monitor: 0s}"


def service(more: str = "", deploy: str = "") -> str:
    """The lines of a service below its name."""
    return f"{{image: {IMAGE}, init: true, {more + ', ' if more else ''}deploy: {{{CALM}{', ' + deploy if deploy else ''}}}}}"


def compose(**services: str) -> str:
    return "services:\n" + "".join(f"  {name}: {text}\n" for name, text in services.items())


def waits(apps: Apps, target: str) -> list[str]:
    """What a service waits for, once the leader has said so."""
    found: list[str] = apps.explain(target)["services"][0]["waits"]
    return found


def test_a_global_service_runs_once_on_every_node_and_follows_its_constraints(apps: Apps, eventually: Callable[..., None]) -> None:
    apps.deploy("agents", compose(each=service(deploy="mode: global")))
    assert sorted(each["node"] for each in apps.replicas("agents")) == sorted(apps.cluster.names)
    kept = apps.containers("agents")
    apps.deploy("agents", compose(each=service(deploy='mode: global, placement: {constraints: ["node.hostname != node2"]}')))
    eventually(lambda: sorted(apps.containers("agents").values()) == ["node1", "node3"], within=15)
    assert apps.containers("agents").items() <= kept.items(), "who may stay is left alone"


@contextmanager
def host(cluster: Cluster, node: str, more: str) -> Iterator[None]:
    """What the inventory says of a host, and `more`, deployed; afterwards as it was."""
    before = cluster.inventory.read_text()
    assert before.count(f"{{name: {node}, ") == 1, before
    cluster.inventory.write_text(before.replace(f"{{name: {node}, ", f"{{name: {node}, {more}, "))
    try:
        cluster.deploy()
        yield
    finally:
        cluster.inventory.write_text(before)
        cluster.deploy()
        cluster.until_healthy()


def test_a_node_that_is_told_to_run_no_apps_is_emptied_and_runs_some_again_when_told(apps: Apps, eventually: Callable[..., None]) -> None:
    def where(name: str) -> Counter[str]:
        return Counter(apps.containers(name).values())

    serves = f"command: {serving('moved')}, ports: ['18083:8080']"
    apps.deploy("moved", compose(web=service(serves, deploy="replicas: 3"), each=service(deploy="mode: global")))
    assert where("moved") == {"node1": 2, "node2": 2, "node3": 2}
    only_there = compose(web=service(deploy='placement: {constraints: ["node.labels.disk == ssd"]}'))
    with host(apps.cluster, "node3", "apps: false, labels: {disk: ssd}"):
        eventually(lambda: where("moved").keys() == {"node1", "node2"} and where("moved").total() == 5, within=40)
        apps.cluster.until(lambda status: [node["apps"] for node in status["nodes"]] == [True, True, False], 5, "status says it of node3")
        eventually(lambda: apps.get(f"{apps.address('node3')}:18083").startswith("moved"), within=15)
        apps.deploy("late", only_there, "--no-wait")
        said = {"role: 1 of 3 nodes runs no apps", "constraint: 2 of 2 nodes do not satisfy node.labels.disk == ssd"}
        eventually(lambda: said <= set("\n".join(waits(apps, "late")).splitlines()), within=10)
        apps.cluster.run("deploy", "--dry-run", "--detailed-exitcode")
    with host(apps.cluster, "node3", "labels: {disk: ssd}"):
        eventually(lambda: where("late") == {"node3": 1}, within=30)
        eventually(lambda: (where("moved").total(), where("moved")["node3"]) == (6, 1), within=30)  # only what is to be everywhere


@pytest.mark.parametrize(
    ("deploy", "reason"),
    [
        ('placement: {constraints: ["node.labels.zone == moon"]}', "constraint: 3 of 3 nodes do not satisfy node.labels.zone == moon"),
        ("resources: {reservations: {memory: 900g}}", "memory: 3 of 3 nodes have less than 900 GiB free; the most is "),
        ('resources: {reservations: {cpus: "500"}}', "cpus: 3 of 3 nodes have less than 500 processors free; the most is "),
        (
            "replicas: 4, placement: {max_replicas_per_node: 1}",
            "max-per-node: 3 of 3 nodes have 1 of the service already, the most that a node may have",
        ),
    ],
)
def test_what_fits_nowhere_waits_and_says_what_each_filter_removed(
    apps: Apps, eventually: Callable[..., None], deploy: str, reason: str
) -> None:
    apps.deploy("homeless", compose(web=service(deploy=deploy)), "--no-wait")
    eventually(lambda: any(line.startswith(reason) for line in waits(apps, "homeless")), within=10)
    assert reason in " ".join(apps.run("explain", "homeless/web").stdout.split())
    late = apps.deploy("homeless", compose(web=service(deploy=deploy), more=service()), "--timeout", "3", check=False)
    assert (late["code"], late["ending"]) == (1, "timeout")
    assert reason.split(":")[0] in late["error"]


def test_a_published_port_belongs_to_one_service(apps: Apps, eventually: Callable[..., None]) -> None:
    serves = f"command: {serving('first')}, ports: ['18081:8080']"
    apps.deploy("first", compose(web=service(serves)))
    second = compose(web=service(serves.replace("first", "second")))
    refused = apps.run("deploy", "-f", apps.file("second", second), "--yes", check=False)
    assert (refused.returncode, "port 18081/tcp of web belongs to first/web" in refused.stderr) == (1, True)
    eventually(lambda: apps.get(f"{apps.address('node2')}:18081").startswith("first"), within=5)
    apps.change("rm", "first", "--yes", "--no-wait")
    apps.deploy("second", second)  # which waits until the port is free
    eventually(lambda: apps.get(f"{apps.address('node2')}:18081").startswith("second"), within=20)


def test_a_port_of_the_host_is_had_once_on_a_node(apps: Apps, eventually: Callable[..., None]) -> None:
    serves = f"command: {serving('hosted')}, ports: [{{target: 8080, published: 18082, mode: host}}]"
    apps.deploy("hosted", compose(web=service(serves, deploy="replicas: 4")), "--no-wait")
    eventually(lambda: "port: 3 of 3 nodes have 18082/tcp in use" in waits(apps, "hosted"), within=15)
    replicas = apps.replicas("hosted")
    assert sorted(each["node"] for each in replicas) == sorted(apps.cluster.names)
    own = {each["node"]: each["container"][:12] for each in replicas}
    eventually(
        lambda: {node: apps.get(f"{apps.address(node)}:18082") for node in own} == {node: f"hosted {own[node]}" for node in own}, within=15
    )


def test_start_first_where_there_is_room_for_one_on_each_node_stops_the_old_ones_first(apps: Apps, eventually: Callable[..., None]) -> None:
    """Beside the old ones there is no place for any new one: it would stand still."""

    def wanted(words: str) -> str:
        order = "update_config: {order: start-first, parallelism: 1, monitor: 0s, failure_action: rollback}"
        limits = "replicas: 3, placement: {max_replicas_per_node: 1}"
        port = "ports: [{target: 8080, published: 18118, mode: host}]"
        return compose(web=f"{{image: {IMAGE}, init: true, command: {serving(words)}, {port}, deploy: {{{order}, {limits}}}}}")

    apps.deploy("tight", wanted("one"))
    before = apps.containers("tight")
    assert apps.deploy("tight", wanted("two"))["code"] == 0
    after = apps.containers("tight")
    assert sorted(after.values()) == ["node1", "node2", "node3"]
    assert not before.keys() & after.keys()
    # Nothing checks it, so that it is healthy once it has been started: it listens a moment later.
    eventually(lambda: [apps.get(f"{apps.address(node)}:18118").split()[:1] for node in apps.cluster.names] == [["two"]] * 3, within=5)


def test_what_depends_on_a_healthy_service_starts_after_it_is(apps: Apps, eventually: Callable[..., None]) -> None:
    check = "healthcheck: {test: [CMD, test, -e, /www/ready], interval: 1s, retries: 100}"
    app = compose(db=service(check), web=service("depends_on: {db: {condition: service_healthy}}"))
    apps.deploy("ordered", app, "--no-wait")
    eventually(lambda: [each["phase"] for each in apps.replicas("ordered/db")] == ["running"], within=15)
    eventually(lambda: "db is not healthy yet" in waits(apps, "ordered/web"), within=5)
    assert [each for each in apps.replicas("ordered/web") if each["container"]] == []
    apps.run("exec", "ordered/db", "--", "sh", "-c", "echo > /www/ready")
    eventually(lambda: [each["health"] for each in apps.replicas("ordered/web")] == ["healthy"], within=20)


def test_a_job_is_done_once_and_others_can_wait_for_it(apps: Apps) -> None:
    job = service('command: ["sh", "-c", "echo migrated"], restart: "no"')
    web = service("depends_on: {migrate: {condition: service_completed_successfully}}")
    assert apps.deploy("jobs", compose(migrate=job, web=web))["ending"] == "healthy"
    (done,) = apps.replicas("jobs/migrate")
    assert (done["phase"], done["exit_code"], done["restarts"]) == ("done", 0, 0)
    assert "migrated" in apps.run("logs", "jobs/migrate").stdout
    assert [app["stage"] for app in listed(apps) if app["name"] == "jobs"] == ["steady"]
    assert apps.deploy("jobs", compose(migrate=job, web=web))["ending"] == "unchanged"
    assert apps.replicas("jobs/migrate") == [done]


def test_a_crash_loop_is_visible_with_its_exit_code(apps: Apps, eventually: Callable[..., None]) -> None:
    how = "{restart_policy: {delay: 500ms}, update_config: {monitor: 3s}}"
    apps.deploy("looping", compose(web=f'{{image: {IMAGE}, command: ["sh", "-c", "exit 9"], deploy: {how}}}'), "--no-wait")

    def looping() -> bool:
        (each,) = apps.replicas("looping")
        return each["restarts"] >= 1 and each["exit_code"] == 9 and "it ended with 9" in each["error"]

    eventually(looping, within=30)

    def paused() -> bool:
        said = " ".join(apps.run("explain", "looping").stdout.split())
        return "paused: 1 of 1 new replicas failed (" in said and "with 9" in said

    eventually(paused, within=30)


def listed(apps: Apps) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(apps.run("ls", "-o", "json").stdout)["apps"]
    return found
