"""Swarm's templates: what a replica's hostname, environment and paths on its node may say of where and what it is. Pure.

The compose converter refuses those that nobody fills in; a node fills in the others when it makes a container. Any other text in double
braces is not for us, and stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

KNOWN = (
    "{{.Node.ID}}, {{.Node.Hostname}}, {{.Service.ID}}, {{.Service.Name}}, {{.Service.Labels.NAME}}, {{.Task.ID}}, {{.Task.Name}},"
    " {{.Task.Slot}}"
)
_TEMPLATE = re.compile(
    r"\{\{\s*(?:\.(?P<key>Node\.(?:ID|Hostname)|Service\.(?:ID|Name)|Task\.(?:ID|Name|Slot))"
    r'|\.Service\.Labels\.(?P<label>[A-Za-z_][A-Za-z0-9_]*)|index\s+\.Service\.Labels\s+"(?P<quoted>[^"\\{}]+)")\s*\}\}',
    re.ASCII,
)
_MEANT = re.compile(r"\{\{[^{}]*?(?<![\w.])\.(?:Node|Service|Task)\.[^{}]*(?:\}\})?", re.ASCII)  # Swarm's, also those that we do not know


@dataclass(frozen=True, slots=True)
class Replica:
    """What templates may name. `slot` 0: of a global service. `labels`: the service's own."""

    node: str
    app: str
    service: str
    slot: int
    serial: int
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def service_name(self) -> str:
        """As Swarm calls the services of a stack."""
        return f"{self.app}_{self.service}"

    @property
    def turn(self) -> str:
        """Swarm has the node here where replicas are not counted."""
        return str(self.slot) if self.slot else self.node

    @property
    def name(self) -> str:
        """No other replica ever has it."""
        return f"{self.service_name}.{self.turn}.{self.serial}"


def filled(text: str, replica: Replica) -> str:
    """A label that the service does not have is empty."""
    values = {
        "Node.ID": replica.node,
        "Node.Hostname": replica.node,
        "Service.ID": replica.service_name,
        "Service.Name": replica.service_name,
        "Task.ID": replica.name,
        "Task.Name": replica.name,
        "Task.Slot": replica.turn,
    }
    return _TEMPLATE.sub(lambda found: values[found["key"]] if found["key"] else replica.labels.get(_label(found), ""), text)


def unknown(text: str) -> list[str]:
    """Those that Swarm, or somebody who wrote for it, has and we have not."""
    return _MEANT.findall(_TEMPLATE.sub("", text))


def labels_in(texts: Iterable[str]) -> Iterator[str]:
    """The service's labels that are named: a container is made of them, too."""
    for text in texts:
        if "{{" in text:
            yield from (_label(found) for found in _TEMPLATE.finditer(text) if not found["key"])


def has_any(text: str) -> bool:
    return "{{" in text and (_TEMPLATE.search(text) is not None or _MEANT.search(text) is not None)


def without(text: str, stand_in: str) -> str:
    """With `stand_in` for each template: to see whether the rest can be."""
    return _TEMPLATE.sub(lambda _: stand_in, text)


def _label(found: re.Match[str]) -> str:
    return found["label"] or found["quoted"]
