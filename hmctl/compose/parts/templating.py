"""Swarm's templates in compose files: where nodes fill them in, and where they do not. Pure."""

from __future__ import annotations

from hmcore.apps import templates
from hmctl.compose.parts.names import HOST
from hmctl.compose.parts.part import Part

INSTEAD = "a path of the node, such as /srv/data-{{.Task.Slot}}, or a service with a volume of its own for each replica"


def checked(part: Part, text: str) -> str:
    """`text`, which `part` says, and which a node fills in."""
    for each in templates.unknown(text)[:1]:
        part.unsupported(f"there are {templates.KNOWN}", f"{each[:60]} is a template that nobody fills in here", then="it stays as it is")
    return text


def hostname_of(part: Part) -> str:
    text = part.text()
    if text and not HOST.holds(templates.without(text, "x")):
        unknown = templates.unknown(text)
        part.wrong(f"cannot be {text[:80]!r}", f"there are {templates.KNOWN}" if unknown else HOST.says)
        return ""
    return text


def refused(part: Part, text: str) -> bool:
    """Whether `text` has a template, in a volume's name or options, where nobody fills it in; that is noted."""
    if not templates.has_any(text):
        return False
    part.wrong("a volume is on one node, and the same for all replicas: no template is filled in here", INSTEAD)
    return True
