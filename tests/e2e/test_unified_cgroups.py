"""A host as Debian 12 and Ubuntu 22.04 boot it: version 2 cgroups alone, Docker's systemd driver, our containers in `hypermesh.slice`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import AGENT, Cluster, Hmctl
from composing import IMAGE as WEB
from composing import Apps, archive, serving
from kernels import HOOKS, attached, check, exec_links, pinned, restart, running, shell

from hmcore.errors import UsageError
from hmctl.lab.lab import Lab
from hmctl.lab.plan import Cgroups

NODE = "node1"
SLICE = "/sys/fs/cgroup/hypermesh.slice"
SIZE = 5_000_000
# By controller: in a compose file, and as the kernel has it.
LIMITS = {"memory": ("memory: 24M", str(24 << 20)), "cpu": ("cpus: '0.5'", "50000 100000"), "pids": ("pids: 50", "50")}
IMAGE = """
set -e
mkdir -p /tmp/i/bin
cp /bin/busybox /tmp/i/bin/
for name in sh nc sleep head; do ln -sf busybox /tmp/i/bin/$name; done
tar -C /tmp/i -c . | docker import - tiny
"""


@pytest.fixture(scope="module")
def unified(lab_prefix: str, hmctl: Hmctl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node, deployed, with two containers in the slice."""
    lab, inventory = Lab(f"{lab_prefix}-u"), tmp_path_factory.mktemp("unified") / "lab.yaml"
    try:
        lab.up(1, inventory, cgroups=Cgroups.UNIFIED)
        cluster = Cluster(lab, hmctl, inventory)
        inventory.write_text(f"{inventory.read_text()}settings: {{health: {{interval: 3, timeout: 3}}}}\n")  # faults are noticed sooner
        cluster.deploy()
        shell(cluster, IMAGE, node=NODE)
        for name in ("web", "cli"):
            start(cluster, name, "--cgroup-parent=hypermesh.slice", f"--label=hypermesh.service=shop/{name}")
        yield cluster
    finally:
        lab.down()


def start(cluster: Cluster, name: str, *options: str) -> str:
    """A container of the cluster's; its id."""
    cluster_id = json.loads(cluster.run("config", "show", "-o", "json").stdout)["id"]
    argv = ("--detach", "--init", "--name", name, "--label", f"hypermesh.cluster={cluster_id}", *options, "tiny", "/bin/sleep", "3600")
    return cluster.inside(NODE, "docker", "run", *argv).strip()


def send(cluster: Cluster) -> None:
    """SIZE bytes from cli to web."""
    address = cluster.inside(NODE, "docker", "inspect", "--format", "{{.NetworkSettings.IPAddress}}", "web").strip()
    serve = "docker exec -d web sh -c 'sleep 60 | nc -l -p 5000 > /dev/null'"
    call = f'docker exec cli sh -c "head -c {SIZE} /dev/zero | nc {address} 5000"'
    shell(cluster, f"{serve}; for i in $(seq 50); do {call} && exit; done; exit 1", node=NODE)


def flow(cluster: Cluster, container: str, peer: str) -> dict[str, Any]:
    document = json.loads(cluster.run("flows", "-o", "json").stdout)
    assert document["problems"] == []
    wanted = (container, f"{NODE}/{peer}", "tcp")
    found = [each for each in document["flows"] if (each["container"], each["peer_name"], each["protocol"]) == wanted]
    assert len(found) <= 1
    return found[0] if found else {"bytes_out": 0, "bytes_in": 0, "connections_out": 0}


def one_program_per_hook(cluster: Cluster) -> bool:
    return attached(cluster, NODE) == HOOKS and exec_links(cluster, NODE) == 1


def test_docker_has_chosen_systemds_driver_in_a_tree_of_version_2_alone(unified: Cluster) -> None:
    mounts = unified.inside(NODE, "awk", '$3 ~ /^cgroup/ {print $2 " " $3}', "/proc/mounts")
    assert mounts == "/sys/fs/cgroup cgroup2\n"
    assert unified.inside(NODE, "docker", "info", "--format", "{{.CgroupVersion}} {{.CgroupDriver}}") == "2 systemd\n"
    with pytest.raises(UsageError, match="--cgroups unified") as refused:
        unified.lab.up(1, unified.inventory, cgroups=Cgroups.MACHINE)
    assert f"lab down --name {unified.lab.name}" in (refused.value.fix or "")


def test_containers_in_the_slice_are_counted_and_named(unified: Cluster, eventually: Callable[..., None]) -> None:
    eventually(running(unified, NODE), within=20)
    web = unified.inside(NODE, "docker", "inspect", "--format", "{{.Id}}", "web").strip()
    assert f"docker-{web}.scope" in unified.inside(NODE, "ls", SLICE)
    inspected = json.loads(unified.run("node", "inspect", NODE, "-o", "json").stdout)["security"]
    assert (inspected["cgroup"], inspected["programs"]) == (SLICE, sum(HOOKS.values()) + 1)
    tree = unified.inside(NODE, "bpftool", "cgroup", "show", SLICE)
    assert all(name.split()[-1] in tree for name in HOOKS)
    send(unified)
    sent, received = flow(unified, "cli", "web"), flow(unified, "web", "cli")
    assert sent["connections_out"] >= 1
    assert SIZE < sent["bytes_out"] < 1.08 * SIZE
    assert received["bytes_in"] == sent["bytes_out"]
    assert (sent["service"], received["service"]) == ("shop/cli", "shop/web")

    def told() -> bool:
        events = json.loads(unified.run("events", "--node", NODE, "-o", "json").stdout)["events"]
        return {("cli", "exec"), ("cli", "tcp"), ("web", "exec"), ("web", "tcp")} <= {(each["container"], each["kind"]) for each in events}

    eventually(told, within=10)


def test_after_restarts_there_is_one_program_per_hook_and_nothing_was_missed(unified: Cluster, eventually: Callable[..., None]) -> None:
    eventually(running(unified, NODE), within=20)
    pins, before = pinned(unified, NODE), flow(unified, "cli", "web")["bytes_out"]
    for _ in range(2):
        restart(unified, NODE)
        assert one_program_per_hook(unified)
    unified.kill_agent(NODE)
    eventually(running(unified, NODE), within=20)
    unified.inside(NODE, "systemctl", "daemon-reexec")
    unified.inside(NODE, "systemctl", "stop", AGENT)
    try:
        send(unified)
    finally:
        unified.inside(NODE, "systemctl", "start", AGENT)
    eventually(running(unified, NODE), within=20)
    assert one_program_per_hook(unified)
    assert pinned(unified, NODE) == pins
    unified.until_healthy()
    assert SIZE < flow(unified, "cli", "web")["bytes_out"] - before < 1.08 * SIZE


def test_only_a_container_outside_the_slice_is_complained_of(unified: Cluster, eventually: Callable[..., None]) -> None:
    """Also with a version 1 hierarchy mounted somewhere: Docker does not mind it, and neither may we."""
    shell(unified, "mkdir -p /run/old && mount -t cgroup -o none,name=systemd old /run/old", node=NODE)
    try:
        restart(unified, NODE)
        eventually(running(unified, NODE), within=20)
        start(unified, "astray")
        eventually(lambda: "run outside" in (check(unified, NODE).get("reason") or ""), within=30, every=0.5)
        said = check(unified, NODE)
        assert said["reason"] == "1 of 3 containers run outside hypermesh.slice and are not counted"
        assert "--cgroup-parent=hypermesh.slice" in said["fix"]
        why = "not watched: outside hypermesh.slice (--cgroup-parent)"
        eventually(lambda: why in unified.run("service", "ls", "astray").stdout, within=5)
        assert why not in unified.run("service", "ls", "shop/web").stdout
        unified.inside(NODE, "docker", "rm", "--force", "astray")
        unified.until_healthy()
    finally:
        shell(unified, "umount /run/old; docker rm --force astray 2>&1 || true", node=NODE)


def test_the_slice_is_kept_without_members_and_its_programs_come_back_if_it_is_stopped(
    unified: Cluster, eventually: Callable[..., None]
) -> None:
    inode = unified.inside(NODE, "stat", "--format=%i", SLICE)
    unified.inside(NODE, "docker", "stop", "web", "cli")
    unified.inside(NODE, "systemctl", "stop", AGENT)
    try:
        unified.inside(NODE, "systemctl", "daemon-reload")
        assert unified.inside(NODE, "stat", "--format=%i", SLICE) == inode
        assert one_program_per_hook(unified)
    finally:
        unified.inside(NODE, "systemctl", "start", AGENT)
    eventually(running(unified, NODE), within=20)
    unified.inside(NODE, "systemctl", "stop", "hypermesh.slice")
    eventually(running(unified, NODE), within=30)  # by itself: nobody restarts the agent
    unified.inside(NODE, "docker", "start", "web", "cli")
    before = flow(unified, "cli", "web")["bytes_out"]
    send(unified)
    assert SIZE < flow(unified, "cli", "web")["bytes_out"] - before < 1.08 * SIZE


def test_an_app_runs_within_its_limits_answers_and_is_updated(unified: Cluster, tmp_path: Path, eventually: Callable[..., None]) -> None:
    (tmp_path / "web.tar").write_bytes(archive(unified.lab.exec(NODE, ["cat", "/bin/busybox"]).stdout))
    unified.run("image", "push", tmp_path / "web.tar")
    apps = Apps(unified, tmp_path)
    # On a machine that has its controllers in version 1 hierarchies, as some build servers, there are few in this tree, and Docker can
    # only refuse such a limit, or leave it out.
    there = unified.inside(NODE, "cat", "/sys/fs/cgroup/cgroup.controllers").split()
    limits = {name: limit for name, limit in LIMITS.items() if name in there}
    resources = f"resources: {{limits: {{{', '.join(limit for limit, _ in limits.values())}}}}}"
    where = f"{apps.address(NODE)}:18110"
    try:
        for words in ("one", "two"):
            deploy = f"deploy: {{update_config: {{order: start-first, monitor: 0s}}, {resources}}}"
            serves = f"image: {WEB}, init: true, command: {serving(words)}, ports: ['18110:8080']"
            assert apps.deploy("bounded", f"services: {{web: {{{serves}, {deploy}}}}}")["ending"] == "healthy"
            (web,) = apps.replicas("bounded")
            eventually(lambda words=words, web=web: apps.get(where) == f"{words} {web['container'][:12]}", within=10)  # type: ignore[misc]
            scope = f"{SLICE}/docker-{web['container']}.scope"
            said = {name: unified.inside(NODE, "cat", f"{scope}/{name}.max").strip() for name in limits}
            assert said == {name: kernels for name, (_, kernels) in limits.items()}
    finally:
        apps.remove_all()


def test_reset_takes_the_slice_and_its_programs_away(unified: Cluster) -> None:
    unified.inside(NODE, "docker", "rm", "--force", "web", "cli")
    unified.run("reset", "--yes")
    left = f"ls -d {SLICE} /etc/systemd/system/hypermesh.slice /sys/fs/bpf/hypermesh 2>/dev/null || true"
    assert shell(unified, left, node=NODE) == ""
    assert not attached(unified, NODE)
