"""Packages that a host lacks: Docker's engine, and what the kernel-side layers need. Installed by the host's own package manager."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hmcore.errors import CommandFailed, LayerMissing
from hmctl import layout
from hmctl.facts.gather import HostFacts
from hmctl.phases.base import Say, Target
from hmctl.remote.base import Remote, Script, check

HEADERS = "linux-headers"  # stands for the package that fits the running kernel; only the host's package lists know its name
_TIMEOUT = 900.0  # seconds: a slow mirror and a slow disk

# Headers of exactly this kernel if they are to be had, else the distribution's own choice. What we installed is noted for reset.
INSTALL = Script(
    "hm-packages",
    'set -e; export DEBIAN_FRONTEND=noninteractive LC_ALL=C; list="$1"; shift; '
    "apt-get -qq -o DPkg::Lock::Timeout=120 update; wanted=; "
    'for p in "$@"; do if [ "$p" = linux-headers ]; then p="linux-headers-$(uname -r)"; '
    'apt-cache show "$p" >/dev/null 2>&1 || p="linux-headers-$(dpkg --print-architecture)"; fi; wanted="$wanted $p"; done; '
    "apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends $wanted >/dev/null; "
    'mkdir -p -m 0700 -- "$(dirname -- "$list")"; printf "%s\\n" $wanted >> "$list"',
)


def lacking(facts: HostFacts) -> tuple[str, ...]:
    """Debian's names of what the host lacks, whoever installs it."""
    lacks = []
    if facts.docker.state == "missing":
        lacks.append("docker.io")
    if facts.python is not None and not facts.python.bcc:
        lacks.append("python3-bpfcc")
    if facts.kernel.headers is None and not any(name.startswith(f"{HEADERS}-") for name in facts.packages.installed):
        lacks.append(HEADERS)
    if facts.packages.manager == "apt" and "nftables" not in facts.packages.installed:
        lacks.append("nftables")
    return tuple(lacks)


@dataclass(frozen=True, slots=True)
class InstallPackages:
    """`missing` says what to do where they cannot be installed: go without (the layers that need them degrade), or refuse the host."""

    missing: Literal["degrade", "refuse"]
    title = "Install packages"
    doing = "installing packages"

    def plan(self, target: Target) -> tuple[str, ...]:
        packages = target.desired.packages
        return (f"install packages: {', '.join(packages)}",) if packages else ()

    async def run(self, target: Target, remote: Remote, say: Say) -> str | None:
        wanted = target.desired.packages
        say(", ".join(wanted))
        try:
            await check(remote, INSTALL.argv(layout.PACKAGES, *wanted), timeout=_TIMEOUT)
        except CommandFailed as error:
            said = (error.stderr.strip().splitlines() or ["no reason given"])[0]
            message = f"{', '.join(wanted)} cannot be installed: {said}"
            if self.missing == "degrade":
                return message
            raise LayerMissing(message, host=target.name, fix=f"on {target.name}: apt-get install {' '.join(wanted)}") from None
        return None

    async def undo(self, target: Target, remote: Remote) -> None:
        """apt and dpkg leave things so that running them again continues."""
