"""A registry of images on a host of the lab, with a password: Debian's docker-registry, which tools/install.sh has unpacked."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clusters import Cluster

PORT = 5000
USER, PASSWORD = "robot", "e2e-password"
ENTRY = f"{USER}:$2b$05$abcdefghijklmnopqrstuueadQeWls67mLlLjbH/TccCNge6gVKkG\n"  # bcrypt, as crypt.crypt writes it
FOLDER = "/srv/registry"
UNIT = "e2e-registry"
CONFIG = {
    "version": 0.1,
    "log": {"level": "warn"},
    "storage": {"filesystem": {"rootdirectory": f"{FOLDER}/content"}},
    "http": {"addr": f":{PORT}"},
    "auth": {"htpasswd": {"realm": "e2e", "path": f"{FOLDER}/htpasswd"}},
}
DAEMON = "/etc/docker/daemon.json"
# What pushes leaves neither its credentials nor an image behind: the cluster has to fetch it with its own.
PUSH = """
set -e
docker load --quiet < /dev/stdin > /dev/null
docker inspect --format '{{.Id}}' "$1"
export DOCKER_CONFIG=$(mktemp -d)
echo "$4" | docker login --username "$3" --password-stdin "$2" > /dev/null 2>&1
docker push --quiet "$1" > /dev/null
rm -r "$DOCKER_CONFIG"
docker rmi "$1" > /dev/null
"""


@dataclass(frozen=True)
class Registry:
    cluster: Cluster
    node: str
    host: str

    def push(self, archive: bytes, name: str) -> str:
        """Brings an image of that name there. Its id."""
        done = self.cluster.lab.exec(self.node, ["sh", "-c", PUSH, "-", name, self.host, USER, PASSWORD], stdin=archive)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()


def program() -> Path | None:
    """Where it is on this machine."""
    found = shutil.which("docker-registry", path=f"{sys.prefix}/registry/usr/bin") or shutil.which("docker-registry")
    return None if found is None else Path(found)


@contextmanager
def registry(cluster: Cluster, program: Path, node: str) -> Iterator[Registry]:
    """It runs on `node`, without TLS; Docker on all hosts has been told to put up with that."""
    address = next(host.address for host in cluster.lab.view().hosts if host.name == node)
    host = f"{address}:{PORT}"
    _write(cluster, node, f"{FOLDER}/docker-registry", program.read_bytes())
    _write(cluster, node, f"{FOLDER}/config.json", json.dumps(CONFIG).encode())
    _write(cluster, node, f"{FOLDER}/htpasswd", ENTRY.encode())
    serve = (f"{FOLDER}/docker-registry", "serve", f"{FOLDER}/config.json")
    cluster.inside(node, "systemd-run", "--quiet", f"--unit={UNIT}", "--property=Environment=OTEL_TRACES_EXPORTER=none", *serve)
    listens = f"for i in $(seq 100); do busybox nc -w 1 {address} {PORT} < /dev/null && exit; sleep 0.1; done; exit 1"
    try:
        cluster.inside(node, "sh", "-c", listens)
        for each in cluster.names:
            cluster.inside(each, "test", "!", "-e", DAEMON)
            _write(cluster, each, DAEMON, json.dumps({"insecure-registries": [host]}).encode())
            cluster.inside(each, "systemctl", "reload", "docker.service")
        yield Registry(cluster, node, host)
    finally:
        for each in cluster.names:
            cluster.inside(each, "sh", "-c", f"rm -f {DAEMON}; systemctl reload docker.service")
        cluster.inside(node, "sh", "-c", f"systemctl stop {UNIT}; rm -rf {FOLDER}")


def _write(cluster: Cluster, node: str, path: str, content: bytes) -> None:
    script = 'mkdir -p "$(dirname "$1")"; cat > "$1"; chmod 755 "$1"'
    done = cluster.lab.exec(node, ["sh", "-ec", script, "-", path], stdin=content)
    assert done.returncode == 0, done.stderr.decode()
