"""Parts of a spec in few words, for plans. Pure; safe to print."""

from __future__ import annotations

from typing import Any

from hmcore.apps.spec import Attachment, Mount, Port, plain
from hmctl.text import printable

_LONGEST = 80
_BYTES = ("memory", "shm_size", "size")
_BINARY = ("", "k", "m", "g", "t", "p")


def port_words(port: Port) -> str:
    address = f"[{port.address}]:" if ":" in port.address else f"{port.address}:" if port.address else ""
    published = port.published or "any"
    return printable(f"{address}{published}:{port.target}/{port.protocol}{' on its node' if port.mode == 'host' else ''}")


def mount_words(mount: Mount) -> str:
    """With what differs from the usual."""
    usual = plain(Mount(kind=mount.kind, target=mount.target, source=mount.source))
    others = {key: value for key, value in plain(mount).items() if usual.get(key) != value}
    if "mode" in others:
        others["mode"] = f"{mount.mode:04o}"
    words = [f"{mount.kind} {mount.source}".strip(), *(f"{key}={amount(key, value)}" for key, value in others.items())]
    return printable(", ".join(words))


def file_words(file: Attachment) -> str:
    return printable(f"{file.kind} {file.source}, {file.uid}:{file.gid}, {file.mode:04o}")


def short_id(image: str) -> str:
    """Empty: not known."""
    return printable(image.removeprefix("sha256:")[:12])


def amount(key: str, value: Any) -> str:
    """A field of a spec, in the units that a compose file has: `512m`, `0.5` processors."""
    if isinstance(value, bool) or not isinstance(value, int) or not value:
        return shown(None if value == 0 and key in (*_BYTES, "cpus") else value)
    if key == "cpus":
        return f"{value / 1000:g}"
    if key not in _BYTES:
        return shown(value)
    power = next(power for power in range(len(_BINARY) - 1, -1, -1) if value % 1024**power == 0)
    return f"{value // 1024**power}{_BINARY[power]}"


def shown(value: Any) -> str:
    if value is None or value == "" or value == []:
        return "nothing"
    if isinstance(value, list | tuple):
        text = ", ".join(map(shown, value))
    else:
        text = str(value).lower() if isinstance(value, bool) else str(value)
    return printable(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}...", keep="")
