"""How long a deploy takes on fresh hosts, and once more with nothing to do, beside pyinfra doing the same steps on the same hosts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import yaml
from bed import ROOT, Bed
from figures import Figure, Kind

PEERS = Path(__file__).parent / "peers"
PYINFRA = "pyinfra==3.10.0"
AGAIN = 3

FRESH = Kind("deploy, fresh hosts", "s", 15, "pyinfra", tolerance=1.8)
NOTHING = Kind("deploy, nothing to do", "s", 2, "pyinfra")
FIGURES = (FRESH, NOTHING)


def measure(bed: Bed) -> list[Figure]:
    bed.hmctl("bundle", "build")  # built once per Python and architecture: part of neither tool's figure
    peer = _pyinfra(bed)
    try:
        peer_first = _timed(peer, bed)
        ours_first = bed.timed("deploy", "--yes")
        again = [(bed.timed("deploy", "--yes"), _timed(peer, bed)) for _ in range(AGAIN)]
    finally:
        for node in _nodes(bed):
            bed.on(node["name"], "sh", "-c", REMOVE)
    ours_again, peer_again = (min(times) for times in zip(*again, strict=True))
    return [
        FRESH.of(ours_first, peer_first, "three hosts to healthy; pyinfra: same upload, run first"),
        NOTHING.of(ours_again, peer_again, f"by turns, best of {AGAIN} each"),
    ]


REMOVE = "systemctl disable --now peer.service; rm -rf /opt/peer /etc/systemd/system/peer.service; systemctl daemon-reload"


def _pyinfra(bed: Bed) -> list[str | Path]:
    """The command that does the peer's part."""
    tool = _installed_pyinfra()
    releases = json.loads(bed.hmctl("bundle", "ls", "-o", "json").stdout)
    path = next(row["release"]["archive"] for row in releases if row["current"])
    inventory = bed.directory / "peer_inventory.py"
    hosts = [node["address"] for node in _nodes(bed)]
    ssh = _ssh(bed)
    data = {
        "ssh_user": "root",
        "ssh_key": ssh["key"],
        "ssh_known_hosts_file": ssh["known_hosts"],
        "archive": path,
        "unit": str(PEERS / "peer.service"),
    }
    inventory.write_text(f"hosts = [(address, {data!r}) for address in {hosts!r}]\n")
    return [tool, str(inventory), str(PEERS / "pyinfra_deploy.py"), "-y"]


def _timed(command: list[str | Path], bed: Bed) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=bed.directory, timeout=300)
    return time.perf_counter() - began


def _installed_pyinfra() -> Path:
    directory = ROOT / ".make" / "pyinfra"
    tool = directory / "bin" / "pyinfra"
    if not tool.exists():
        subprocess.run([sys.executable, "-m", "venv", directory], check=True, timeout=120)
        subprocess.run([directory / "bin" / "pip", "install", "-qq", PYINFRA], check=True, timeout=300)
    return tool


def _nodes(bed: Bed) -> list[dict[str, str]]:
    document = json.loads(bed.hmctl("config", "show", "-o", "json").stdout)
    hosts: list[dict[str, str]] = document["hosts"]
    return hosts


def _ssh(bed: Bed) -> dict[str, str]:
    document = yaml.safe_load(bed.inventory.read_text())
    ssh: dict[str, str] = document["ssh"]
    return ssh
