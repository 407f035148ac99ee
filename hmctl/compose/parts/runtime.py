"""What a container may do and how it is run: rights, limits of the kernel, devices, words of its command. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hmcore.apps.spec import Logging, Ulimit
from hmctl.compose.parts import words
from hmctl.compose.parts.names import CAPABILITY, DEVICE, DRIVER, LABEL, OPTION, SYSCTL, ULIMIT
from hmctl.compose.parts.part import Part

_PERMISSIONS = re.compile(r"[rwm]{1,3}", re.ASCII)
_CDI = re.compile(r"[A-Za-z0-9.-]+/[A-Za-z0-9_.-]+=[A-Za-z0-9_.:-]+", re.ASCII)
_SECURITY = re.compile(
    r"no-new-privileges(?:[:=](?:true|false))?|apparmor[:=][A-Za-z0-9_./-]{1,255}|label[:=][a-z]+(?::[A-Za-z0-9_.,:-]{1,255})?", re.ASCII
)
_MOST = (1 << 63) - 1
_RESERVED = "hypermesh."
_ALLOWED = ("hypermesh.port", "hypermesh.version")  # what the registry reads
_COMPOSES = "com.docker.compose."


def command(part: Part) -> tuple[str, ...] | None:
    """None: what the image says. Empty: nothing, whatever the image says."""
    if part.value is None:
        return None
    if not isinstance(part.value, str):
        return tuple(entry.scalar() for entry in part.entries())
    split = words.split(part.text())
    if split is None:
        part.wrong("cannot be split into words: a quote does not end, or a bracket is not quoted", "a list of words, or sh -c '...'")
        return ()
    if split.dropped:
        dropped = split.dropped if len(split.dropped) <= 40 else f"{split.dropped[:37]}..."
        part.warn(f"no shell runs it: what follows is dropped, as Compose does: {dropped!r}", "sh -c '...' for a shell")
    return split.words


def labels(part: Part) -> dict[str, str]:
    """Of containers and volumes. Those that tell our own apart are not for others to set."""
    found = part.said(LABEL)
    for name in found:
        if name.startswith(_RESERVED) and name not in _ALLOWED:
            part.wrong(f"{name} is a label of HyperMesh's own", "x-hypermesh: has weight and priority")
        elif name.startswith(_COMPOSES):
            part.wrong(f"{name} is a label of Compose's own", "leave it out")
    return found


def capabilities(part: Part) -> tuple[str, ...]:
    """As Docker has them, without CAP_."""
    upper = (entry.with_value(entry.value.upper() if isinstance(entry.value, str) else entry.value) for entry in part.entries())
    return tuple(dict.fromkeys(entry.text(CAPABILITY).removeprefix("CAP_") for entry in upper))


def ulimits(part: Part) -> dict[str, Ulimit]:
    """-1: no limit."""
    found = {}
    for name, entry in part.mapping().items():
        if not ULIMIT.holds(name):
            entry.wrong("is no limit", ULIMIT.says)
        elif isinstance(entry.value, Mapping):
            fields = entry.of("service.ulimits")
            if len(fields.given("soft", "hard")) < 2:
                entry.wrong("must have both soft and hard")
            soft, hard = fields["soft"].whole(-1, _MOST), fields["hard"].whole(-1, _MOST)
            if hard != -1 and (soft > hard or soft == -1):
                entry.wrong("has a soft limit above its hard one")
            found[name] = Ulimit(soft=soft, hard=hard)
        else:
            limit = entry.whole(-1, _MOST)
            found[name] = Ulimit(soft=limit, hard=limit)
    return found


def sysctls(part: Part) -> dict[str, str]:
    found = part.pairs(SYSCTL)
    for name, value in found.items():
        if value is None:
            part.wrong(f"{name} has no value")
    return {name: value for name, value in found.items() if value is not None}


def devices(part: Part) -> tuple[str, ...]:
    """`/dev/on-node:/dev/in-container:rwm` each."""
    found: list[str] = []
    for entry in part.entries():
        if isinstance(entry.value, Mapping):
            fields = entry.of("service.devices")
            source = fields["source"].text()
            pieces = [source, fields["target"].text() or source, fields["permissions"].text() or "rwm"]
        else:
            pieces = entry.text().split(":")
            pieces = [*pieces, *(pieces[:1] if len(pieces) == 1 else []), *(["rwm"] if len(pieces) < 3 else [])]
        if _CDI.fullmatch(pieces[0]):
            entry.unsupported("the device's path, /dev/...", "devices by their names (CDI) cannot be had")
        elif len(pieces) != 3 or not all(map(DEVICE.holds, pieces[:2])) or not _PERMISSIONS.fullmatch(pieces[2]):
            entry.wrong("is no device", "/dev/ON-NODE[:/dev/IN-CONTAINER[:rwm]]")
        else:
            found.append(":".join(pieces))
    return tuple(dict.fromkeys(found))


def security_options(part: Part) -> tuple[str, ...]:
    """As Docker's engine takes them; what only its command line knows is refused here, not on the node."""
    found: list[str] = []
    for entry in part.entries():
        option = entry.text()
        name, _, value = option.replace(":", "=", 1).partition("=")
        if _SECURITY.fullmatch(option):
            found.append(option)
        elif name == "seccomp" and value == "unconfined":
            found.append(f"{name}={value}")
        elif name == "seccomp" and value:
            entry.unsupported("seccomp=unconfined, or make it the default of the nodes' Docker", "a profile of one's own cannot be had")
        elif name == "systempaths":
            entry.unsupported("privileged: true, if it must be", "the kernel's paths stay masked")
        elif isinstance(entry.value, str | None):
            entry.wrong("is no security option", "no-new-privileges:true, apparmor=PROFILE, label=..., seccomp=unconfined")
    return tuple(dict.fromkeys(found))


def logging(part: Part) -> Logging:
    fields = part.of("service.logging")
    return Logging(driver=fields["driver"].text(DRIVER), options=fields["options"].said(OPTION))


def namespace(part: Part, allowed: tuple[str, ...]) -> str:
    """`pid` and `ipc`: of the node, or of one's own."""
    text = part.text()
    if not text or text in allowed:
        return text
    if text.startswith(("service:", "container:")):
        part.unsupported("put what must share it into one container", "containers cannot share it: they may be on different nodes")
    else:
        part.wrong(f"must be one of {', '.join(allowed)}")
    return ""
