"""All topics in one round trip: one shell script on stdin, sections on stdout."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hmcore.errors import SudoRefused, Unreachable
from hmctl.facts import agent, disks, kernel, packages, ports, runtime, system
from hmctl.facts.base import Topic, decimal, pairs
from hmctl.remote.base import Remote

_TOPICS: tuple[Topic[Any], ...] = (
    system.TOPIC,
    runtime.TOPIC,
    kernel.TOPIC,
    disks.TOPIC,
    ports.TOPIC,
    packages.TOPIC,
    agent.TOPIC,
)
_MARK = "==== hypermesh facts: "


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What one round trip told us about a host. `clock_offset`: its clock minus ours, in seconds, known to within `clock_error`."""

    name: str
    system: system.System
    python: runtime.Python | None
    docker: runtime.Docker
    kernel: kernel.Kernel
    disks: tuple[disks.Disk, ...]
    ports: tuple[ports.Holder, ...]
    packages: packages.Packages
    agent: agent.Agent
    clock_offset: float = 0.0
    clock_error: float = 0.0


def script(python: str) -> str:
    """The whole script. It prints the host's clock first and last: between our two readings of ours, that gives the offset."""
    lines = [
        "export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        f"HM_PYTHON={shlex.quote(python)}",
        f"echo; echo '{_MARK}began'; date +time=%s.%N",
    ]
    for topic in _TOPICS:
        lines += [f"echo; echo '{_MARK}{topic.name}'", "{", topic.command.strip("\n"), "} </dev/null 2>/dev/null"]
    lines.append(f"echo; echo '{_MARK}ended'; date +time=%s.%N; exit 0")
    return "\n".join(lines) + "\n"


async def gather(remote: Remote, *, timeout: float, clock: Callable[[], float] = time.time) -> HostFacts:
    """Asks the host. Raises SudoRefused when we are not root there and may not become it, Unreachable when it does not answer."""
    asked = clock()
    done = await remote.run(["sh", "-s"], stdin=script(remote.host.ssh.python).encode(), sudo=True, timeout=timeout)
    answered = clock()
    sections = split(done.stdout.decode(errors="replace"))
    name, target = remote.host.name, remote.host.ssh
    if "began" not in sections:
        said = done.stderr.strip().splitlines()
        other = "correct ssh.sudo_password" if target.sudo_password else "NOPASSWD, or set ssh.sudo_password"
        raise SudoRefused(
            f"{target.user or 'we'} may not use sudo there{': ' + said[-1] if said else ''}",
            host=name,
            fix=f"let {target.user or 'that user'} use sudo ({other}), or connect as root (ssh.user)",
        )
    if "ended" not in sections:
        raise Unreachable(f"it stopped answering while we asked about it (status {done.status})", host=name)
    facts = parse(name, sections, asked, answered)
    if facts.system.uid != 0:
        raise SudoRefused(
            f"{target.user or 'the user'} is not root there", host=name, fix="set ssh.sudo: true, or connect as root (ssh.user)"
        )
    return facts


def split(text: str) -> dict[str, str]:
    """Sections by topic. Anything before the first mark (a login banner) belongs to none."""
    parts = re.split(rf"^{re.escape(_MARK)}(\w+)$", text, flags=re.MULTILINE)
    return {name: body.strip("\n") for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def parse(name: str, sections: dict[str, str], asked: float, answered: float) -> HostFacts:
    """The facts from the sections, and the clock's offset from when we asked and were answered (our clock, Unix seconds)."""
    began, ended = (decimal(pairs(sections.get(key, "")).get("time", "")) for key in ("began", "ended"))
    offset = error = 0.0
    if began is not None and ended is not None:
        # Its first reading came after we asked, its last before we were answered: the offset lies between the two differences.
        low, high = ended - answered, began - asked
        offset, error = (low + high) / 2, abs(high - low) / 2
    ran = runtime.parse(sections.get("runtime", ""))
    return HostFacts(
        name=name,
        system=system.parse(sections.get("system", "")),
        python=ran.python,
        docker=ran.docker,
        kernel=kernel.parse(sections.get("kernel", "")),
        disks=disks.parse(sections.get("disks", "")),
        ports=ports.parse(sections.get("ports", "")),
        packages=packages.parse(sections.get("packages", "")),
        agent=agent.parse(sections.get("agent", "")),
        clock_offset=offset,
        clock_error=error,
    )
