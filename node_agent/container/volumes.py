"""Mounts of a container, as Docker takes them. Pure.

Docker has two ways. `Mounts` is exact, but before API 1.42 a bind's path has to be there already; `Binds` makes it, but is a text with
colons. A bind that may be made is told in the second way, unless a colon is in its path. Of a tmpfs `Mounts` knows size and mode only
(before API 1.46); one with other options is told as one of `Tmpfs`.
"""

from __future__ import annotations

from hmcore.apps.records import Allocation
from hmcore.apps.spec import AppSpec, Mount
from node_agent.container.info import APP, CLUSTER


def is_bound(mount: Mount) -> bool:
    """Whether it is told as one of `Binds`."""
    return mount.kind == "bind" and mount.create_source and ":" not in mount.source + mount.target


def bind(mount: Mount) -> str:
    options = ["ro" if mount.read_only else "rw", *([mount.propagation] if mount.propagation else [])]
    return f"{mount.source}:{mount.target}:{','.join(options)}"


def is_free(mount: Mount) -> bool:
    """Whether it is told as one of `Tmpfs`."""
    return mount.kind == "tmpfs" and bool(mount.options)


def is_exact(mount: Mount) -> bool:
    """Whether it is told as one of `Mounts`."""
    return not (is_bound(mount) or is_free(mount))


def tmpfs(mount: Mount) -> str:
    """Its options, as mount takes them."""
    given = {"size": str(mount.size) if mount.size else "", "mode": f"{mount.mode:o}" if mount.mode else ""}
    known = [f"{name}={value}" for name, value in given.items() if value]
    return ",".join(["ro" if mount.read_only else "rw", *known, *mount.options])


def of(mount: Mount, app: AppSpec, allocation: Allocation, cluster: str) -> dict[str, object]:
    """One of `Mounts`."""
    entry: dict[str, object] = {"Type": mount.kind, "Target": mount.target, "ReadOnly": mount.read_only}
    match mount.kind:
        case "volume":
            return entry | _volume(mount, app, allocation, cluster)
        case "bind":
            options: dict[str, object] = {"CreateMountpoint": mount.create_source}
            if mount.propagation:
                options["Propagation"] = mount.propagation
            return entry | {"Source": mount.source, "BindOptions": options}
        case "tmpfs":
            given = {"SizeBytes": mount.size, "Mode": mount.mode}
            return entry | {"TmpfsOptions": {name: value for name, value in given.items() if value}}


def _volume(mount: Mount, app: AppSpec, allocation: Allocation, cluster: str) -> dict[str, object]:
    """A named one outlives its containers, and an anonymous one goes with its container: it has no name that Docker was told."""
    volume = app.volumes.get(mount.source) if mount.source else None
    options: dict[str, object] = {"NoCopy": mount.no_copy}
    if mount.source and not (volume is not None and volume.external):
        options["Labels"] = {**(volume.labels if volume else {}), CLUSTER: cluster, APP: allocation.app}
    if volume is not None and not volume.external and (volume.driver or volume.options):
        options["DriverConfig"] = {"Name": volume.driver, "Options": dict(volume.options)}
    return {"Source": volume.name if volume is not None else mount.source, "VolumeOptions": options}
