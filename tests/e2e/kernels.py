"""A node's eBPF layer as its kernel shows it: programs, links, pins and counters; and the loader, run as its agent runs it."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

from clusters import AGENT, Cluster

NODE = "node2"
PARENT = "/sys/fs/cgroup/unified/hypermesh"  # of a lab host: hybrid hierarchies, Docker's cgroupfs driver
OURS = f"{PARENT}/{'e' * 64}"  # a container's cgroup without the container
RELEASE = "PYTHONPATH=/opt/hypermesh/current"
PROGRAMS = "/opt/hypermesh/current/node_agent/security/programs"
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


def shell(cluster: Cluster, script: str, *, timeout: float = 60.0, node: str = NODE) -> str:
    done = cluster.lab.exec(node, ["bash", "-c", script], timeout=timeout)
    assert done.returncode == 0, f"{script}: {done.stdout.decode()}{done.stderr.decode()}"
    return done.stdout.decode()


def counted(cluster: Cluster) -> dict[str, Any]:
    """What lies in the pinned maps, whether the agent lives or not."""
    found: dict[str, Any] = json.loads(cluster.inside(NODE, "env", RELEASE, "python3", "-c", READ, NODE))
    return found


def attached(cluster: Cluster, node: str = NODE) -> Counter[str]:
    """Our programs by hook, as bpftool shows them."""
    rows = [line.split() for line in cluster.inside(node, "bpftool", "cgroup", "tree").splitlines()]
    return Counter(f"{row[1]} {row[-1]}" for row in rows if row[-1].startswith("hm_"))


EXECS = """
import json, subprocess, sys
ask = lambda *what: json.loads(subprocess.run(["bpftool", "-j", *what], capture_output=True, check=True).stdout)
ours = ask("map", "show", "pinned", sys.argv[1] + "/acting")["id"]
programs = {each["id"] for each in ask("prog") if each.get("name") == "hm_exec" and ours in each.get("map_ids", [])}
print(sum(link["type"] == "perf_event" and link["prog_id"] in programs for link in ask("link")))
"""


STATE = """
import glob, json, subprocess, sys
ask = lambda path, kind: json.loads(subprocess.run(["bpftool", "-j", kind, "show", "pinned", path], capture_output=True, check=True).stdout)
print(sorted((link["id"], link["prog_id"]) for link in (ask(path, "link") for path in glob.glob(sys.argv[1] + "/link_*"))))
print(ask(sys.argv[1] + "/flows", "map")["id"])
"""


def exec_links(cluster: Cluster, node: str = NODE) -> int:
    """How many programs of this node's watch what begins: of all in the kernel, which a lab's hosts share, those with its maps."""
    return int(cluster.inside(node, "sh", "-c", f"python3 -c '{EXECS}' /sys/fs/bpf/hypermesh/{node}/v*"))


def pinned(cluster: Cluster, node: str = NODE) -> list[str]:
    return cluster.inside(node, "sh", "-c", f"ls /sys/fs/bpf/hypermesh/{node}/v*").split()


def security(cluster: Cluster, node: str = NODE) -> dict[str, Any]:
    components: dict[str, dict[str, Any]] = cluster.node(node)["components"]
    return components.get("security", {"state": "unknown"})  # while the agent does not answer


def check(cluster: Cluster, node: str = NODE) -> dict[str, Any]:
    """What the layer is worth to the node's health, why, and what mends it."""
    nodes = json.loads(cluster.run("health", "-o", "json", check=False).stdout)["nodes"]
    checks = next(each["checks"] for each in nodes if each["name"] == node)
    return next((each for each in checks if each["name"] == "component.security"), {"fix": None})


def load(
    cluster: Cluster, programs: str, *, killed_after: float | None = None, release: str = "/opt/hypermesh/current"
) -> dict[str, Any] | None:
    """The loader, as the agent runs it; `killed_after` seconds: by SIGKILL, and without an answer."""
    limit = ["timeout", "-s", "KILL", str(killed_after)] if killed_after else []
    argv = [*limit, "/usr/bin/python3", "-I", f"{release}/node_agent/security/loader.py"]
    done = cluster.lab.exec(NODE, argv, stdin=_request(programs))
    return json.loads(done.stdout) if done.stdout else None


# argv: the release, and before which of its steps it dies. A step: a call that changes what outlives it in the kernel.
DYING = """
import os, signal, sys
sys.path.append(sys.argv[1])
from node_agent.security import kernel, loader
left = int(sys.argv[2])
def step(call):
    def stepped(*args):
        global left
        if call is not unlink or args[0].startswith("/sys/fs/bpf/") and os.path.lexists(args[0]):
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return call(*args)
    return stepped
unlink = os.unlink
os.unlink, os.rmdir = step(unlink), step(os.rmdir)
for name in ("pin", "update", "relink"):
    setattr(kernel.Bpf, name, step(getattr(kernel.Bpf, name)))
raise SystemExit(loader.main())
"""


def load_dying(cluster: Cluster, before_step: int) -> dict[str, Any] | None:
    """The loader, as the agent runs it, but that it kills itself before the given one of its steps; None then."""
    argv = ["/usr/bin/python3", "-I", "-c", DYING, "/opt/hypermesh/current", str(before_step)]
    done = cluster.lab.exec(NODE, argv, stdin=_request(PROGRAMS))
    assert done.stdout or done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr.decode()
    return json.loads(done.stdout) if done.stdout else None


def _request(programs: str) -> bytes:
    request = {"node": NODE, "cgroup": PARENT, "mode": "audit", "digest": "1" * 64, "programs": programs, "root": "/sys/fs/bpf/hypermesh"}
    return json.dumps(request).encode()


def happens(cluster: Cluster) -> None:
    """A program begins in a container's cgroup, after it has sent a datagram to this host."""
    shell(cluster, f"mkdir -p {OURS}; (echo $BASHPID > {OURS}/cgroup.procs; echo > /dev/udp/127.0.0.1/5302; exec true); rmdir {OURS}")


def happened(cluster: Cluster) -> tuple[int, int]:
    """How many programs have begun in containers, and datagrams that they have sent to this host."""
    found = counted(cluster)
    sent = sum(flow["packets_out"] for flow in found["flows"] if flow["protocol"] == 17 and flow["peer"] == "127.0.0.1")
    return found["totals"]["execs"], sent


def restart(cluster: Cluster, node: str = NODE) -> None:
    cluster.inside(node, "systemctl", "restart", AGENT)


def running(cluster: Cluster, node: str = NODE) -> Callable[[], bool]:
    return lambda: security(cluster, node)["state"] == "running" and attached(cluster, node) == HOOKS
