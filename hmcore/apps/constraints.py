"""Which nodes a service may run on: `node.labels.zone==a`, as Swarm has it, and the labels that replicas are spread over. Pure.

The compose converter refuses with it what no node could ever answer; the scheduler asks it. As in Swarm, values are compared without
regard to case, and a label that a node does not have equals nothing: `==` fails, `!=` holds. Raises UsageError with what is allowed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from hmcore.errors import UsageError
from hmcore.records import Node, Role


class Attribute(StrEnum):
    """What is asked of a node."""

    NAME = "node.name"
    ROLE = "node.role"
    OS = "node.platform.os"
    ARCH = "node.platform.arch"
    LABEL = "node.labels"


@dataclass(frozen=True, slots=True)
class Platform:
    """Of a node, as uname or Docker say: `linux`, `x86_64`; empty: not known yet."""

    os: str = ""
    arch: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """`label` is the label's name, where the attribute is a label."""

    attribute: Attribute
    label: str = ""

    def of(self, node: Node, platform: Platform) -> str:
        """What a node answers, in the form that values are compared in; empty where it has no such label."""
        match self.attribute:
            case Attribute.NAME:
                return _plain(self.attribute, node.name)
            case Attribute.ROLE:
                return _plain(self.attribute, node.role)
            case Attribute.OS:
                return _plain(self.attribute, platform.os)
            case Attribute.ARCH:
                return _plain(self.attribute, platform.arch)
            case Attribute.LABEL:
                return _plain(self.attribute, node.labels.get(self.label, ""))


@dataclass(frozen=True, slots=True)
class Constraint:
    """`value` is in the form that values are compared in."""

    key: Key
    equal: bool
    value: str

    def holds(self, node: Node, platform: Platform) -> bool:
        return (self.key.of(node, platform) == self.value) is self.equal


_CONSTRAINT = re.compile(r"\s*([^\s=!]+)\s*(==|!=)\s*(\S+)\s*", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?")
_VALUE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_SPELLINGS = {
    "node.name": Attribute.NAME,
    "node.hostname": Attribute.NAME,
    "node.role": Attribute.ROLE,
    "node.platform.os": Attribute.OS,
    "node.platform.arch": Attribute.ARCH,
}
_LABELS = "node.labels."
_ELSEWHERE = {
    "node.id": "nodes are known by their names: node.hostname",
    "node.ip": "nodes are known by their names: node.hostname",
    "engine.labels": "labels are the hosts' in cluster.yaml: node.labels.NAME",
}
_FORM = "a constraint is written as node.labels.zone==a, with == or !="
_KEYS = "there are node.hostname, node.role, node.labels.NAME, node.platform.os and node.platform.arch"
_ROLES = {"manager": Role.CONTROL.value, "control": Role.CONTROL.value, "worker": Role.WORKER.value}
_ARCHES = {"amd64": "x86_64", "x86-64": "x86_64", "arm64": "aarch64", "armhf": "armv7l", "armv7": "armv7l", "386": "i686", "i386": "i686"}


def parse(text: str) -> Constraint:
    """`node.role==worker`, also with spaces around the operator. Raises UsageError when no node could answer that."""
    found = _CONSTRAINT.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is no placement constraint", fix=_FORM)
    key, operator, value = parse_key(found[1]), found[2], found[3]
    if not _VALUE.fullmatch(value):
        raise UsageError(f"{value!r} in {text!r} is no value of a node", fix="letters, digits and inner . _ -, without quotes")
    if key.attribute is Attribute.ROLE and value.casefold() not in _ROLES:
        raise UsageError(f"{value!r} in {text!r} is no role of a node", fix="nodes are manager (or control) and worker")
    return Constraint(key, operator == "==", _plain(key.attribute, value))


def parse_key(text: str) -> Key:
    """`node.labels.zone`, as in a preference to spread. Raises UsageError when nodes have no such thing."""
    lower = text.casefold()
    if attribute := _SPELLINGS.get(lower):
        return Key(attribute)
    if lower.startswith(_LABELS):
        label = text[len(_LABELS) :]
        if _LABEL.fullmatch(label):
            return Key(Attribute.LABEL, label)
        raise UsageError(f"{label!r} in {text!r} is no label", fix="letters, digits and inner . _ / -")
    for start, instead in _ELSEWHERE.items():
        if lower == start or lower.startswith(f"{start}."):
            raise UsageError(f"{text!r} is not supported", fix=instead)
    raise UsageError(f"{text!r} is nothing that nodes are asked for", fix=_KEYS)


def _plain(attribute: Attribute, value: str) -> str:
    """Equal for what means the same: case, Swarm's word for a role, an architecture's two names."""
    value = value.casefold()
    match attribute:
        case Attribute.ROLE:
            return _ROLES.get(value, value)
        case Attribute.ARCH:
            return _ARCHES.get(value, value)
        case _:
            return value
