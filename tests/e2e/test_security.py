"""The eBPF layer in real kernels: programs attached once and never absent, counters that outlive the agent, faults said and mended."""

from __future__ import annotations

import json
import platform
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from clusters import AGENT, Cluster

NODE = "node2"
PARENT = "/sys/fs/cgroup/unified/hypermesh"  # of a lab host: hybrid hierarchies, Docker's cgroupfs driver
OURS = f"{PARENT}/{'e' * 64}"  # a container's cgroup without the container
RELEASE = "PYTHONPATH=/opt/hypermesh/current"
HOOKS = Counter({"cgroup_inet_ingress hm_ingress": 1, "cgroup_inet_egress hm_egress": 1, "cgroup_sock_ops hm_tcp": 1})

READ = """
import json, sys
from dataclasses import asdict
from node_agent.security import kernel, maps
bpf, pins, cpus = kernel.Bpf(), maps.pins(sys.argv[1]), maps.possible_cpus()
totals = maps.parse_totals(bpf.lookup(bpf.get(pins + "/totals"), bytes(4), maps.TOTALS.size * cpus))
rows = bpf.lookup_all(bpf.get(pins + "/flows"), maps.KEY.size, maps.FLOW.size * cpus, maps.FLOWS_MOST)
print(json.dumps({"totals": asdict(totals), "flows": [asdict(maps.parse_flow(*row)) for row in rows]}))
"""


def shell(cluster: Cluster, script: str, *, timeout: float = 60.0) -> str:
    done = cluster.lab.exec(NODE, ["bash", "-c", script], timeout=timeout)
    assert done.returncode == 0, f"{script}: {done.stdout.decode()}{done.stderr.decode()}"
    return done.stdout.decode()


def counted(cluster: Cluster) -> dict[str, Any]:
    """What lies in the pinned maps, whether the agent lives or not."""
    found: dict[str, Any] = json.loads(cluster.inside(NODE, "env", RELEASE, "python3", "-c", READ, NODE))
    return found


def attached(cluster: Cluster) -> Counter[str]:
    """Our programs by hook, as bpftool shows them."""
    rows = [line.split() for line in cluster.inside(NODE, "bpftool", "cgroup", "tree").splitlines()]
    return Counter(f"{row[1]} {row[-1]}" for row in rows if row[-1].startswith("hm_"))


def pinned(cluster: Cluster) -> list[str]:
    return cluster.inside(NODE, "sh", "-c", f"ls /sys/fs/bpf/hypermesh/{NODE}/v*").split()


def security(cluster: Cluster) -> dict[str, Any]:
    components: dict[str, dict[str, Any]] = cluster.node(NODE)["components"]
    return components.get("security", {"state": "unknown"})  # while the agent does not answer


def check(cluster: Cluster) -> dict[str, Any]:
    """What the layer is worth to the node's health, why, and what mends it."""
    nodes = json.loads(cluster.run("health", "-o", "json", check=False).stdout)["nodes"]
    checks = next(node["checks"] for node in nodes if node["name"] == NODE)
    return next((each for each in checks if each["name"] == "component.security"), {"fix": None})


def load(cluster: Cluster, programs: str, *, killed_after: float | None = None) -> dict[str, Any] | None:
    """The loader, as the agent runs it; `killed_after` seconds: by SIGKILL, and without an answer."""
    request = {"node": NODE, "cgroup": PARENT, "mode": "audit", "digest": "1" * 64, "programs": programs, "root": "/sys/fs/bpf/hypermesh"}
    limit = ["timeout", "-s", "KILL", str(killed_after)] if killed_after else []
    argv = [*limit, "/usr/bin/python3", "-I", "/opt/hypermesh/current/node_agent/security/loader.py"]
    done = cluster.lab.exec(NODE, argv, stdin=json.dumps(request).encode())
    return json.loads(done.stdout) if done.stdout else None


def restart(cluster: Cluster) -> None:
    cluster.inside(NODE, "systemctl", "restart", AGENT)


def running(cluster: Cluster) -> Callable[[], bool]:
    return lambda: security(cluster)["state"] == "running" and attached(cluster) == HOOKS


@pytest.fixture
def ours(cluster: Cluster) -> Iterator[str]:
    """The beginning of a command that runs in a container's cgroup."""
    shell(cluster, f"mkdir -p {OURS}")
    yield f"echo $BASHPID > {OURS}/cgroup.procs && exec "
    shell(cluster, f"rmdir {OURS} || true")


def test_there_is_one_program_per_hook_after_any_number_of_restarts(cluster: Cluster, eventually: Callable[..., None]) -> None:
    eventually(running(cluster), within=20)
    before = pinned(cluster)
    for _ in range(5):
        restart(cluster)
    cluster.kill_agent(NODE)
    eventually(running(cluster), within=20)
    assert pinned(cluster) == before
    for _ in range(3):  # also when programs really are replaced
        assert (load(cluster, "/opt/hypermesh/current/node_agent/security/programs") or {}).get("ok")
        assert attached(cluster) == HOOKS
    assert len(pinned(cluster)) == len(before)


def test_containers_are_counted_and_watched_also_while_the_agent_is_away(cluster: Cluster, eventually: Callable[..., None]) -> None:
    shell(
        cluster,
        "rm -rf /tmp/i && mkdir -p /tmp/i/bin && cp /bin/busybox /tmp/i/bin/ && for a in sh nc sleep head cat; do "
        "ln -sf busybox /tmp/i/bin/$a; done; tar -C /tmp/i -c . | docker import - tiny >/dev/null; "
        "docker rm -f cli srv >/dev/null 2>&1; for n in cli srv; do "
        "docker run -d --name $n --cgroup-parent=/hypermesh tiny sleep 1000; done",
    )
    send = (
        "docker exec -d srv sh -c 'sleep 60 | nc -l -p 5000 > /dev/null'; a=$(docker inspect -f '{{.NetworkSettings.IPAddress}}' srv); "
        'for i in $(seq 50); do docker exec cli sh -c "head -c 5000000 /dev/zero | nc $a 5000" && break; done; echo $a'
    )
    try:
        eventually(running(cluster), within=20)
        before = counted(cluster)["totals"]
        address = shell(cluster, send).split()[-1]

        def total(key: str) -> int:
            return int(counted(cluster)["totals"][key] - before[key])

        assert 5_000_000 <= total("bytes_out") < 5_400_000
        assert total("bytes_in") == total("bytes_out")  # one machine's container sends what the other's receives
        assert total("connections_out") >= 1
        assert total("execs") >= 4
        flow = next(flow for flow in counted(cluster)["flows"] if flow["peer"] == address and flow["protocol"] == 6)
        assert flow["bytes_out"] > 5_000_000 > flow["bytes_in"]

        def told() -> bool:
            said = cluster.run("events", "--node", NODE, "-o", "json", check=False).stdout
            return f"{address}:5000" in said and "established" in said and "/bin/sh" in said

        eventually(told, within=10)
        cluster.inside(NODE, "systemctl", "stop", AGENT)
        shell(cluster, send)
        assert 10_000_000 <= total("bytes_out") < 10_800_000
    finally:
        cluster.inside(NODE, "systemctl", "start", AGENT)
        shell(cluster, "docker rm -f cli srv")
        cluster.until_healthy()


def datagrams(found: dict[str, Any]) -> int:
    return sum(flow["packets_out"] for flow in found["flows"] if flow["protocol"] == 17 and flow["peer"] == "127.0.0.1")


def test_no_packet_is_missed_while_programs_are_replaced_under_load(cluster: Cluster, ours: str) -> None:
    shell(cluster, "iperf3 -s -D -1 -p 5301 --pidfile /run/iperf3.pid")
    before = counted(cluster)
    shell(cluster, f"({ours} iperf3 -c 127.0.0.1 -p 5301 -u -b 200M -l 1000 -t 6 -J) > /tmp/iperf.json 2>&1 < /dev/null &")
    done = 0
    while cluster.inside(NODE, "sh", "-c", "pgrep -f '[i]perf3 -c 127' || true").strip():
        assert (load(cluster, "/opt/hypermesh/current/node_agent/security/programs") or {}).get("ok")
        done += 1
    sent = json.loads(cluster.inside(NODE, "cat", "/tmp/iperf.json"))["end"]["sum"]["packets"]
    assert done >= 2
    out = datagrams(counted(cluster)) - datagrams(before)
    assert sent <= out <= sent + 10  # and those that open and close the stream


def test_what_the_verifier_refuses_or_a_kill_interrupts_changes_nothing(cluster: Cluster, eventually: Callable[..., None]) -> None:
    eventually(running(cluster), within=20)
    links = 'bpftool -j link | python3 -c \'import json,sys; print(sorted((l["id"], l["prog_id"]) for l in json.load(sys.stdin)))\''
    broken = "rm -rf /tmp/bad && cp -r /opt/hypermesh/current/node_agent/security/programs /tmp/bad && "
    before = shell(cluster, links)
    # Refused by the compiler, and by the verifier, the very last of the programs each.
    for edit, words in (
        ("echo 'int x(' >> /tmp/bad/events.c", "error:"),
        ("sed -i 's/if (!event)/if (0)/' /tmp/bad/events.c", "invalid mem access"),
    ):
        shell(cluster, broken + edit)
        answer = load(cluster, "/tmp/bad")
        assert answer is not None
        assert words in answer["down"]
        assert shell(cluster, links) == before
    for tenths in range(1, 15):
        load(cluster, "/opt/hypermesh/current/node_agent/security/programs", killed_after=tenths / 10)
        assert attached(cluster) == HOOKS  # old or new: never none, never two
    restart(cluster)
    eventually(running(cluster), within=20)
    assert sum(name.startswith("link_") for name in pinned(cluster)) == 4
    cluster.until_healthy()


def test_a_removed_parent_cgroup_is_made_again(cluster: Cluster, eventually: Callable[..., None]) -> None:
    eventually(running(cluster), within=20)
    shell(cluster, f"rmdir {PARENT}")
    eventually(running(cluster), within=30)  # by itself: nobody restarts the agent
    cluster.until_healthy()


FAULTS = {
    "headers": (
        "mv /lib/modules /lib/hidden; mv /usr/src /usr/hidden",
        "mv /lib/hidden /lib/modules; mv /usr/hidden /usr/src",
        "linux-headers",
    ),
    "bcc": ("cd /usr/lib/python3/dist-packages; mv bcc hidden", "cd /usr/lib/python3/dist-packages; mv hidden bcc", "python3-bpfcc"),
    "bpffs": ("rm -rf /sys/fs/bpf/hypermesh; umount /sys/fs/bpf", "mount -t bpf bpf /sys/fs/bpf", "mount -t bpf bpf /sys/fs/bpf"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing_is_said_with_its_fix_and_its_return_is_noticed(
    cluster: Cluster, eventually: Callable[..., None], fault: str
) -> None:
    away, back, fix = FAULTS[fault]
    eventually(running(cluster), within=20)
    shell(cluster, f"({away}) && rm -rf /sys/fs/bpf/hypermesh")
    try:
        restart(cluster)
        eventually(lambda: fix in (check(cluster)["fix"] or ""), within=20)
        assert security(cluster)["state"] == "degraded"
        assert cluster.node(NODE)["components"]["container"]["state"] == "running"
    finally:
        shell(cluster, back)
    eventually(running(cluster), within=40)
    cluster.until_healthy()


EXEC_AGAIN = bytes.fromhex("488b04244883f8017e11488d742410488b3e31d2b83b0000000f0531ffb83c0000000f05")  # execve(argv[1], argv + 1), if any


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program that starts itself again is machine code")
def test_ten_thousand_execs_a_second_cost_little_and_what_is_dropped_is_counted(cluster: Cluster, ours: str) -> None:
    elf = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = 120 + len(EXEC_AGAIN)
    elf += struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, size, size, 0x1000) + EXEC_AGAIN
    assert cluster.lab.exec(NODE, ["sh", "-c", "cat > /tmp/x; chmod 755 /tmp/x"], stdin=elf).returncode == 0
    before, pid = counted(cluster)["totals"], cluster.agent_pid(NODE)
    storm = "'c=; for i in $(seq 500); do c=\"$c /tmp/x\"; done; w() { for j in $(seq 40); do $c; done; }; w & w & wait'"
    ticks = f"awk '{{print $14 + $15}}' /proc/{pid}/stat"
    took = shell(
        cluster, f"a=$({ticks}); s=$(date +%s.%N); ({ours} bash -c {storm}); e=$(date +%s.%N); b=$({ticks}); echo $a $b $s $e"
    ).split()
    seconds, share = float(took[3]) - float(took[2]), (float(took[1]) - float(took[0])) / 100 / (float(took[3]) - float(took[2]))
    after = counted(cluster)["totals"]
    execs, events, lost = (after[key] - before[key] for key in ("execs", "events", "events_limited"))
    assert execs >= 40_000
    assert lost > 0
    assert execs <= events + lost  # each is told or counted as lost
    assert events <= 2_100 * (seconds + 2)
    assert share < 0.15, f"{execs / seconds:.0f} execs a second cost the agent {share:.0%} of a core"
