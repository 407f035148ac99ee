"""Hosts that are not as they should be. Each time: who, why and what mends it are said, nothing was changed, and once mended it works.

Two hosts for the whole file: node1 votes and leads throughout, node2 is a worker with which everything goes wrong. A host that cannot be
reached is set aside (exit code 3, the rest goes on); one that cannot carry a node stops the deploy before it changes anything (1).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clusters import AGENT, Cluster, Hmctl

from hmcore.config import yaml12
from hmctl.lab.lab import Lab

NODE = "node2"
SET_ASIDE, REFUSED = 3, 1
# All that a deploy could have touched: files by content's size, time and mode, the agent's process, the packages.
TRACES = """
find /etc/hypermesh /etc/systemd/system /opt /usr/local -printf '%p %y %m %s %T@ %l\\n' 2>/dev/null | sort
systemctl show -p MainPID,ActiveState,UnitFileState hypermesh-agent.service
dpkg-query -W -f '${Package} ${Version}\\n' | cksum
"""


@dataclass(frozen=True)
class Fleet:
    cluster: Cluster
    folder: Path

    def sh(self, script: str, *arguments: str, node: str = NODE) -> str:
        return self.cluster.inside(node, "sh", "-ec", script, "sh", *arguments)

    def address(self, node: str) -> str:
        return next(host.address for host in self.cluster.lab.view().hosts if host.name == node)

    def inventory(self, ssh: Mapping[str, Any] | None = None, **changes: Any) -> Path:
        """The lab's inventory, with `changes` at the top and `ssh` settings for node2 alone."""
        document: Any = yaml12.load(self.cluster.inventory.read_text(), "lab").value
        hosts = [{**host, "ssh": dict(ssh)} if ssh and host["name"] == NODE else host for host in document["hosts"]]
        file = self.folder / "variant.yaml"
        file.write_text(json.dumps({**document, **changes, "hosts": hosts}))
        return file

    def traces(self) -> str:
        return self.sh(TRACES)

    def deploy(self, inventory: Path | None = None, *args: str, yes: bool = True, env: dict[str, str] | None = None) -> tuple[int, str]:
        """Its exit code and all that it said."""
        agreed = ["--yes"] if yes else []
        done = self.cluster.hmctl("-i", inventory or self.cluster.inventory, "deploy", *agreed, *args, check=False, env=env)
        return done.returncode, done.stdout + done.stderr

    def refused(
        self,
        inventory: Path | None = None,
        *args: str,
        code: int,
        cause: str,
        fix: str,
        host: str = NODE,
        env: dict[str, str] | None = None,
    ) -> str:
        """Deploy must end with `code`, name the host with cause and fix (regular expressions), and leave the host as it is."""
        before = self.traces()
        ended, said = self.deploy(inventory, *args, env=env)
        assert ended == code, said
        assert re.search(rf"^✗ {host}: .*{cause}.*\n    fix: .*{fix}", said, re.MULTILINE), said
        assert self.traces() == before
        return said

    def accepted(self, inventory: Path | None = None, *args: str, env: dict[str, str] | None = None) -> str:
        code, said = self.deploy(inventory, *args, env=env)
        assert code == 0, said
        return said

    def is_deployed(self) -> bool:
        return self.cluster.lab.exec(NODE, ["test", "-e", "/opt/hypermesh/current"]).returncode == 0


@pytest.fixture(scope="module")
def fleet(lab_prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    hmctl = Hmctl({**os.environ, "XDG_DATA_HOME": str(folder / "data"), "NO_COLOR": "1"}, folder)
    lab = Lab(f"{lab_prefix}-h")
    try:
        lab.up(2, folder / "lab.yaml")
        cluster = Cluster(lab, hmctl, folder / "lab.yaml")
        cluster.deploy()
        yield Fleet(cluster, folder)
    finally:
        lab.down()


@pytest.fixture
def deployed(fleet: Fleet) -> Fleet:
    """Both hosts carry a node."""
    if not fleet.is_deployed():
        fleet.cluster.deploy()
    return fleet


@pytest.fixture
def fresh(fleet: Fleet) -> Fleet:
    """node2 carries nothing: what a deploy does to it is still to come."""
    if fleet.is_deployed():
        fleet.cluster.run("reset", "--yes", "--limit", NODE)
    return fleet


# Hosts that cannot be reached, or not as who we are


def test_an_ssh_key_that_the_host_does_not_know(deployed: Fleet) -> None:
    stranger = deployed.folder / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", stranger], check=True, timeout=20)
    inventory = deployed.inventory(ssh={"key": str(stranger)})
    deployed.refused(inventory, code=SET_ASIDE, cause="does not accept us; we offered .*stranger", fix="ssh-copy-id")
    deployed.accepted()


def test_a_host_key_that_changed(deployed: Fleet) -> None:
    known = deployed.cluster.lab.folder / "known_hosts"
    others = {line.split()[0]: line.split(maxsplit=1)[1] for line in known.read_text().splitlines()}
    swapped = deployed.folder / "swapped"
    swapped.write_text(f"{deployed.address(NODE)} {others[deployed.address('node1')]}\n")
    inventory = deployed.inventory(ssh={"known_hosts": str(swapped)})
    deployed.refused(inventory, code=SET_ASIDE, cause="is not the host it was.*SHA256:.*swapped", fix=f"ssh-keygen -R .* -f {swapped}")
    swapped.write_text(f"{deployed.address(NODE)} {others[deployed.address(NODE)]}\n")
    deployed.accepted(inventory)


def test_a_host_key_that_nobody_vouches_for_needs_a_yes(deployed: Fleet, tmp_path: Path) -> None:
    inventory = deployed.inventory(ssh={"known_hosts": str(tmp_path / "empty")})
    before = deployed.traces()
    code, said = deployed.deploy(inventory, yes=False)
    assert code == 2, said
    assert re.search(rf"first contact with {deployed.address(NODE)}: its SSH host key is SHA256:", said), said
    assert "--yes" in said
    assert deployed.traces() == before


def test_sshd_does_not_answer(deployed: Fleet) -> None:
    units = deployed.sh("systemctl list-units --plain --no-legend --state=active 'ssh.s*' | cut -d ' ' -f 1").split()
    assert units
    deployed.cluster.inside(NODE, "systemctl", "stop", *units)
    try:
        said = deployed.refused(code=SET_ASIDE, cause="refused the connection", fix="systemctl start ssh")
        assert f"left out: {NODE}" in said
    finally:
        deployed.cluster.inside(NODE, "systemctl", "start", *units)
    deployed.accepted()


@pytest.mark.parametrize(
    ("user", "ssh", "fix"),
    [
        ("nosudo", {}, r"let nosudo use sudo \(NOPASSWD, or set ssh.sudo_password\)"),
        ("opspw", {}, r"let opspw use sudo \(NOPASSWD, or set ssh.sudo_password\)"),
        ("opspw", {"sudo_password": "${HM_TEST_PASSWORD}"}, r"correct ssh.sudo_password"),
    ],
    ids=["no sudo", "a password is needed", "the password is wrong"],
)
def test_a_user_who_may_not_use_sudo(deployed: Fleet, user: str, ssh: dict[str, str], fix: str) -> None:
    deployed.sh("id nosudo >/dev/null 2>&1 || useradd --create-home --shell /bin/bash nosudo")
    inventory = deployed.inventory(ssh={"user": user, **ssh})
    secret = "wrong-as-can-be"
    said = deployed.refused(inventory, code=SET_ASIDE, cause=f"{user} may not use sudo there", fix=fix, env={"HM_TEST_PASSWORD": secret})
    assert secret not in said


# Hosts that cannot carry a node


@contextmanager
def no_python(fleet: Fleet) -> Iterator[None]:
    fleet.sh("cd /usr/bin; mkdir /root/hidden; mv python3* /root/hidden/")
    try:
        yield
    finally:
        fleet.sh("mv /root/hidden/* /usr/bin/; rmdir /root/hidden")


@contextmanager
def wrong_clock(fleet: Fleet) -> Iterator[None]:
    """For whoever asks with `date`, as our questions do: hosts of a lab share one clock."""
    fleet.sh('printf \'#!/bin/sh\\nexec /usr/bin/date -d "+300 seconds" "$@"\\n\' > /usr/local/sbin/date; chmod 755 /usr/local/sbin/date')
    try:
        yield
    finally:
        fleet.sh("rm /usr/local/sbin/date")


@pytest.mark.parametrize(
    ("broken", "cause", "fix"),
    [
        (no_python, "there is no /usr/bin/python3", rf"on {NODE}: apt-get install python3"),
        (wrong_clock, r"its clock is (299|300)\.\d s ahead of this machine's", rf"on {NODE}: timedatectl set-ntp true"),
    ],
    ids=["no Python", "the clock is five minutes ahead"],
)
def test_a_host_that_cannot_carry_a_node(
    deployed: Fleet, broken: Callable[[Fleet], AbstractContextManager[None]], cause: str, fix: str
) -> None:
    with broken(deployed):
        said = deployed.refused(code=REFUSED, cause=cause, fix=fix)
        assert "nothing was changed" in said
    deployed.accepted()


def test_two_hosts_with_the_same_machine_id(deployed: Fleet) -> None:
    own, taken = (deployed.sh("cat /etc/machine-id", node=node).strip() for node in (NODE, "node1"))
    deployed.sh('echo "$1" > /etc/machine-id', taken)
    try:
        before = deployed.traces()
        code, said = deployed.deploy()
        assert code == REFUSED, said
        cause = rf"^✗ node1 and {NODE} have the same machine-id, {taken}.*\n    fix: .*systemd-machine-id-setup"
        assert re.search(cause, said, re.MULTILINE), said
        assert deployed.traces() == before
    finally:
        deployed.sh('echo "$1" > /etc/machine-id', own)
    deployed.accepted()


def test_a_limit_that_matches_nobody(deployed: Fleet) -> None:
    code, said = deployed.deploy(None, "--limit", "nodee1,web-*")
    assert code == 2, said
    assert re.search(r"--limit nodee1,web-\* matches none of node1 and node2", said), said


# Hosts without a node: before the first change, and in the middle of it


def test_the_port_is_taken(fresh: Fleet) -> None:
    hold = "import socket, signal; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7443)); signal.pause()"
    fresh.cluster.inside(NODE, "systemd-run", "--quiet", "--unit=squatter", "python3", "-c", hold)
    try:
        fresh.sh("for i in $(seq 200); do ss -lunH 'sport = :7443' | grep -q . && exit 0; sleep 0.05; done; exit 1")
        said = fresh.refused(
            code=REFUSED, cause=r"UDP port 7443 is held by python3 \(process \d+\)", fix="stop it, or give node2 another port"
        )
        assert "nothing was changed" in said
    finally:
        fresh.cluster.inside(NODE, "systemctl", "stop", "squatter.service")
    assert fresh.deploy(None, "--dry-run", "--detailed-exitcode")[0] == 10


def test_udp_is_blocked_between_two_hosts(fresh: Fleet) -> None:
    fresh.cluster.lab.block(NODE, "udp", 7443)
    try:
        cause = rf"it cannot reach {NODE} at {fresh.address(NODE)} \(UDP 7443: [^,)]+\)"
        said = fresh.refused(code=REFUSED, host="node1", cause=cause, fix="open UDP and TCP 7443 between the hosts")
        assert "nothing was changed" in said
    finally:
        fresh.cluster.lab.heal()
    assert fresh.deploy(None, "--dry-run", "--detailed-exitcode")[0] == 10


def test_no_docker_where_we_may_not_install_it(fresh: Fleet) -> None:
    inventory = fresh.inventory(packages="require")
    engine = fresh.sh("command -v dockerd").strip()
    fresh.sh('systemctl stop docker.socket docker.service; mv "$1" "$1.hidden"', engine)
    try:
        said = fresh.refused(
            inventory, code=REFUSED, cause=r"docker.io missing, and the inventory says packages: require", fix="apt-get install docker.io"
        )
        assert "nothing was changed" in said
    finally:
        fresh.sh('mv "$1.hidden" "$1"; systemctl start docker.socket docker.service', engine)
    assert fresh.deploy(inventory, "--dry-run", "--detailed-exitcode")[0] == 10


def test_a_full_disk_and_then_the_password_of_sudo(fresh: Fleet) -> None:
    """Too small from the outset; full in the middle of the upload, when half a release is there; and then with room."""
    inventory = fresh.inventory(ssh={"user": "opspw", "sudo_password": "${HM_TEST_PASSWORD}"})
    password = {"HM_TEST_PASSWORD": "lab"}
    fresh.sh("mount -t tmpfs -o size=1m tmpfs /opt")
    try:
        cause = r"free on /opt; 250\S* MB are needed for releases in /opt"
        fresh.refused(inventory, code=REFUSED, cause=cause, fix=f"make room on {NODE}", env=password)
        fresh.sh("mount -o remount,size=300m,nr_inodes=100 /opt")  # room for bytes, but not for files
        code, said = fresh.deploy(inventory, "--limit", NODE, env=password)
        assert code == REFUSED, said
        assert re.search(rf"^✗ {NODE}: release .*No space left on device.*\n    fix: .*make room", said, re.MULTILINE), said
        assert fresh.sh("ls -A /opt/hypermesh/releases; ls /etc/hypermesh /etc/systemd/system/hypermesh* 2>/dev/null || true") == ""
    finally:
        fresh.sh("umount /opt")
    fresh.accepted(inventory, env=password)
    fresh.cluster.until_healthy()


def test_docker_is_stopped(fresh: Fleet) -> None:
    fresh.sh("systemctl stop docker.socket docker.service")
    try:
        code, said = fresh.deploy()
        assert code == SET_ASIDE, said
        warning = rf"{NODE}: Docker is installed but does not answer.*\n *fix: on {NODE}: systemctl enable --now docker"
        assert re.search(warning, said), said
        assert re.search(rf"{NODE}: container is degraded", said), said
        assert fresh.cluster.inside(NODE, "systemctl", "is-active", AGENT).strip() == "active"
    finally:
        fresh.sh("systemctl start docker.socket docker.service")
    fresh.cluster.until_healthy()
    fresh.accepted()


def test_through_a_bastion_as_a_user_with_sudo(fresh: Fleet, tmp_path: Path) -> None:
    first = fresh.address("node1")
    swapped = tmp_path / "swapped"
    keys = dict(line.split(maxsplit=1) for line in (fresh.cluster.lab.folder / "known_hosts").read_text().splitlines())
    swapped.write_text(f"{first} {keys[fresh.address(NODE)]}\n")

    changed = fresh.inventory(ssh={"user": "ops", "bastion": {"address": first, "user": "ops", "known_hosts": str(swapped)}})
    fresh.refused(changed, code=SET_ASIDE, cause=f"its bastion {first}: {first} is not the host it was", fix=f"ssh-keygen -R {first}")

    unknown = fresh.inventory(ssh={"user": "ops", "bastion": {"address": first, "user": "ops", "known_hosts": str(tmp_path / "empty")}})
    code, said = fresh.deploy(unknown, yes=False)
    assert code == 2, said
    assert f"first contact with {first}" in said
    assert not fresh.is_deployed()

    fresh.accepted(fresh.inventory(ssh={"user": "ops", "bastion": f"ops@{first}"}))
    logins = fresh.cluster.inside(NODE, "journalctl", "-t", "sshd", "-t", "sshd-session", "-o", "cat", "--no-pager")
    assert f"Accepted publickey for ops from {first} " in logins, "nobody came through the bastion"
    fresh.cluster.until_healthy()


# Inventories that cannot be meant

GOOD = ["name: x", "id: hm-abc123defg", "preset: balanced", "hosts:"]
HOSTS = ["  - {name: a, address: 10.0.0.1, role: control}", "  - {name: b, address: 10.0.0.2, role: worker}"]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([*GOOD, "  - {name: a, address: 10.0.0.1"], r"cluster\.yaml:\d+: "),
        ([*GOOD, "  - {name: a, address: 10.0.0.1, role: [control]}"], r"cluster\.yaml:5: hosts\[0\]\.role: "),
        ([*GOOD, HOSTS[0], HOSTS[1].replace("b,", "a,")], r"cluster\.yaml:6: hosts\[1\].*\ba\b.*"),
        ([*GOOD, HOSTS[0], HOSTS[1].replace("10.0.0.2", "10.0.0.1")], r"cluster\.yaml:6: hosts\[1\].*10\.0\.0\.1"),
        ([*GOOD[:2], "preset: balansed", "hosts:", *HOSTS], r"cluster\.yaml:3: preset: .*balanced"),
        ([*GOOD[:3], "settings: {transport: {port: 22}}", "hosts:", *HOSTS], r"cluster\.yaml:\d+: .*22"),
    ],
    ids=["broken YAML", "a wrong type", "a name twice", "an address twice", "an unknown preset", "the port of sshd"],
)
def test_an_invalid_inventory_is_named_by_line_and_touches_no_host(
    hmctl: Hmctl, tmp_path: Path, lines: Sequence[str], problem: str
) -> None:
    hmctl = Hmctl({**os.environ, "XDG_DATA_HOME": str(tmp_path / "data"), "NO_COLOR": "1"}, tmp_path)
    file = tmp_path / "cluster.yaml"
    file.write_text("\n".join(lines) + "\n")
    done = hmctl("-i", file, "config", "validate", check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.search(f"^error: .*{problem}", done.stdout, re.MULTILINE), done.stdout
    deploy = hmctl("-i", file, "deploy", "--yes", check=False)
    assert deploy.returncode == 2, deploy.stdout + deploy.stderr
    assert re.search(problem, deploy.stderr), deploy.stderr


def test_an_even_number_of_control_nodes_is_worth_a_warning(tmp_path: Path) -> None:
    hmctl = Hmctl({**os.environ, "XDG_DATA_HOME": str(tmp_path / "data"), "NO_COLOR": "1"}, tmp_path)
    file = tmp_path / "cluster.yaml"
    file.write_text("\n".join([*GOOD, HOSTS[0], HOSTS[1].replace("worker", "control")]) + "\n")
    done = hmctl("-i", file, "config", "validate")
    assert re.search(r"^warning: .*cluster\.yaml:\d+: .*2 control", done.stdout, re.MULTILINE), done.stdout
