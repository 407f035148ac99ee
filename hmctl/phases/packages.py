"""Packages that a host lacks: Docker's engine, and what the kernel-side layers need. Installed by the host's own package manager.

Docker and nftables first, then what BPF programs are compiled with, each by itself: one name that the host's package lists do not know must
not keep the engine out. What could not be had is written down on the host with its kernel, and not asked for again until that kernel is
another: a host without a way to a package mirror has "no changes" the second time, and a row in the preflight table instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from hmcore.errors import CommandFailed, LayerMissing
from hmctl import layout
from hmctl.facts.gather import HostFacts
from hmctl.phases.base import Say, Target
from hmctl.remote.base import Remote, Script, check
from hmctl.text import listed

ENGINE = "docker.io"
HEADERS = "linux-headers"  # stands for the package that fits the running kernel; only the host's package lists know its name
FOR_BPF = frozenset({"python3-bpfcc", HEADERS})  # what the security layer loads its programs with; its mode `off` does without
_TIMEOUT = 900.0  # seconds: a slow mirror and a slow disk

# Arguments: the file that lists what we installed (reset --packages reads it), the file that lists what could not be had (`KERNEL NAME`),
# how many of the packages go first and together, the packages. Prints `lacks NAME REASON` for each that could not be installed.
# A name is listed before it is installed, so that no kill in between can lose it, and taken off again if nothing of it came.
# Headers: of exactly this kernel if they are to be had, else the distribution's own choice, as Debian and as Ubuntu call it.
INSTALL = Script(
    "hm-packages",
    r"""
set -e; export DEBIAN_FRONTEND=noninteractive LC_ALL=C
list="$1"; tried="$2"; first="$3"; shift 3
mkdir -p -m 0700 -- "$(dirname -- "$list")"; touch -- "$list" "$tried"
apt() { apt-get -qq -o DPkg::Lock::Timeout=120 "$@"; }
there() { state=$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) && [ "$state" != not-installed ]; }
forget() { { grep -vxF -e "$1" -- "$list" || :; } > "$list.new"; mv -f -- "$list.new" "$list"; }
name() {
  [ "$1" = linux-headers ] || { echo "$1"; return; }
  for p in "linux-headers-$(uname -r)" "linux-headers-$(dpkg --print-architecture)" linux-headers-generic; do
    ! apt-cache show "$p" >/dev/null 2>&1 || break
  done
  echo "$p"
}
install() {
  for p in "$@"; do grep -qxF -e "$p" -- "$list" || printf '%s\n' "$p" >> "$list"; done
  said=$(apt install -y --no-install-recommends "$@" 2>&1 >/dev/null) || {
    for p in "$@"; do there "$p" || forget "$p"; done
    return 1
  }
}
alone() {
  install "$(name "$1")" || {
    printf 'lacks %s %s\n' "$1" "$(printf '%s\n' "$said" "$stale" | grep -m 1 '^E: ' || printf '%s\n' "$said" | head -n 1)"
    [ "$1" = docker.io ] || grep -qxF -e "$(uname -r) $1" -- "$tried" || printf '%s\n' "$(uname -r) $1" >> "$tried"
  }
}
stale=$(apt update 2>&1 >/dev/null) || :
together=
while [ "$first" -gt 0 ]; do together="$together $1"; shift; first=$((first - 1)); done
[ -z "$together" ] || install $together || for wanted in $together; do alone "$wanted"; done
for wanted in "$@"; do alone "$wanted"; done
[ -s "$tried" ] || rm -f -- "$tried"
[ -s "$list" ] || rm -f -- "$list"
""",
)


def lacking(facts: HostFacts) -> tuple[str, ...]:
    """Debian's names of what the host lacks, whoever installs it; those that go first stand first."""
    lacks = []
    if facts.docker.state == "missing":
        lacks.append(ENGINE)
    if facts.packages.manager == "apt" and "nftables" not in facts.packages.installed:
        lacks.append("nftables")
    if facts.python is not None and not facts.python.bcc:
        lacks.append("python3-bpfcc")
    if facts.kernel.headers is None and not any(name.startswith(f"{HEADERS}-") for name in facts.packages.installed):
        lacks.append(HEADERS)
    return tuple(lacks)


def given_up(facts: HostFacts) -> tuple[str, ...]:
    """Of what the host lacks, what an earlier deploy tried in vain to install under this kernel."""
    return tuple(name for name in lacking(facts) if name != ENGINE and (facts.system.kernel, name) in facts.agent.tried)


def to_install(facts: HostFacts) -> tuple[str, ...]:
    """What deploy installs where it may: what is lacking, but for what was given up."""
    if facts.packages.manager is None:
        return ()
    vain = given_up(facts)
    return tuple(name for name in lacking(facts) if name not in vain)


def command(names: tuple[str, ...]) -> str:
    """What a person would type to have them."""
    return f"apt-get install {' '.join('linux-headers-$(uname -r)' if name == HEADERS else name for name in names)}"


@dataclass(frozen=True, slots=True)
class InstallPackages:
    """`missing` says what to do where something cannot be installed: go without (the layers that need it degrade), or refuse the host.
    `bpf`: whether the security layer will want what BPF programs are compiled with."""

    missing: Literal["degrade", "refuse"]
    bpf: bool = True
    title = "Install packages"
    doing = "installing packages"

    def plan(self, target: Target) -> tuple[str, ...]:
        packages = target.desired.packages
        return (f"install packages: {', '.join(packages)}",) if packages else ()

    async def run(self, target: Target, remote: Remote, say: Say) -> str | None:
        wanted = target.desired.packages
        say(", ".join(wanted))
        together = sum(name not in FOR_BPF for name in wanted)
        try:
            said = await check(remote, INSTALL.argv(layout.PACKAGES, layout.TRIED, str(together), *wanted), timeout=_TIMEOUT)
            lacks = dict(re.findall(r"^lacks (\S+) (.*)$", said.decode(errors="replace"), re.MULTILINE))
        except CommandFailed as error:
            lacks = dict.fromkeys(wanted, (error.stderr.strip().splitlines() or ["no reason given"])[0])
        if not lacks:
            return None
        message = f"{listed(list(lacks))} cannot be installed: {'; '.join(dict.fromkeys(lacks.values()))}"
        if self.missing == "degrade" or (not self.bpf and lacks.keys() <= FOR_BPF):
            return message
        raise LayerMissing(message, host=target.name, fix=f"on {target.name}: {command(tuple(lacks))}")

    async def undo(self, target: Target, remote: Remote) -> None:
        """apt and dpkg leave things so that running them again continues."""
