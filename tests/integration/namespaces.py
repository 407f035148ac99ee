"""Network namespaces that stand in for nodes, their containers, and a client outside. Needs root, ip and nft.

    outside ---+                         +--- node3 (198.18.3.3)
    node1 -----+--- 198.18.1.0/24 --- router
    node2 -----+

Each node has a bridge hm0, as Docker would have made it, with containers of a namespace each in 198.19.N.0/24. Nothing of the machine's
own network is touched: the links run from namespace to namespace.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_numbers = itertools.count(1)  # worlds of one process may exist side by side
ROOT = Path(__file__).parents[2]
KNOCKING = Path(__file__).with_name("knocking.py")
UNIT = ROOT / "templates" / "hypermesh-agent.service.j2"
NODE = Path(__file__).with_name("network_node.py")
PREFIX = "hmnet-"
CIDR = "198.19.0.0/16"
PORT = 8000  # that containers listen on
ADDRESSES = {"node1": "198.18.1.1", "node2": "198.18.1.2", "node3": "198.18.3.3"}
OUTSIDE = "198.18.1.9"
ROUTER = {"198.18.1": "198.18.1.254", "198.18.3": "198.18.3.254"}


def missing() -> str:
    """What keeps namespaces from being made here; empty if nothing does."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    lacking = [name for name in ("ip", "nft") if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None]
    return f"{', '.join(lacking)} not installed (apt-get install iproute2 nftables)" if lacking else ""


def as_the_agent() -> list[str]:
    """What gives a program the capabilities that the agent's unit leaves it, and no others."""
    (line,) = (line for line in UNIT.read_text().splitlines() if line.startswith("CapabilityBoundingSet="))
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in line.partition("=")[2].split())
    return ["setpriv", "--no-new-privs", f"--bounding-set=-all,{kept}", "--"]


def run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


class Daemon:
    """A process that says a line when it is ready, and answers lines with lines."""

    def __init__(self, namespace: str, *command: str, before: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *before, sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        found = self.process.stdout.readline()
        assert found, f"it ended with {self.process.wait(10)}"
        return found

    def ask(self, **told: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.line())
        assert "error" not in answer, answer["error"]
        return answer

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Reaper:
    """Removes all namespaces whose names begin with `prefix`, and whatever runs there, when it is told to or when we are dead, however we
    died."""

    _SCRIPT = r"""
        read -r _
        ip netns list | cut -d ' ' -f 1 | while read -r name; do
            case $name in "$1"*)
                ip netns pids "$name" | xargs -r kill -KILL
                ip netns delete "$name"
                rm -rf "/etc/netns/$name"
            esac
        done
    """

    def __init__(self, prefix: str) -> None:
        command = ["sh", "-c", self._SCRIPT, "reaper", prefix]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def reap(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0


class World:
    """`containers`: by node, their namespaces' short names and addresses."""

    def __init__(self, encapsulation: str, *, loop: str = "asyncio") -> None:
        self.prefix = f"{PREFIX}{os.getpid()}-{next(_numbers)}-"
        self.settings = {"cidr": CIDR, "encapsulation": encapsulation}
        self.daemons: list[Daemon] = []
        self.nodes: dict[str, Daemon] = {}
        self.addresses: dict[str, str] = {}  # of containers: k11 is the first of node1
        self._loop = loop
        self._reaper = Reaper(self.prefix)

    def name(self, short: str) -> str:
        return f"{self.prefix}{short}"

    def place(self, node: str) -> list[str]:
        return [node, ADDRESSES[node], f"198.19.{node[-1]}.0/24"]

    # --- making

    def up(self) -> None:
        for short in ("switch", "router", "outside", *ADDRESSES):
            self._namespace(short)
        self._ip("switch", "link add br0 type bridge", "link set br0 up")
        self._plug("outside", OUTSIDE)
        self._plug("node1", ADDRESSES["node1"])
        self._plug("node2", ADDRESSES["node2"])
        self._plug("router", ROUTER["198.18.1"])
        self._cable("router", "eth1", ROUTER["198.18.3"], "node3", "eth0", ADDRESSES["node3"])
        self._sysctl("router", "net.ipv4.ip_forward=1")
        for short in ("outside", *ADDRESSES):
            own = ADDRESSES.get(short, OUTSIDE)
            self._ip(short, f"route add default via {ROUTER[own.rpartition('.')[0]]}")
        for node in ADDRESSES:
            number = node[-1]
            self._ip(node, "link add hm0 type bridge", f"addr add 198.19.{number}.1/24 dev hm0", "link set hm0 up")
            for index in (1, 2):
                self._container(node, f"k{number}{index}", f"198.19.{number}.{index + 1}")
            self.nodes[node] = self._daemon(node, str(NODE), json.dumps(self.settings), f"--{self._loop}", before=as_the_agent())

    def _namespace(self, short: str) -> None:
        run("ip", "netns", "add", self.name(short))
        self._ip(short, "link set lo up")

    def _plug(self, short: str, address: str) -> None:
        run("ip", "link", "add", "eth0", "netns", self.name(short), "type", "veth", "peer", "name", short, "netns", self.name("switch"))
        self._ip("switch", f"link set {short} master br0 up")
        self._ip(short, f"addr add {address}/24 dev eth0", "link set eth0 up")

    def _cable(self, one: str, one_device: str, one_address: str, two: str, two_device: str, two_address: str) -> None:
        run("ip", "link", "add", one_device, "netns", self.name(one), "type", "veth", "peer", "name", two_device, "netns", self.name(two))
        self._ip(one, f"addr add {one_address}/24 dev {one_device}", f"link set {one_device} up")
        self._ip(two, f"addr add {two_address}/24 dev {two_device}", f"link set {two_device} up")

    def _container(self, node: str, short: str, address: str) -> None:
        self._namespace(short)
        run("ip", "link", "add", "eth0", "netns", self.name(short), "type", "veth", "peer", "name", short, "netns", self.name(node))
        self._ip(node, f"link set {short} master hm0 up")
        gateway = f"{address.rpartition('.')[0]}.1"
        self._ip(short, f"addr add {address}/24 dev eth0", "link set eth0 up", f"route add default via {gateway}")
        self.addresses[short] = address
        assert self._daemon(short, str(KNOCKING), "serve", short, address, str(PORT)).line() == "ready\n"

    def _ip(self, short: str, *lines: str) -> None:
        run("ip", "-netns", self.name(short), "-batch", "-", text="\n".join(lines) + "\n")

    def _sysctl(self, short: str, setting: str) -> None:
        name, _, value = setting.partition("=")
        run("ip", "netns", "exec", self.name(short), "sh", "-c", f"echo {value} > /proc/sys/{name.replace('.', '/')}")

    def _daemon(self, short: str, *command: str, before: Sequence[str] = ()) -> Daemon:
        self.daemons.append(Daemon(self.name(short), *command, before=before))
        return self.daemons[-1]

    def down(self) -> None:
        try:
            for daemon in self.daemons:
                daemon.stop()
        finally:
            self._reaper.reap()

    # --- using

    def whole(self, published: Sequence[Any] = ()) -> dict[str, Any]:
        """A whole round on every node; their answers."""
        places = [self.place(node) for node in ADDRESSES]
        return {
            node: daemon.ask(do="whole", own=self.place(node), others=places, published=published) for node, daemon in self.nodes.items()
        }

    def ports(self, published: Sequence[Any]) -> None:
        for daemon in self.nodes.values():
            daemon.ask(do="ports", published=published)

    def endpoint(self, short: str, weight: int = 100) -> list[Any]:
        return [self.addresses[short], PORT, weight]

    def daemon(self, short: str, *command: str) -> Daemon:
        """Ends with the world."""
        return self._daemon(short, *command)

    def run(self, short: str, *command: str) -> str:
        return run("ip", "netns", "exec", self.name(short), *command)

    def knock(self, short: str, address: str, port: int = PORT, count: int = 1, protocol: str = "tcp") -> dict[str, dict[str, int]]:
        """What came of `count` connections from `short`: `answers` ("CONTAINER SOURCE") and `failures`, by number."""
        found: dict[str, dict[str, int]] = json.loads(
            self.run(short, sys.executable, str(KNOCKING), "knock", protocol, address, str(port), str(count))
        )
        return found

    def reaches(self, short: str, address: str, port: int = PORT, **more: Any) -> str:
        """Who answers, and whom it took for the asker."""
        found = self.knock(short, address, port, **more)
        assert found["failures"] == {}, found
        (answer,) = found["answers"]
        return answer


def resolving(world: World, short: str, server: str) -> Path:
    """Have what runs in a namespace ask `server` for names, by its own resolv.conf."""
    place = Path("/etc/netns") / world.name(short)
    place.mkdir(parents=True, exist_ok=True)
    (place / "resolv.conf").write_text(f"nameserver {server}\noptions timeout:1 attempts:1\n")
    return place


@contextmanager
def world(encapsulation: str = "auto", loop: str = "asyncio") -> Iterator[World]:
    made = World(encapsulation, loop=loop)
    try:
        made.up()
        yield made
    finally:
        made.down()
