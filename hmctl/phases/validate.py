"""Preflight: can these hosts carry nodes, and do they fit together? Pure: facts in, checks out; nothing has been changed yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal

from hmctl.bundle.build import ARCHITECTURES, GLIBC, OLDEST_PYTHON
from hmctl.facts.gather import HostFacts
from hmctl.phases.packages import FOR_BPF, HEADERS, command, given_up, lacking, to_install
from hmctl.render import PYTHON
from hmctl.text import listed, size

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, Inventory

MB = 1_000_000
CLOCK_WARN, CLOCK_REFUSE = 1.0, 60.0  # seconds beside ours
NEED_OPT = 250 * MB  # two releases side by side
NEED_STATE, WANT_STATE = 200 * MB, 2000 * MB
NEED_MEMORY, WANT_MEMORY = 400 * MB, 900 * MB
OLDEST_DOCKER = (20, 10)


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at and found. An error stops the deploy before it changes anything; a warning is shown and changes nothing, not even
    the exit code; what could not be looked at is a warning that says "unknown". `host` is None for what concerns several."""

    host: str | None
    name: str
    status: Literal["ok", "warn", "error"]
    message: str
    fix: str | None = None


def validate(inventory: Inventory, hosts: Sequence[Host], facts: Mapping[str, HostFacts]) -> list[Check]:
    """Every check on every one of `hosts` that `facts` know, in the order of the inventory; then those that compare hosts."""
    checks = []
    for host in hosts:
        if host.name in facts:
            for examine in _EXAMINATIONS:
                checks += list(examine(inventory, host, facts[host.name]))
    return checks + list(_unique(hosts, facts)) + list(_apart({host.name: facts[host.name] for host in hosts if host.name in facts}))


def _system(inventory: Inventory, host: Host, facts: HostFacts) -> Iterator[Check]:
    system = facts.system
    if not system.systemd:
        yield Check(
            host.name, "systemd", "error", "it does not run systemd, which keeps the agent alive", "use a distribution with systemd"
        )
    if system.arch not in ARCHITECTURES:
        yield Check(host.name, "architecture", "error", f"there is no agent for {system.arch}, only for {listed(ARCHITECTURES)}")
    else:
        yield Check(host.name, "system", "ok", f"{system.os_name or system.os_id} on {system.arch}, Linux {system.kernel}")


def _identity(inventory: Inventory, host: Host, facts: HostFacts) -> Iterator[Check]:
    """What _unique compares must be there to be compared."""
    if facts.system.machine_id:
        yield Check(host.name, "machine-id", "ok", facts.system.machine_id)
    else:
        message = "unknown: /etc/machine-id is empty or missing, so nobody can tell whether it is a clone of another host"
        yield Check(host.name, "machine-id", "warn", message, f"on {host.name}: systemd-machine-id-setup, then reboot")
    if not facts.system.hostname:
        yield Check(host.name, "hostname", "warn", "unknown: it did not say", f"on {host.name}: hostnamectl set-hostname {host.name}")


def _python(inventory: Inventory, host: Host, facts: HostFacts) -> Iterator[Check]:
    python, oldest = facts.python, f"{OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]}"
    if python is None:
        yield Check(
            host.name,
            "python",
            "error",
            f"there is no {host.ssh.python}",
            f"on {host.name}: apt-get install python3 ({oldest} or newer), or name another one: ssh.python",
        )
        return
    version = ".".join(map(str, python.version))
    if python.version[:2] < OLDEST_PYTHON:
        message = f"{python.executable} is Python {version}; the agent needs {oldest} or newer"
        yield Check(host.name, "python", "error", message, f"install Python {oldest} beside it and name it: ssh.python")
    elif not PYTHON.fullmatch(python.executable):
        yield Check(
            host.name, "python", "error", f"the path {python.executable!r} cannot stand in a unit file", "name another one: ssh.python"
        )
    elif not _new_enough(python.libc, GLIBC):
        yield Check(
            host.name, "python", "error", f"its C library is {python.libc or 'unknown'}; releases need glibc {GLIBC[0]}.{GLIBC[1]} or newer"
        )
    else:
        yield Check(host.name, "python", "ok", f"Python {version}, {python.libc}")


def _new_enough(libc: str, oldest: tuple[int, int]) -> bool:
    name, _, version = libc.partition("-")
    parts = version.split(".")
    return name == "glibc" and len(parts) >= 2 and parts[0].isdigit() and parts[1].isdigit() and (int(parts[0]), int(parts[1])) >= oldest


def _packages(inventory: Inventory, host: Host, facts: HostFacts) -> Iterator[Check]:
    lacks = lacking(facts)
    if not lacks:
        yield Check(host.name, "packages", "ok", "nothing is missing")
        return
    refuse = inventory.settings.optional_layers == "refuse"
    optional = FOR_BPF if inventory.settings.security.mode == "off" else frozenset[str]()
    fix = f"on {host.name}: {command(lacks)}"
    if inventory.packages == "require":
        yield Check(host.name, "packages", "error", f"{listed(lacks)} missing, and the inventory says packages: require", fix)
    elif facts.packages.manager is None:
        message = f"{listed(lacks)} missing, and {facts.system.os_name or 'its system'} has no apt-get to install them with"
        bad = refuse and not optional.issuperset(lacks)
        yield Check(host.name, "packages", "error" if bad else "warn", message, f"install on {host.name} what brings them")
    else:
        vain, planned = given_up(facts), to_install(facts)
        if vain:
            message = (
                f"{listed(vain)} missing: an earlier deploy could not install {'it' if len(vain) == 1 else 'them'}, and does not try again"
            )
            bad = refuse and not optional.issuperset(vain)
            yield Check(host.name, "packages", "error" if bad else "warn", message, f"on {host.name}: {command(vain)}")
        if planned:
            yield Check(host.name, "packages", "ok", f"{listed(planned)} will be installed")


def _docker(inventory: Inventory, host: Host, facts: HostFacts) -> Iterator[Check]:
    docker = facts.docker
    if docker.state == "down":
        refuse = inventory.settings.optional_layers == "refuse"
        message = f"Docker is installed but does not answer: {docker.error or 'no reason given'}"
        yield Check(host.name, "docker", "error" if refuse else "warn", message, f"on {host.name}: systemctl enable --now docker")
    elif docker.state == "running":
        parts = docker.version.split(".")
        known = len(parts) >= 2 and parts[0].isdigit() and parts[1].isdigit()
        if known and (int(parts[0]), int(parts[1])) < OLDEST_DOCKER:
            yield Check(
                host.name, "docker", "warn", f"Docker {docker.version} is older than {OLDEST_DOCKER[0]}.{OLDEST_DOCKER[1]}: untested"
            )
        else:
            yield Check(host.name, "docker", "ok", f"Docker {docker.version}")


def _kernel(inventory: Inventory, host: Host, facts: HostFacts) -> Iterator[Check]:
    kernel = facts.kernel
    if kernel.cgroups == "none":
        yield Check(host.name, "cgroups", "warn", "there are no control groups: containers cannot be limited", "mount cgroup2")
    elif kernel.cgroup2 is None:
        yield Check(
            host.name, "cgroups", "warn", "cgroup2 is not mounted: what containers do cannot be counted", "boot with the unified hierarchy"
        )
    else:
        yield Check(host.name, "cgroups", "ok", f"{kernel.cgroups}, at {kernel.cgroup2}")
    yield _bpf(inventory, host, facts)


def _bpf(inventory: Inventory, host: Host, facts: HostFacts) -> Check:
    """What the security layer wants of the kernel. (Its packages have a row of their own.)"""
    kernel = facts.kernel
    if inventory.settings.security.mode == "off":
        return Check(host.name, "bpf", "ok", "not used: settings.security.mode is off")
    if kernel.bpffs is None:
        status: Literal["error", "warn"] = "error" if inventory.settings.optional_layers == "refuse" else "warn"
        message = "no bpf file system is mounted: the security layer cannot load its programs"
        return Check(host.name, "bpf", status, message, f"on {host.name}: mount -t bpf bpf /sys/fs/bpf")
    if kernel.headers is None and HEADERS not in lacking(facts):  # some are installed, but of another kernel: they will mostly do
        message = f"there are no headers of its kernel {facts.system.kernel}: programs are compiled with the newest that are installed"
        return Check(
            host.name, "bpf", "warn", message, f"on {host.name}: {command((HEADERS,))} (or boot the kernel whose headers are there)"
        )
    return Check(host.name, "bpf", "ok", f"bpffs at {kernel.bpffs}, headers {kernel.headers or 'to be installed'}")


def _clock(inventory: Inventory, host: Host, facts: HostFacts) -> Iterator[Check]:
    level = _clock_level(abs(facts.clock_offset) - facts.clock_error)
    said = f"its clock is {abs(facts.clock_offset):.1f} s {'ahead of' if facts.clock_offset > 0 else 'behind'} this machine's"
    fix = f"on {host.name}: timedatectl set-ntp true; and look at this machine's clock"
    if level == "error":
        yield Check(host.name, "clock", "error", f"{said}: certificates and logs would not fit together", fix)
    elif level == "warn":
        yield Check(host.name, "clock", "warn", said, fix)
    else:
        yield Check(host.name, "clock", "ok", f"within {abs(facts.clock_offset) + facts.clock_error:.2f} s of ours")


def _clock_level(surely: float) -> Literal["ok", "warn", "error"]:
    """How bad it is that two clocks differ by at least so many seconds."""
    return "error" if surely > CLOCK_REFUSE else "warn" if surely > CLOCK_WARN else "ok"


def _apart(facts: Mapping[str, HostFacts]) -> Iterator[Check]:
    """The two hosts whose clocks are furthest apart: each may be near ours, one ahead and one behind. Silent where what was said about
    one of the two by itself is as bad."""
    if len(facts) < 2:
        return
    ahead = max(facts.values(), key=lambda known: known.clock_offset - known.clock_error)
    behind = min((known for known in facts.values() if known is not ahead), key=lambda known: known.clock_offset + known.clock_error)
    level = _clock_level((ahead.clock_offset - ahead.clock_error) - (behind.clock_offset + behind.clock_error))
    alone = [_clock_level(abs(known.clock_offset) - known.clock_error) for known in (ahead, behind)]
    if level != "ok" and level not in alone and "error" not in alone:
        message = f"the clocks of {ahead.name} and {behind.name} are {ahead.clock_offset - behind.clock_offset:.1f} s apart"
        yield Check(None, "clock", level, message, "on both: timedatectl set-ntp true")


def _room(inventory: Inventory, host: Host, facts: HostFacts) -> Iterator[Check]:
    free = {disk.path: disk for disk in facts.disks}
    needs = (("/opt", NEED_OPT, "for releases"), ("/var/lib", NEED_STATE, "for its journal"), ("/etc", MB, "for its configuration"))
    if unread := [path for path, _, _ in needs if path not in free]:
        message = f"unknown how much is free in {listed(unread)}: df did not say"
        yield Check(host.name, "disk", "warn", message, f"on {host.name}: df -Pk {' '.join(unread)} says why")
    short = False
    for path, need, what in needs:
        disk = free.get(path)
        if disk is not None and disk.free < need:
            short = True
            message = f"{size(disk.free)} free on {disk.mount}; {size(need)} are needed {what} in {path}"
            yield Check(
                host.name, "disk", "error", message, f"make room on {host.name}: journalctl --vacuum-size=100M; docker system prune"
            )
    state = free.get("/var/lib")
    if not short and state is not None:
        yield Check(host.name, "disk", "warn" if state.free < WANT_STATE else "ok", f"{size(state.free)} free for state")
    memory = facts.system.memory
    if memory < NEED_MEMORY:
        yield Check(host.name, "memory", "error", f"{size(memory)} of memory; an agent with Docker needs {size(NEED_MEMORY)}")
    else:
        yield Check(host.name, "memory", "warn" if memory < WANT_MEMORY else "ok", f"{size(memory)} of memory")


def _ports(inventory: Inventory, host: Host, facts: HostFacts) -> Iterator[Check]:
    ours = facts.agent.unit.pid
    held = [holder for holder in facts.ports if holder.port == host.port and (holder.pid is None or holder.pid != ours)]
    if facts.agent.unit.active == "active" and ours:
        held = [holder for holder in held if holder.pid is not None]  # the kernel did not say whose: it is our own agent's
    if not held:
        yield Check(host.name, "ports", "ok", f"UDP and TCP {host.port} are free or ours")
    for holder in held:
        who = f"{holder.process} (process {holder.pid})" if holder.process else "another process"
        message = f"{holder.protocol.upper()} port {host.port} is held by {who}"
        yield Check(host.name, "ports", "error", message, f"stop it, or give {host.name} another port: in the inventory")


def _address(inventory: Inventory, host: Host, facts: HostFacts) -> Iterator[Check]:
    addresses = facts.system.addresses
    if not addresses:
        message = f"unknown whether {host.address} is its own: it did not say which addresses it has"
        yield Check(host.name, "address", "warn", message, f"on {host.name}: apt-get install iproute2")
    elif not _is_ip(host.address):  # names are good; who reaches whom is tried over the wire
        yield Check(host.name, "address", "ok", f"unknown whether {host.address} is its own: it is a name, and its address may be any")
    elif host.address in addresses:
        yield Check(host.name, "address", "ok", f"{host.address} is its own")
    else:
        message = f"{host.address} is none of its own addresses ({listed(addresses)}): fine behind a NAT that forwards UDP {host.port}"
        yield Check(host.name, "address", "warn", message, "give the address that other nodes reach: address")


def _unique(hosts: Sequence[Host], facts: Mapping[str, HostFacts]) -> Iterator[Check]:
    """What two hosts must not share."""
    kinds: tuple[tuple[str, Callable[[HostFacts], str], str], ...] = (
        (
            "machine-id",
            lambda known: known.system.machine_id,
            "on one of them: rm /etc/machine-id && systemd-machine-id-setup, then reboot",
        ),
        ("hostname", lambda known: known.system.hostname, "on one of them: hostnamectl set-hostname NAME"),
    )
    for what, read, fix in kinds:
        names: dict[str, list[str]] = defaultdict(list)
        for host in hosts:
            if host.name in facts:
                names[read(facts[host.name])].append(host.name)
        for value, same in names.items():
            if value and len(same) > 1:
                hint = "cloned machines, or one machine listed twice"
                yield Check(None, what, "error", f"{listed(same)} have the same {what}, {value} ({hint})", fix)
    owners: dict[str, list[str]] = defaultdict(list)
    for name, known in facts.items():
        for address in known.system.addresses:
            owners[address].append(name)
    for host in hosts:
        others = owners[host.address] if host.name in facts and _is_ip(host.address) else []
        for other in others if host.name not in others else []:
            yield Check(host.name, "address", "error", f"its address {host.address} is that of {other}", "correct the inventory")


def _is_ip(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True


_EXAMINATIONS = (_system, _identity, _python, _packages, _docker, _kernel, _clock, _room, _ports, _address)
