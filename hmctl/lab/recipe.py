"""What the base image of a host is made of. Pure: a recipe is a value, its digest names the image, wherever its packages come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from hmctl.lab.apt import Release

SETUP_SCRIPT = Path(__file__).with_name("setup.sh")
# dpkg's own settings in the image: hosts are thrown away, and nobody reads manuals in them.
DPKG_SETTINGS = """force-unsafe-io
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/doc/*
"""
DIGEST_LENGTH = 16  # hex digits; only ever a handful of images exist side by side

# A bare system that boots and that SSH reaches.
_BOOTSTRAP = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "python3",
    "iproute2",
    "ca-certificates",
    "sudo",
    "procps",
    "busybox-static",
)
# What carries a cluster node: a container engine, packet filters, and what compiles and shows eBPF programs.
_NODE = ("docker.io", "iptables", "nftables", "python3-bpfcc")
# What looks at a node from outside: the load of the benchmarks, and the judge and reader of our metrics.
_WITNESSES = ("iperf3", "prometheus")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The ingredients of a base image."""

    release: Release
    architecture: str  # Debian's name: amd64, arm64
    components: tuple[str, ...]
    bootstrap: tuple[str, ...]
    packages: tuple[str, ...]
    setup: str

    @property
    def digest(self) -> str:
        """Names the image: the same ingredients, the same digest."""
        parts = (
            self.release.distribution,
            self.release.suite,
            self.architecture,
            *self.components,
            "",
            *self.bootstrap,
            "",
            *self.packages,
            "",
            DPKG_SETTINGS,
            self.setup,
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:DIGEST_LENGTH]


def recipe_for(release: Release, architecture: str, setup: str) -> Recipe:
    """The recipe for a machine's own release; Ubuntu keeps some packages under other names and in `universe`."""
    if release.distribution == "ubuntu":
        tools = ("linux-headers-generic", "linux-tools-common", "linux-tools-generic")
        return Recipe(release, architecture, ("main", "universe"), _BOOTSTRAP, _NODE + tools + _WITNESSES, setup)
    return Recipe(release, architecture, ("main",), _BOOTSTRAP, (*_NODE, f"linux-headers-{architecture}", "bpftool", *_WITNESSES), setup)
