"""An image of 200 MB brought to three nodes and run there: what the operator sends, and how long it takes, beside `docker save`, SSH and
`docker load`.

The peer is what people do without a registry: one host after the other, the whole image to each. Both begin with an image in the operator's
own Docker, which is one more host of the lab. The content is random, and another one each time: nothing is compressed on the way, nothing
is there before.

Once as the lab is, where nothing limits the link but processors that all hosts share, and once with an operator's link as an office has it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shlex
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from bed import Bed
from containers import count, watch
from figures import Figure, Kind

from hmctl.lab.lab import Lab

SIZE = 200_000_000
PATIENCE = 120.0  # seconds

SENT = Kind("image of 200 MB to three nodes: the operator sends", "of its bytes", 1.05, "once", tolerance=1.2)
MOVED = Kind("image of 200 MB run by three nodes", "s", None, "docker save, SSH, docker load, one by one", tolerance=1.8)
MOVED_OVER = Kind("image of 200 MB run by three nodes, over SSH's", "x", 0.5, "as fast as SSH", tolerance=1.8)
SLOW = Kind("the same over an operator's link of 100 Mbit/s", "s", None, "docker save, SSH, docker load, one by one", tolerance=1.5)
SLOW_OVER = Kind("the same over an operator's link of 100 Mbit/s, over SSH's", "x", 0.5, "as fast as SSH", tolerance=1.5)
FIGURES = (SENT, MOVED, MOVED_OVER, SLOW, SLOW_OVER)

APP, SERVICE = "ship", "large"
OURS, THEIRS = "bench-ours:{}", "bench-theirs:{}"
FREE, LIMITED = "free", "limited"  # the link, and the images' tags
LINK = ("tbf", "rate", "100mbit", "burst", "256kb", "latency", "100ms")
OPERATOR = "bench-operator"  # another lab
COMMAND = ("sleep", "1000000")
RUN = "docker load >/dev/null && docker run -d --init --name peer-large {image} sleep 1000000 >/dev/null"
REMOVE = "docker rm -f peer-large >/dev/null; docker rmi {image} >/dev/null"


def measure(bed: Bed) -> list[Figure]:
    nodes = bed.addresses()
    with operators_docker(bed) as docker:
        ours = replace(bed, tools=tools(bed.directory / "tools", docker))
        free = both(bed, ours, nodes, docker, FREE)
        with limited(nodes):
            slow = both(bed, ours, nodes, docker, LIMITED)
    how = (
        "from the begin of `hmctl image push` ({:.1f} s of it), `hmctl app deploy` next, until it runs on all three; SSH: "
        "`docker save`, `docker load` and `docker run`"
    )
    return [
        SENT.of(
            free.sent / free.size,
            1.0,
            f"by the counter of this machine's interface to them, headers, calls and the deploy included; {free.size} bytes",
        ),
        MOVED.of(free.ours, free.theirs, how.format(free.pushed)),
        MOVED_OVER.of(free.ours / free.theirs, 1.0, "the same"),
        SLOW.of(slow.ours, slow.theirs, how.format(slow.pushed) + "; a token bucket on the operator's side"),
        SLOW_OVER.of(slow.ours / slow.theirs, 1.0, "the same"),
    ]


@dataclass(frozen=True)
class Shipped:
    """Seconds until it ran on all nodes, and of our push alone; bytes of the image, and those that we sent."""

    theirs: float
    ours: float
    pushed: float
    size: int
    sent: int


def both(bed: Bed, with_docker: Bed, nodes: dict[str, str], docker: Sequence[str], tag: str) -> Shipped:
    busybox = base64.b64decode(bed.on(next(iter(nodes)), "base64", "/bin/busybox"))
    for name in (THEIRS.format(tag), OURS.format(tag)):
        content = archive(bed.directory / "image.tar", name, busybox)
        with content.open("rb") as images:
            subprocess.run([*docker, "load"], stdin=images, check=True, capture_output=True, timeout=PATIENCE)
        size = content.stat().st_size
        content.unlink()
    theirs = by_ssh(bed, nodes, docker, THEIRS.format(tag))
    ours, pushed, sent = by_us(with_docker, nodes, OURS.format(tag))
    return Shipped(theirs, ours, pushed, size, sent)


@contextmanager
def limited(nodes: dict[str, str]) -> Iterator[None]:
    """What this machine sends to the nodes goes through a narrow link; what they send each other does not."""
    devices = {_device(address) for address in nodes.values()}
    try:
        for device in devices:
            subprocess.run(["tc", "qdisc", "replace", "dev", device, "root", *LINK], check=True, capture_output=True, timeout=10)
        yield
    finally:
        for device in devices:
            subprocess.run(["tc", "qdisc", "delete", "dev", device, "root"], check=False, capture_output=True, timeout=10)


@contextmanager
def operators_docker(bed: Bed) -> Iterator[list[str]]:
    """The command `docker` of an operator who has one, with a Docker of its own behind it."""
    try:
        bed.lab("up", "--name", OPERATOR, "--nodes", "1", "--inventory", str(bed.directory / "operator.yaml"))
        yield Lab(OPERATOR).enter("node1", ["docker"])
    finally:
        bed.lab("down", "--name", OPERATOR, check=False)


def tools(folder: Path, docker: Sequence[str]) -> Path:
    """A folder with that command, as far as `hmctl image push` uses it: save --output FILE NAME, to a file of this machine."""
    folder.mkdir()
    command = folder / "docker"
    command.write_text(f'#!/bin/sh\nset -e\n[ "$1 $2" = "save --output" ]\nexec {shlex.join(docker)} save "$4" > "$3"\n')
    command.chmod(0o755)
    return folder


def archive(path: Path, name: str, program: bytes, size: int = SIZE) -> Path:
    """An image as `docker save` writes it, of one layer: a program as /bin/sleep, and `size` random bytes."""
    layer = path.with_suffix(".layer")
    with tarfile.open(layer, "w") as files:
        _add(files, "bin/sleep", program, mode=0o755)
        _add(files, "content", os.urandom(size))
    with layer.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    root = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"]}, "rootfs": root}).encode()
    id = hashlib.sha256(config).hexdigest()
    manifest = [{"Config": f"{id}.json", "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(path, "w") as image:
        _add(image, f"{id}.json", config)
        image.add(layer, f"{digest}/layer.tar")
        _add(image, "manifest.json", json.dumps(manifest).encode())
    layer.unlink()
    return path


def _add(files: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    files.addfile(entry, io.BytesIO(content))


def by_ssh(bed: Bed, nodes: dict[str, str], docker: Sequence[str], image: str) -> float:
    """Seconds."""
    ssh = yaml.safe_load(bed.inventory.read_text())["ssh"]
    command = ["ssh", "-F", "none", "-i", ssh["key"], "-o", f"UserKnownHostsFile={ssh['known_hosts']}", "-o", "BatchMode=yes"]
    began = time.monotonic()
    try:
        for address in nodes.values():
            with subprocess.Popen([*docker, "save", image], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as saving:
                argv = [*command, f"{ssh['user']}@{address}", RUN.format(image=image)]
                subprocess.run(argv, stdin=saving.stdout, check=True, capture_output=True, timeout=PATIENCE)
            if saving.returncode != 0:
                raise RuntimeError(f"docker save ended with {saving.returncode}")
        return time.monotonic() - began
    finally:
        for node in nodes:
            bed.on(node, "sh", "-c", REMOVE.format(image=image))


def by_us(bed: Bed, nodes: dict[str, str], image: str) -> tuple[float, float, int]:
    """Seconds in all, and of the push alone; bytes that went out to the nodes."""
    before, began = sent_to(nodes), time.time()
    with watch(bed, nodes, {"hypermesh.service": f"{APP}/{SERVICE}"}) as seen:
        try:
            pushed = bed.timed("image", "push", image)
            bed.hmctl("app", "deploy", "--file", "-", "--yes", "--no-wait", stdin=compose(image))
            took = seen.until(count(len(nodes)), PATIENCE, "the image runs on all nodes") - began
            sent = sent_to(nodes) - before
        finally:
            bed.hmctl("app", "rm", APP, "--yes", check=False)
            bed.hmctl("image", "rm", image, "--yes", check=False)
    return took, pushed, sent


def compose(image: str) -> str:
    service = {"image": image, "command": COMMAND, "init": True, "deploy": {"mode": "global"}}
    return json.dumps({"name": APP, "services": {SERVICE: service}})


def sent_to(nodes: dict[str, str]) -> int:
    """Bytes that went out to the lab's hosts so far, of everybody on this machine."""
    devices = {_device(address) for address in nodes.values()}
    return sum(int(Path(f"/sys/class/net/{device}/statistics/tx_bytes").read_text()) for device in devices)


def _device(address: str) -> str:
    told = subprocess.run(["ip", "-j", "route", "get", address], check=True, capture_output=True, text=True, timeout=10).stdout
    return str(json.loads(told)[0]["dev"])
