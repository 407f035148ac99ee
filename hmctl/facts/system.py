"""Which machine this is: its identity, addresses, distribution and memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hmctl.facts.base import Topic, number, pairs

COMMAND = r"""
echo "uid=$(id -u)"
echo "machine_id=$(cat /etc/machine-id)"
echo "hostname=$(cat /proc/sys/kernel/hostname)"
echo "kernel=$(cat /proc/sys/kernel/osrelease)"
echo "arch=$(uname -m)"
echo "memory_kb=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
echo "available_kb=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
echo "systemd=$([ -d /run/systemd/system ] && echo yes)"
sed -n 's/^\(ID\|VERSION_ID\|PRETTY_NAME\)=/os_\1=/p' /etc/os-release
ip -o addr show scope global 2>/dev/null | sed -n 's/^[0-9]*: *\([^ ]*\) *inet6\{0,1\} \([^/ ]*\).*/address=\2/p'
"""


@dataclass(frozen=True, slots=True)
class System:
    uid: int
    machine_id: str
    hostname: str
    kernel: str
    arch: str
    os_id: str
    os_version: str
    os_name: str
    memory: int  # bytes
    available: int  # bytes
    systemd: bool
    addresses: tuple[str, ...]  # without those of the loopback interface; empty when the host could not tell


def parse(text: str) -> System:
    found = pairs(text)
    return System(
        uid=number(found.get("uid", ""), default=-1),
        machine_id=found.get("machine_id", ""),
        hostname=found.get("hostname", ""),
        kernel=found.get("kernel", ""),
        arch=found.get("arch", ""),
        os_id=found.get("os_ID", "").strip("\"'"),
        os_version=found.get("os_VERSION_ID", "").strip("\"'"),
        os_name=found.get("os_PRETTY_NAME", "").strip("\"'"),
        memory=number(found.get("memory_kb", "")) * 1024,
        available=number(found.get("available_kb", "")) * 1024,
        systemd=found.get("systemd") == "yes",
        addresses=tuple(re.findall(r"^address=(\S+)$", text, re.MULTILINE)),
    )


TOPIC = Topic("system", COMMAND, parse)
