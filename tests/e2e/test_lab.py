"""The lab itself: what its hosts are, what may happen to them, and that nothing of it stays behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from hmcore.errors import LabError, UsageError
from hmctl.lab.cgroups import hierarchies
from hmctl.lab.home import directory
from hmctl.lab.lab import Lab
from hmctl.lab.plan import Names
from hmctl.lab.state import FILE, load

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 22), timeout=1).recv(4)"


def reaches(lab: Lab, source: str, target: str) -> bool:
    return lab.exec(source, ["python3", "-c", CONNECT, address(lab, target)]).returncode == 0


def address(lab: Lab, node: str) -> str:
    return next(host.address for host in lab.view().hosts if host.name == node)


def operator_reaches(lab: Lab, node: str) -> bool:
    try:
        with socket.create_connection((address(lab, node), 22), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def states(lab: Lab) -> list[str]:
    return [host.state for host in lab.view().hosts]


def boot_ids(lab: Lab) -> list[str]:
    """Changes when a host boots: the start time of its process 1."""
    return [lab.exec(host.name, ["cut", "-d", " ", "-f", "22", "/proc/1/stat"]).stdout.decode() for host in lab.view().hosts]


def remains(name: str, subnet: int) -> dict[str, list[str]]:
    """Everything on this machine that belongs to a lab: what `down` must remove."""
    ours = f"hm-{name}-"
    cgroups = [str(path) for h in hierarchies() for path in h.mount.rglob(f"{ours}*")]
    processes, mounts = [], []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            command = (proc / "cmdline").read_bytes().decode(errors="replace")
            member = (proc / "cgroup").read_text()
            mounts += [line for line in (proc / "mountinfo").read_text().splitlines() if ours in line or f"/labs/{name}/" in line]
        except OSError:  # it ended while we looked
            continue
        if ours in member or (f"/labs/{name}/" in command and proc.name != str(os.getpid())):
            processes.append(f"{proc.name} {command}")
    return {
        "cgroups": cgroups,
        "processes": processes,
        "mounts": sorted(set(mounts)),
        "network namespaces": [path.name for path in Path("/run/netns").glob(f"{ours}*")],
        "links": [link for link in os.listdir("/sys/class/net") if link == f"hmlab{subnet}"],
        "run-time files": [str(path) for path in Path("/run/systemd/nspawn").rglob(f"{ours}*")],
        "directories": [str(path) for path in (directory() / "labs").glob(f"{name}*") if path.name.removeprefix(name)[:1] in ("", ".")],
    }


def nspawn_locks() -> set[str]:
    folder = Path("/run/systemd/nspawn/locks")
    return set(os.listdir(folder)) if folder.exists() else set()


# What a host is


def test_up_again_changes_nothing(lab, hmctl, inventory):
    before, text = boot_ids(lab), inventory.read_bytes()
    hmctl("lab", "up", "--name", lab.name, "--inventory", inventory)
    assert boot_ids(lab) == before
    assert inventory.read_bytes() == text


def test_hosts_are_told_apart(lab, run_in):
    nodes = [host.name for host in lab.view().hosts]
    assert [run_in(node, ["hostname"]).strip() for node in nodes] == nodes
    for identity in (
        ["cat", "/etc/machine-id"],
        ["cat", "/etc/ssh/ssh_host_ed25519_key.pub"],
        ["ip", "-o", "-4", "address", "show", "eth0"],
    ):
        assert len({run_in(node, identity) for node in nodes}) == len(nodes), identity


def test_ssh_knows_every_host_and_user(lab):
    folder = directory() / "labs" / lab.name
    ssh = ["ssh", "-F", "none", "-i", folder / "key", "-o", f"UserKnownHostsFile={folder}/known_hosts"]
    ssh += ["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "GlobalKnownHostsFile=none"]
    asked = {"root": "id -u", "ops": "sudo -n id -u", "opspw": "echo lab | sudo -S -p '' id -u"}
    for host in lab.view().hosts:
        for user, command in asked.items():
            done = subprocess.run([*ssh, f"{user}@{host.address}", command], capture_output=True, text=True, timeout=20)
            assert done.stdout == "0\n", f"{user}@{host.name}: {done.stderr}"
    refused = subprocess.run([*ssh, f"opspw@{address(lab, 'node1')}", "sudo -n id -u"], capture_output=True, text=True, timeout=20)
    assert "password is required" in refused.stderr


def test_exec_passes_arguments_streams_and_exit_code_exactly(lab, hmctl):
    words = ["-x", "--", "a b", "", "$HOME", "*", "'", '"', "\\", "ü", "--name", "k=v", "\n"]
    said = lab.exec("node1", ["python3", "-c", "import sys; print(ascii(sys.argv[1:]))", *words]).stdout.decode()
    assert said == f"{words!a}\n"
    through_cli = hmctl("lab", "exec", "--name", lab.name, "node1", "--", "printf", "%s|", *words)
    assert through_cli.stdout == "".join(f"{word}|" for word in words)
    data = bytes(range(256)) * 4096
    assert lab.exec("node2", ["cat"], stdin=data).stdout == data
    split = lab.exec("node2", ["sh", "-c", "echo out; echo err >&2; exit 37"])
    assert (split.returncode, split.stdout, split.stderr) == (37, b"out\n", b"err\n")
    assert hmctl("lab", "exec", "--name", lab.name, "node1", "--", "sh", "-c", "exit 255", check=False).returncode == 255
    assert lab.exec("node1", ["no-such-command"]).returncode == 127
    assert hmctl("lab", "exec", "--name", lab.name, "node1", "printf", "%s", "-o").stdout == "-o"
    late = hmctl("lab", "exec", "node1", "--name", lab.name, "--", "true", check=False)
    assert late.returncode == UsageError.exit_code
    assert "options stand before the host" in late.stderr


def test_exec_is_inside_in_every_respect(lab, run_in):
    init = run_in("node1", ["sh", "-c", "readlink /proc/1/ns/* | sort"])
    assert run_in("node1", ["sh", "-c", "readlink /proc/self/ns/* | sort"]) == init
    assert run_in("node1", ["cat", "/proc/self/cgroup"]) == run_in("node1", ["cat", "/proc/1/cgroup"])
    environment = run_in("node1", ["env"])
    assert "HOME=/root" in environment
    assert "HMCTL_INVENTORY" not in environment
    assert "XDG_DATA_HOME" not in environment


def test_every_host_has_a_cgroup_tree_and_docker_of_its_own(lab, run_in):
    make_image = (
        "mkdir -p /tmp/i/bin && cp /bin/busybox /tmp/i/bin/ && ln -sf busybox /tmp/i/bin/sleep && tar -C /tmp/i -c . | docker import - tiny"
    )
    run_in("node1", ["sh", "-c", make_image])
    run_in(
        "node1", ["docker", "run", "--detach", "--init=false", "--memory=64m", "--cpus=0.5", "--name=alone", "tiny", "/bin/sleep", "600"]
    )
    try:
        identity = run_in("node1", ["docker", "inspect", "--format={{.Id}}", "alone"]).strip()
        find = ["sh", "-c", f"find /sys/fs/cgroup -name '*{identity}*' | wc -l"]
        assert int(run_in("node1", find)) > 0
        assert int(run_in("node2", find)) == 0
        assert run_in("node2", ["docker", "ps", "-q"]) == ""
    finally:
        run_in("node1", ["docker", "rm", "--force", "alone"])


def test_bpf_pins_are_the_hosts_own_and_end_with_it(lab, run_in):
    pin = ["bpftool", "map", "create", "/sys/fs/bpf/here", "type", "array", "key", "4", "value", "4", "entries", "1", "name", "here"]
    run_in("node3", pin)
    assert "here" in run_in("node3", ["ls", "/sys/fs/bpf"])
    assert "here" not in run_in("node2", ["ls", "/sys/fs/bpf"])
    lab.kill("node3")
    lab.start("node3")
    assert "here" not in run_in("node3", ["ls", "/sys/fs/bpf"])


def test_nothing_leads_out_and_hosts_learn_it_at_once(lab):
    out = lab.exec("node1", ["python3", "-c", "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"])
    assert b"OSError" in out.stderr
    assert b"timed out" not in out.stderr
    names = lab.exec("node1", ["python3", "-c", "import socket; socket.getaddrinfo('example.com', 80)"], timeout=5)
    assert b"gaierror" in names.stderr


# What may happen to hosts


def test_a_crashed_host_keeps_its_disk_and_comes_back(lab, run_in, eventually):
    identity = run_in("node2", ["cat", "/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub"])
    run_in("node2", ["sh", "-c", "echo kept > /root/file; sync"])
    assert reaches(lab, "node1", "node2")
    lab.kill("node2")
    assert states(lab) == ["running", "stopped", "running"]
    assert not operator_reaches(lab, "node2")
    with pytest.raises(LabError, match="does not run") as refused:
        lab.exec("node2", ["true"])
    assert refused.value.fix
    assert "lab start node2" in refused.value.fix
    lab.start("node2")
    assert run_in("node2", ["cat", "/root/file"]) == "kept\n"
    assert run_in("node2", ["cat", "/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub"]) == identity
    assert reaches(lab, "node1", "node2"), "others must find it at its old hardware address"


def test_stop_is_orderly_and_up_starts_what_is_down(lab, hmctl, inventory, run_in):
    unit = "[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=true\\nExecStop=touch /root/stopped-in-order\\n"
    run_in("node3", ["sh", "-c", f"printf '{unit}' > /run/systemd/system/witness.service; systemctl start witness"])
    hmctl("lab", "stop", "node3", "--name", lab.name)
    lab.kill("node1")
    assert states(lab) == ["stopped", "running", "stopped"]
    hmctl("lab", "up", "--name", lab.name, "--inventory", inventory)
    assert states(lab) == ["running"] * 3
    run_in("node3", ["rm", "/root/stopped-in-order"])


def test_start_and_rules_do_without_the_others(new_lab, tmp_path):
    """After the machine itself was restarted, nothing of the network is there."""
    other = new_lab("r")
    other.up(2, tmp_path / "r.yaml")
    other.kill("node1")
    other.kill("node2")
    subprocess.run(["ip", "netns", "delete", Names(other.name).switch], check=True, timeout=10)
    other.partition([["node1"], ["node2"]])
    with pytest.raises(LabError, match="does not run"):
        other.pause("node1")
    other.start("node1")
    other.start("node2")
    assert operator_reaches(other, "node1")
    assert not reaches(other, "node1", "node2")


def test_a_paused_host_is_silent_and_goes_on(lab):
    lab.pause("node2")
    try:
        assert states(lab) == ["running", "paused", "running"]
        assert not reaches(lab, "node1", "node2")
    finally:
        lab.pause("node2", False)
    assert reaches(lab, "node1", "node2")


def test_partition_and_heal(lab, hmctl):
    hmctl("lab", "partition", "--name", lab.name, "node1,node2", "/", "node3")
    try:
        assert reaches(lab, "node1", "node2")
        assert not reaches(lab, "node1", "node3")
        assert not reaches(lab, "node3", "node2")
        assert all(operator_reaches(lab, node) for node in ("node1", "node2", "node3"))
        lab.kill("node3")
        lab.start("node3")
        assert not reaches(lab, "node2", "node3"), "a partition outlives a restart of a host"
        lab.partition([["node1"], ["node2"]])
        assert all(reaches(lab, "node3", node) for node in ("node1", "node2")), "who is not named keeps all links"
        assert not reaches(lab, "node2", "node1")
    finally:
        hmctl("lab", "heal", "--name", lab.name)
    assert reaches(lab, "node1", "node2")
    assert reaches(lab, "node3", "node2")


def test_a_blocked_port_is_closed_to_all(lab):
    lab.block("node1", "tcp", 22)
    try:
        assert not operator_reaches(lab, "node1")
        assert not reaches(lab, "node2", "node1")
        assert operator_reaches(lab, "node2")
    finally:
        lab.heal()
    assert operator_reaches(lab, "node1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["node1"], "two sides"),
        (["node1", "/"], "two sides"),
        (["node1", "/", "node9"], "no host 'node9'"),
        (["node1,node2", "/", "node2"], "two sides of"),
    ],
)
def test_a_partition_that_makes_no_sense_is_refused(lab, hmctl, words, said):
    done = hmctl("lab", "partition", "--name", lab.name, *words, check=False)
    assert done.returncode == UsageError.exit_code
    assert said in done.stderr
    assert lab.view().partition == []


# Labs side by side, and their end


def test_labs_side_by_side_and_growing(lab, new_lab, hmctl, tmp_path):
    other = new_lab("b")
    other.up(1, tmp_path / "b.yaml")
    cluster = (tmp_path / "b.yaml").read_text()
    hmctl("lab", "up", "--name", other.name, "--nodes", "2", "--inventory", tmp_path / "b.yaml")
    grown = (tmp_path / "b.yaml").read_text()
    assert [line for line in grown.splitlines() if line.startswith("id:")] == [
        line for line in cluster.splitlines() if line.startswith("id:")
    ]
    assert reaches(other, "node1", "node2")
    assert address(lab, "node1") != address(other, "node1")
    assert lab.exec("node1", ["python3", "-c", CONNECT, address(other, "node1")]).returncode != 0
    listed = {
        view["name"]: [host["state"] for host in view["hosts"]] for view in json.loads(hmctl("lab", "ls", "-o", "json").stdout)["labs"]
    }
    assert listed[lab.name] == ["running"] * 3
    assert listed[other.name] == ["running"] * 2
    before = boot_ids(lab)
    other.down()
    assert boot_ids(lab) == before
    assert reaches(lab, "node1", "node2")


def test_up_mends_a_lab_whose_switch_is_gone(new_lab, tmp_path):
    other = new_lab("s")
    other.up(2, tmp_path / "s.yaml")
    subprocess.run(["ip", "netns", "delete", Names(other.name).switch], check=True, timeout=10)
    again = other.up(2, tmp_path / "s.yaml")
    assert again.booted == ("node1", "node2")
    assert reaches(other, "node1", "node2")
    assert operator_reaches(other, "node2")


def test_down_leaves_nothing_behind(new_lab, tmp_path, hmctl, eventually):
    locks = nspawn_locks()
    other = new_lab("c")
    view = other.up(2, tmp_path / "c.yaml").view
    subnet = load(directory() / "labs" / other.name).subnet
    other.exec("node1", ["sh", "-c", "docker network create n; sleep 1000 >/dev/null 2>&1 &"])
    other.kill("node2")
    present = {kind for kind, found in remains(other.name, subnet).items() if found}
    assert present == set(remains(other.name, subnet)), "the test must see what it looks for"
    hmctl("lab", "down", "--name", other.name)
    nothing = {kind: [] for kind in remains(other.name, subnet)}
    eventually(lambda: remains(other.name, subnet) == nothing, within=2)
    assert not Path(view.inventory).exists()
    assert nspawn_locks() <= locks
    assert "nothing to do" in hmctl("lab", "down", "--name", other.name).stderr


def test_down_needs_no_state_file(new_lab, tmp_path, hmctl, eventually):
    other = new_lab("d")
    other.up(1, tmp_path / "d.yaml")
    subnet = load(directory() / "labs" / other.name).subnet
    (directory() / "labs" / other.name / FILE).write_text("{ damaged")
    assert "damaged" in hmctl("lab", "up", "--name", other.name, check=False).stderr
    assert "damaged" in hmctl("lab", "ls").stderr
    other.down()
    assert not any(remains(other.name, subnet).values())


MOMENTS = {
    "designed": lambda names: (directory() / "labs" / names.lab / FILE).exists(),
    "switch": lambda names: Path("/run/netns", names.switch).exists(),
    "host's network": lambda names: Path("/run/netns", names.host("node2")).exists(),
    "host's cgroup": lambda names: any((h.mount / names.host("node1")).exists() for h in hierarchies()),
}


@pytest.mark.parametrize(
    ("moment", "then"),
    [("designed", "up"), ("switch", "down"), ("host's network", "up"), ("host's cgroup", "down"), ("host's cgroup", "up")],
)
def test_a_killed_up_is_completed_or_removed(new_lab, tmp_path, hmctl, eventually, moment, then):
    other = new_lab("k")
    process = hmctl.start("lab", "up", "--name", other.name, "--nodes", "2", "--inventory", tmp_path / "k.yaml")
    try:
        eventually(lambda: MOMENTS[moment](Names(other.name)), within=20, every=0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=10)
    subnet = load(directory() / "labs" / other.name).subnet
    if then == "up":
        other.up(2, tmp_path / "k.yaml")
        assert reaches(other, "node1", "node2")
    else:
        other.down()
        eventually(lambda: not any(remains(other.name, subnet).values()), within=2)


def test_a_file_that_no_lab_wrote_is_never_overwritten(new_lab, tmp_path, hmctl):
    mine = tmp_path / "cluster.yaml"
    mine.write_text("name: precious\n")
    done = hmctl("lab", "up", "--name", new_lab("f").name, "--inventory", mine, check=False)
    assert done.returncode == 1
    assert "not written by a lab" in done.stderr
    assert mine.read_text() == "name: precious\n"
    assert not (directory() / "labs" / new_lab("f").name).exists()
