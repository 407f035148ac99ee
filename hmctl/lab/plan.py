"""Names, addresses and sizes of labs. Pure: what is taken comes in, what to take goes out.

A lab is a switch (a network namespace with a bridge) and hosts node1, node2 ... cabled to it. It owns one /24 of 198.18.0.0/15, which
RFC 2544 sets aside for benchmarks, so that it cannot be anybody's real network. Host i has address .i, the machine itself .254.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hmcore.errors import LabError, UsageError
from hmcore.records import Role

SUBNETS = 512  # /24s in 198.18.0.0/15
MAX_HOSTS = 100
DEFAULT_HOSTS = 3
DEFAULT_NAME = "lab"
CONTROL_HOSTS = 3
OPERATOR = 254  # last part of the address that this machine has in a lab
GATEWAY = 253  # of the switch, which answers "no route" to whatever leads out

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?")
_NODE = re.compile(r"node([1-9][0-9]{0,2})")


class Cgroups(StrEnum):
    """What the hosts see at /sys/fs/cgroup. `machine`: the hierarchies that this machine has. `unified`: version 2 alone, as Debian 11,
    Ubuntu 21.10 and later boot by default, whatever this machine has; controllers that it uses in version 1 are missing there."""

    MACHINE = "machine"
    UNIFIED = "unified"


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 address of a lab."""

    subnet: int
    host: int

    def __str__(self) -> str:
        return f"198.{18 + self.subnet // 256}.{self.subnet % 256}.{self.host}"

    @property
    def mac(self) -> str:
        """A locally administered MAC. Fixed, so that a host that comes back is found by those who remember it."""
        return f"02:48:4d:{self.subnet // 256:02x}:{self.subnet % 256:02x}:{self.host:02x}"


@dataclass(frozen=True, slots=True)
class Names:
    """What the parts of a lab are called in the kernel. All start with `hm`, and none can be another lab's."""

    lab: str

    @property
    def switch(self) -> str:
        return f"hm-{self.lab}-switch"

    def host(self, node: str) -> str:
        """The host's network namespace, cgroup and machine name."""
        return f"hm-{self.lab}-{node}"

    def node(self, name: str) -> str | None:
        """The node that a kernel name belongs to, or None if it is not a host of this lab."""
        node = name.removeprefix(f"hm-{self.lab}-")
        return node if node != name and _NODE.fullmatch(node) else None


def uplink(subnet: int) -> str:
    """The interface through which this machine reaches a lab (15 characters at most)."""
    return f"hmlab{subnet}"


def check_name(name: str) -> str:
    """The lab's name, or UsageError: it becomes part of interface, cgroup and file names."""
    if not _NAME.fullmatch(name):
        message = f"{name!r} cannot be a lab's name: up to 20 of a-z, 0-9 and -, beginning with a letter, not ending in -"
        raise UsageError(message, fix="choose such a name: --name lab2")
    return name


def node_names(count: int) -> tuple[str, ...]:
    """node1 ... nodeN. Raises UsageError for a size that no lab can have."""
    if not 1 <= count <= MAX_HOSTS:
        raise UsageError(
            f"a lab has 1 to {MAX_HOSTS} hosts, not {count}", fix=f"--nodes {MAX_HOSTS if count > MAX_HOSTS else DEFAULT_HOSTS}"
        )
    return tuple(f"node{index}" for index in range(1, count + 1))


def node_index(node: str) -> int:
    """1 for node1."""
    match = _NODE.fullmatch(node)
    if match is None:
        raise UsageError(f"{node!r} is no host's name: they are called node1, node2 ...", fix="hmctl lab ls shows them")
    return int(match[1])


def free_subnet(taken: Collection[int]) -> int:
    """The lowest subnet that nobody uses. Raises LabError when there is none."""
    for subnet in range(SUBNETS):
        if subnet not in taken:
            return subnet
    raise LabError(f"all {SUBNETS} lab networks are in use", fix="hmctl lab ls, then hmctl lab down --name NAME")


def subnets_of(addresses: Iterable[str]) -> frozenset[int]:
    """The lab subnets that IPv4 addresses fall into; others are ignored."""
    found = set()
    for address in addresses:
        match = re.fullmatch(r"198\.(18|19)\.(\d{1,3})\.\d{1,3}", address)
        if match:
            found.add((int(match[1]) - 18) * 256 + int(match[2]))
    return frozenset(found)


def role(node: str, count: int) -> Role:
    """The first three hosts vote; of two, only the first: two voters are worse than one."""
    voters = 1 if count < CONTROL_HOSTS else CONTROL_HOSTS
    return Role.CONTROL if node_index(node) <= voters else Role.WORKER


def split_groups(words: Sequence[str]) -> list[list[str]]:
    """The words `node1,node2 / node3` as groups."""
    return [re.split(r"[,\s]+", side.strip(" ,")) for side in " ".join(words).split("/")]


def check_groups(groups: Sequence[Sequence[str]], nodes: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """The groups of a partition. Raises UsageError for unknown hosts, a host in two groups, an empty group, or fewer than two groups."""
    named = [node for group in groups for node in group]
    if len(groups) < 2 or not all(named) or not all(groups):
        raise UsageError("a partition has two sides or more, each with a host", fix="hmctl lab partition node1,node2 / node3")
    for node in named:
        if node not in nodes:
            raise UsageError(f"there is no host {node!r} in this lab", fix=f"one of {', '.join(sorted(nodes, key=node_index))}")
    twice = sorted({node for node in named if named.count(node) > 1})
    if twice:
        raise UsageError(f"{', '.join(twice)} cannot be on two sides of a partition", fix="name every host on one side")
    return tuple(map(tuple, groups))
