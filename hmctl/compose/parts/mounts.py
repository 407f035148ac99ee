"""What a container sees of its node's disks and memory: volumes, binds and tmpfs, in short and in long form. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from hmcore.apps.spec import Mount
from hmcore.config.problems import Path
from hmctl.compose.parts import units
from hmctl.compose.parts.machine import INSTEAD, Machine, is_of_windows
from hmctl.compose.parts.names import KEY, PATH
from hmctl.compose.parts.part import Part
from hmctl.compose.parts.templating import checked, refused

_ACCESS = ("ro", "rw", "readonly")
_SELINUX = ("z", "Z")
_MAC = ("cached", "delegated", "consistent")
_PROPAGATION = ("shared", "slave", "private", "rshared", "rslave", "rprivate")
_KNOWN = (*_ACCESS, *_SELINUX, *_MAC, *_PROPAGATION, "copy", "nocopy")
_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/var/run", "/run", "/")
_OF_WINDOWS = re.compile(r"[A-Za-z]:(?:\\|/[^:]*:/)|\\\\")  # c:/data alone is the volume c at /data
_WINDOWS = "a path of Windows cannot be mounted: nodes run Linux"
_TMPFS_OPTION = re.compile(r"[a-z][a-z_]{1,20}(?:=[A-Za-z0-9:%_.-]{1,40})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Ground:
    """What mounts stand on. `volumes`: their names in the app."""

    volumes: Collection[str]
    machine: Machine


def mounts_of(part: Part, ground: Ground) -> dict[Mount, Part]:
    found: dict[Mount, Part] = {}
    for entry in part.entries():
        mount = _short(entry, ground) if isinstance(entry.value, str) else _long(entry, ground)
        if mount is not None:
            found.setdefault(mount, entry)
    return found


def tmpfs_of(part: Part) -> dict[Mount, Part]:
    """`/run:size=64m,mode=1777`, or a list of such."""
    found: dict[Mount, Part] = {}
    for entry in [part] if isinstance(part.value, str) else part.entries():
        path, _, options = entry.text().partition(":")
        if (target := _target(entry, path)) is not None:
            found.setdefault(_tmpfs(entry, target, options), entry)
    return found


def same_targets(places: Iterator[tuple[str, Part]]) -> None:
    """Notes whatever hides another: two things at one path of the container."""
    taken: dict[str, Part] = {}
    for target, entry in places:
        if target in taken:
            entry.wrong(f"something else of this service is at {target} already")
        taken.setdefault(target, entry)


def _short(entry: Part, ground: Ground) -> Mount | None:
    """`TARGET`, `SOURCE:TARGET` or `SOURCE:TARGET:OPTIONS`."""
    text = entry.text()
    if _OF_WINDOWS.match(text):
        entry.unsupported(INSTEAD, _WINDOWS)
        return None
    pieces = text.split(":")
    if len(pieces) > 3 or not all(pieces):
        entry.wrong("is no volume", "SOURCE:TARGET[:ro], as in data:/var/lib/data")
        return None
    source, target = (pieces[0], pieces[1]) if len(pieces) > 1 else ("", pieces[0])
    options = pieces[2].split(",") if len(pieces) > 2 else []
    for option in options:
        if option not in _KNOWN:
            entry.wrong(f"has no option {option!r}", "ro, rw, nocopy, or how mounts beneath it propagate")
        elif option in _SELINUX:
            entry.warn(f"{option} does nothing here", "files keep the labels that they have on the node")
    if (place := _target(entry, target)) is None:
        return None
    read_only = "ro" in options or "readonly" in options
    propagation = next((option for option in options if option in _PROPAGATION), "")
    if source.startswith(("/", ".", "~")):
        return _bind(entry, ground, source, entry.path, place, read_only=read_only, propagation=propagation)
    return _volume(entry, ground, source, place, read_only=read_only, no_copy="nocopy" in options)


def _long(entry: Part, ground: Ground) -> Mount | None:
    fields = entry.of("service.volumes")
    kind = fields["type"].text()
    if (target := _target(fields["target"] if fields.given("target") else entry, fields["target"].text())) is None:
        return None
    source, read_only = fields["source"].text(), fields["read_only"].boolean()
    match kind:
        case "bind":
            bind = fields["bind"].of("service.volumes.bind")
            propagation = bind["propagation"].choice(_PROPAGATION, "") if bind.given("propagation") else ""
            create = bind["create_host_path"].boolean(True)
            where = (*entry.path, "source")
            return _bind(entry, ground, source, where, target, read_only=read_only, propagation=propagation, create=create)
        case "volume":
            no_copy = fields["volume"].of("service.volumes.volume")["nocopy"].boolean()
            return _volume(entry, ground, source, target, read_only=read_only, no_copy=no_copy)
        case "tmpfs":
            tmpfs = fields["tmpfs"].of("service.volumes.tmpfs")
            size, mode = tmpfs["size"].size(), tmpfs["mode"].permissions(0)
            return Mount(kind="tmpfs", target=target, size=size, mode=mode, read_only=read_only)
        case "image" | "npipe" | "cluster":
            fields["type"].unsupported("type: volume, bind or tmpfs", f"there are no mounts of type {kind}", leaves=entry)
        case _:
            (fields["type"] if fields.given("type") else entry).wrong("must be of a type", "type: volume, bind or tmpfs")
    return None


def _volume(entry: Part, ground: Ground, source: str, target: str, *, read_only: bool, no_copy: bool) -> Mount | None:
    """Without a source, one that has no name and ends with its container."""
    if refused(entry, source):
        return None
    if source and not KEY.holds(source):
        entry.wrong("is of no volume", f"a volume's name has {KEY.says}; a path begins with / or .")
        return None
    if source and source not in ground.volumes:
        entry.wrong(f"there is no volume {source} in this file", f"volumes: {{{source}: }} at the top level; a path begins with / or .")
        return None
    return Mount(kind="volume", source=source, target=target, read_only=read_only, no_copy=no_copy)


def _bind(
    entry: Part, ground: Ground, source: str, where: Path, target: str, *, read_only: bool, propagation: str = "", create: bool = True
) -> Mount | None:
    """`where`: what says the source."""
    if is_of_windows(source):
        entry.unsupported(INSTEAD, _WINDOWS)
        return None
    if ground.machine.has(source, where):
        hint = ground.machine.instead(source, target, str(entry.path[1]))
        entry.unsupported(hint, "a path of this machine is not on the nodes")
        return None
    if not PATH.holds(source) or "\\" in source:
        entry.wrong("is of no path on a node", PATH.says)
        return None
    source = posixpath.normpath(checked(entry, source)).replace("//", "/")
    if source in _SOCKETS:
        what = "Docker's socket" if source.endswith(".sock") else "a folder with Docker's socket"
        entry.warn(f"{what} is mounted: whoever is in this container may do anything on its node", "only for images that you trust")
    return Mount(kind="bind", source=source, target=target, read_only=read_only, propagation=propagation, create_source=create)


def _tmpfs(entry: Part, target: str, text: str) -> Mount:
    size = mode = 0
    read_only, others = False, []
    for option in filter(None, text.split(",")):
        name, _, value = option.partition("=")
        if name == "size" and (found := units.byte_count(value)) is not None:
            size = found
        elif name == "mode" and (permissions := units.permissions(value)) is not None:
            mode = permissions
        elif option in ("ro", "rw"):
            read_only = option == "ro"
        elif name not in ("size", "mode") and _TMPFS_OPTION.fullmatch(option):
            others.append(option)
        else:
            entry.wrong(f"has no option {option!r}", "size=64m, mode=1777, uid=1000, gid=1000, exec, noexec ...")
    return Mount(kind="tmpfs", target=target, size=size, mode=mode, read_only=read_only, options=tuple(others))


def _target(entry: Part, path: str) -> str | None:
    if not PATH.holds(path) or ".." in path.split("/") or (normal := posixpath.normpath(path).replace("//", "/")) == "/":
        entry.wrong("says not where it is in the container", "target: an absolute path, such as /var/lib/data")
        return None
    return normal
