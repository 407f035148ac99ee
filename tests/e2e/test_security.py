"""The eBPF layer in real kernels: programs attached once and never absent, counters that outlive the agent, faults said and mended."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from clusters import AGENT, Cluster
from kernels import (
    HOOKS,
    NODE,
    PARENT,
    PROGRAMS,
    RELEASE,
    STATE,
    attached,
    check,
    counted,
    exec_links,
    happened,
    happens,
    load,
    load_dying,
    pinned,
    restart,
    running,
    security,
    shell,
)

from node_agent.security import maps


def test_there_is_one_program_per_hook_after_any_number_of_restarts(cluster: Cluster, eventually: Callable[..., None]) -> None:
    restart(cluster)  # what other tests have loaded, it does not want
    eventually(running(cluster), within=20)
    before = pinned(cluster)
    for _ in range(5):
        restart(cluster)
    cluster.kill_agent(NODE)
    eventually(running(cluster), within=20)
    assert pinned(cluster) == before
    for _ in range(3):  # also when programs really are replaced
        assert (load(cluster, PROGRAMS) or {}).get("ok")
        assert attached(cluster) == HOOKS
        assert exec_links(cluster) == 1
    assert len(pinned(cluster)) == len(before)
    inspected = json.loads(cluster.run("node", "inspect", NODE, "-o", "json").stdout)
    assert inspected["security"]["programs"] == sum(HOOKS.values()) + 1


def octets_out(cluster: Cluster, *containers: str) -> int:
    """Bytes of the IPv4 packets that left these containers, as their network namespaces' own statistics have them."""
    found = 0
    for name in containers:
        rows = shell(cluster, f"docker exec {name} cat /proc/net/netstat | grep ^IpExt").splitlines()
        keys, values = (row.split() for row in rows)
        found += int(values[keys.index("OutOctets")])
    return found


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
        before, octets_before = counted(cluster)["totals"], octets_out(cluster, "cli", "srv")
        address = shell(cluster, send).split()[-1]

        def total(key: str) -> int:
            return int(counted(cluster)["totals"][key] - before[key])

        def sent_all(payload: int) -> bool:
            """As many bytes as the kernel itself counts in the containers' networks, but for packets without a socket: those that refuse a
            connection, or end one that is over."""
            said, known = octets_out(cluster, "cli", "srv") - octets_before, total("bytes_out")
            print(f"{known} bytes counted, {said} by the kernel")
            return payload < known <= said < known + 50 * 60

        assert sent_all(5_000_000)
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
        assert sent_all(10_000_000)
    finally:
        cluster.inside(NODE, "systemctl", "start", AGENT)
        shell(cluster, "docker rm -f cli srv")
        cluster.until_healthy()


def test_what_the_verifier_refuses_or_a_kill_interrupts_changes_nothing(cluster: Cluster, eventually: Callable[..., None]) -> None:
    eventually(running(cluster), within=20)
    state = f"python3 -c '{STATE}' /sys/fs/bpf/hypermesh/{NODE}/v*"
    broken = f"rm -rf /tmp/bad && cp -r {PROGRAMS} /tmp/bad && "
    before = shell(cluster, state)
    # Another release, whose maps have another size: it gets maps of its own, and leaves the ones in use alone until its programs work.
    other = (
        "rm -rf /tmp/other && mkdir /tmp/other && cp -rL /opt/hypermesh/current/node_agent /tmp/other/ && cd /tmp/other/node_agent/security"
    )
    shell(cluster, other + " && rm -rf __pycache__ && sed -i 's/FLOWS_MOST, FLOWS_LEAST = 16384/FLOWS_MOST, FLOWS_LEAST = 4096/' maps.py")
    # Refused by the compiler, and by the verifier, the very last of the programs each.
    for edit, words in (
        ("echo 'int x(' >> /tmp/bad/events.c", "error:"),
        ("sed -i 's/if (!event)/if (0)/' /tmp/bad/events.c", "invalid mem access"),
    ):
        shell(cluster, broken + edit)
        for release in ("/opt/hypermesh/current", "/tmp/other"):
            answer = load(cluster, "/tmp/bad", release=release)
            assert answer is not None
            assert words in answer["down"]
            assert shell(cluster, state) == before
    assert (load(cluster, PROGRAMS, release="/tmp/other") or {}).get("ok")
    assert shell(cluster, state).split()[-1] != before.split()[-1]  # once they work, it does replace them
    for tenths in (2, 5, 8):  # while it compiles: see below for its steps
        load(cluster, PROGRAMS, killed_after=tenths / 10)
        assert attached(cluster) == HOOKS
    restart(cluster)
    eventually(running(cluster), within=20)
    assert sum(name.startswith("link_") for name in pinned(cluster)) == 4
    cluster.until_healthy()


def test_a_loader_that_dies_before_any_of_its_steps_misses_nothing_and_the_next_makes_it_good(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    eventually(running(cluster), within=20)
    execs, sent = happened(cluster)
    for step in itertools.count():
        answer = load_dying(cluster, step)
        assert attached(cluster) == HOOKS  # old or new: never none, never two
        happens(cluster)
        if answer is not None:
            break
        assert happened(cluster) == (execs := execs + 1, sent := sent + 1)
        assert (load(cluster, PROGRAMS) or {}).get("ok")
        assert attached(cluster) == HOOKS
        assert exec_links(cluster) == 1
        assert sum(name.startswith("link_") for name in pinned(cluster)) == sum(HOOKS.values()) + 1
        happens(cluster)
        assert happened(cluster) == (execs := execs + 1, sent := sent + 1)
    assert answer["ok"]
    assert step == 6  # three hooks' programs, the one for what begins, the settings, the digest
    restart(cluster)  # what this has loaded, the agent does not want
    eventually(running(cluster), within=20)
    cluster.until_healthy()


def test_a_removed_parent_cgroup_is_made_again(cluster: Cluster, eventually: Callable[..., None]) -> None:
    eventually(running(cluster), within=20)
    shell(cluster, f"rmdir {PARENT}")
    eventually(running(cluster), within=30)  # by itself: nobody restarts the agent
    execs, sent = happened(cluster)
    happens(cluster)
    assert happened(cluster) == (execs + 1, sent + 1)
    cluster.until_healthy()


def test_a_pin_that_is_gone_is_said_and_made_again(cluster: Cluster, eventually: Callable[..., None]) -> None:
    eventually(running(cluster), within=20)
    shell(cluster, f"rm /sys/fs/bpf/hypermesh/{NODE}/v*/flows")
    said = cluster.run("flows", "--node", NODE, check=False).stderr
    assert "flows cannot be read" in said
    assert "unexpected" not in said
    eventually(lambda: "flows" in pinned(cluster) and running(cluster)(), within=30)  # by itself
    assert "cannot be read" not in cluster.run("flows", "--node", NODE).stderr
    assert "Traceback" not in cluster.inside(NODE, "journalctl", "-u", AGENT, "-o", "cat", "--no-pager", "--since", "-40s")
    cluster.until_healthy()


IMPORTS = """
import subprocess, sys, time
began = time.monotonic()
program = "import node_agent.platform.platform, docker, pysyncobj, aioquic.quic.connection, uvloop"
subprocess.run([sys.executable, "-P", "-c", program], check=True)
print(time.monotonic() - began)
"""
QUIET_IMPORTS = 0.46  # seconds, where nothing else runs (docs/benchmarks.md)


def inspected_once_all_run(cluster: Cluster, eventually: Callable[..., None]) -> dict[str, Any]:
    """Not at once where a leader is elected at that moment: the node that was restarted may have been it."""
    found: dict[str, Any] = {}

    def all_run() -> bool:
        found.update(json.loads(cluster.run("node", "inspect", NODE, "-o", "json").stdout))
        assert [(name, each) for name, each in found["components"].items() if each["state"] != "running"] == []
        return True

    eventually(all_run, within=10)
    return found


@pytest.mark.parametrize("unpin", ["", f"rm -rf /sys/fs/bpf/hypermesh/{NODE}; "], ids=["loaded", "compiled"])
def test_all_components_run_within_three_seconds_or_as_much_later_as_imports_take_longer_on_a_busy_machine(
    cluster: Cluster, eventually: Callable[..., None], unpin: str
) -> None:
    """The best of five restarts is to keep to three seconds. Only where none does, the machine's own slowness is allowed for."""
    restart(cluster)  # what other tests have loaded, it does not want
    eventually(running(cluster), within=20)
    least, allowed = float("inf"), 3.0
    for _ in range(5):
        loaded = pinned(cluster)
        shell(cluster, f"systemctl stop {AGENT}; {unpin}systemctl start {AGENT}")
        eventually(running(cluster), within=30)
        assert unpin or pinned(cluster) == loaded
        report = inspected_once_all_run(cluster, eventually)
        assert {phase["outcome"] for phase in report["phases"]} == {"ok"}
        assert "security" in {phase["name"] for phase in report["phases"]}
        least = min(least, max(phase["began_seconds"] + phase["seconds"] for phase in report["phases"]))
        if least <= 3.0:
            break
        allowed = max(allowed, 3.0 * float(cluster.inside(NODE, "env", RELEASE, "python3", "-c", IMPORTS)) / QUIET_IMPORTS)
    print(f"all components ran {least:.2f} s after the agent's start; allowed: {allowed:.2f} s")
    assert least <= allowed
    cluster.until_healthy()


def mode_in_kernel(cluster: Cluster, node: str) -> int:
    script = "import sys; from node_agent.security import kernel, links, maps; from pathlib import Path; "
    script += "print(links.observe(kernel.Bpf(), Path(maps.pins(sys.argv[1]))).cfg.mode)"
    return int(cluster.inside(node, "env", RELEASE, "python3", "-c", script, node))


def test_the_mode_is_changed_by_applying_settings(cluster: Cluster) -> None:
    cluster.until_healthy()
    before = cluster.inventory.read_text()
    try:
        for mode in ("off", "audit", "enforce"):
            cluster.inventory.write_text(f"{before}settings: {{security: {{mode: {mode}}}}}\n")
            cluster.run("config", "apply", "--yes")
            status = cluster.status()
            assert status["health"] == "healthy"
            states = {node["components"]["security"]["state"] for node in status["nodes"]}
            assert json.loads(cluster.run("node", "inspect", NODE, "-o", "json").stdout)["security"]["mode"] == mode
            if mode == "off":
                assert states == {"ready"}
                assert shell(cluster, f"ls -d /sys/fs/bpf/hypermesh/{NODE} 2>&1 || true").endswith("No such file or directory\n")
                assert attached(cluster) == Counter()
            else:
                assert states == {"running"}
                assert mode_in_kernel(cluster, NODE) == maps.MODES[mode]
    finally:
        cluster.inventory.write_text(before)
        cluster.run("config", "apply", "--yes")


FAULTS = {
    "headers": (
        "mv /lib/modules /lib/hidden; mv /usr/src /usr/hidden",
        "mv /lib/hidden /lib/modules; mv /usr/hidden /usr/src",
        "hmctl deploy",
    ),
    "bcc": ("cd /usr/lib/python3/dist-packages; mv bcc hidden", "cd /usr/lib/python3/dist-packages; mv hidden bcc", "hmctl deploy"),
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
