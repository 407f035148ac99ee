"""One form for a resolved compose tree, whether it is ours (in any form that the specification allows) or what `docker compose config`
printed: everything long, every default written out. It does again, in another way, what convert.py does.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable
from decimal import Decimal
from typing import Any

Tree = Any
_UNITS = {"b": 1, "k": 2**10, "kb": 2**10, "m": 2**20, "mb": 2**20, "g": 2**30, "gb": 2**30, "": 1}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def canonical(tree: Tree, name: str) -> Tree:
    """`name`: the project's, which the names of its volumes and networks begin with."""
    services = {key: _service(service) for key, service in (tree.get("services") or {}).items()}
    done: dict[str, Any] = {"services": services}
    for section in ("networks", "volumes", "secrets", "configs"):
        held = dict(tree.get(section) or {})
        if section == "networks" and any("default" in service.get("networks", {}) for service in services.values()):
            held.setdefault("default", None)
        done[section] = {key: _resource(key, resource or {}, name) for key, resource in held.items()}
    return {**done, **{key: part for key, part in tree.items() if key.startswith("x-")}}


def differences(ours: Tree, theirs: Tree, path: tuple[str, ...] = ()) -> list[tuple[str, Tree, Tree]]:
    """Where they are not the same, and what each has there."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted({*ours, *theirs})
        return [found for key in keys for found in differences(ours.get(key, "nothing"), theirs.get(key, "nothing"), (*path, key))]
    return [] if ours == theirs and type(ours) is type(theirs) else [(".".join(path), ours, theirs)]


def scalar_text(value: object) -> str | None:
    """A number or truth value where text is wanted, as Go prints it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if value in (float("inf"), float("-inf")):
            return "+Inf" if value > 0 else "-Inf"
        digits = len(Decimal(repr(value)).normalize().as_tuple().digits)
        large_or_small = value and not 1e-4 <= abs(value) < 1e6
        return f"{value:.{digits - 1}e}" if large_or_small else f"{value:.{digits}g}" if digits > 6 else f"{value:g}"
    return str(value)


def _pairs(value: Tree, alone: str | None = None) -> dict[str, str | None]:
    if isinstance(value, list):
        value = {name: (text if equals else alone) for name, equals, text in (str(item).partition("=") for item in value)}
    return {key: scalar_text(item) for key, item in value.items()}


def _labels(value: Tree) -> dict[str, str | None]:
    return {key: item or "" for key, item in _pairs(value, "").items()}


def _names(value: Tree) -> dict[str, Tree]:
    return dict.fromkeys(value) if isinstance(value, list) else value


def _words(value: Tree) -> list[str]:
    return shlex.split(value) if isinstance(value, str) else [str(item) for item in value]


def _texts(value: Tree) -> list[str]:
    return [value] if isinstance(value, str) else [str(scalar_text(item)) for item in value]


def _hosts(value: Tree) -> list[str]:
    """HOST=ADDRESS, in no order."""
    if isinstance(value, dict):
        value = [
            f"{host}={address}"
            for host, addresses in value.items()
            for address in (addresses if isinstance(addresses, list) else [addresses])
        ]
    return sorted({re.sub(r"^([^=:]+)[=:]\[?(.*?)\]?$", r"\1=\2", item) for item in value})


def _bytes(value: Tree) -> int:
    found = re.fullmatch(r"(-?[0-9.]+) ?([a-zA-Z]*)", str(value))
    assert found, value
    return int(float(found[1]) * _UNITS[found[2].lower()])


def _seconds(value: Tree) -> float:
    parts = re.findall(r"([0-9.]+)(us|ms|s|m|h)", value)
    assert "".join(map("".join, parts)) == value, value
    return round(sum(float(number) * _SECONDS[unit] for number, unit in parts), 6)


def _ports(value: Tree) -> list[dict[str, str]]:
    done: dict[tuple[str, ...], dict[str, str]] = {}
    for item in value:
        for port in [item] if isinstance(item, dict) else _expanded(str(item)):
            whole = {"protocol": "tcp", "mode": "ingress", **{key: str(part) for key, part in port.items() if part not in ("", None)}}
            done[tuple(whole.get(key, "") for key in ("host_ip", "published", "target", "protocol"))] = whole
    return [done[key] for key in sorted(done)]


def _expanded(text: str) -> list[dict[str, str]]:
    rest, _, protocol = text.partition("/")
    rest, _, target = rest.rpartition(":")
    address, _, published = rest.rpartition(":")
    common = {"host_ip": address.strip("[]"), "protocol": protocol or "tcp"}
    first, _, last = target.partition("-")
    targets = range(int(first), int(last or first) + 1)
    if len(targets) == 1:
        return [{**common, "target": target, "published": published}]
    begin = int(published.split("-")[0]) if published else 0
    return [{**common, "target": str(port), "published": str(begin + index) if published else ""} for index, port in enumerate(targets)]


def _volumes(value: Tree) -> list[dict[str, Tree]]:
    done = []
    for item in value:
        volume = dict(item) if isinstance(item, dict) else _short_volume(item)
        volume["target"] = posixpath.normpath(volume["target"])
        bind = {"create_host_path": True, **(volume.pop("bind", None) or {})}
        if volume["type"] == "bind":
            volume["bind"] = bind
        if "tmpfs" in volume:
            volume["tmpfs"] = {key: _bytes(part) if key == "size" else int(part) for key, part in volume["tmpfs"].items()}
        done.append({key: part for key, part in volume.items() if part not in ({}, False, "", None)})
    return sorted(done, key=lambda volume: volume["target"])


def _short_volume(text: str) -> dict[str, Tree]:
    parts = text.split(":")
    if len(parts) == 1:
        return {"type": "volume", "target": text}
    source, target, options = parts[0], parts[1], parts[2].split(",") if len(parts) > 2 else []
    volume: dict[str, Tree] = {"type": "bind" if source[0] in "./~" else "volume", "source": source, "target": target}
    volume["read_only"] = "ro" in options
    bind = {("selinux" if option in ("z", "Z") else "propagation"): option for option in options}
    volume["bind"] = {name: option for name, option in bind.items() if option.endswith(("shared", "private", "slave", "z", "Z"))}
    return volume


def _files(value: Tree, folder: str) -> list[Tree]:
    done = [{"source": item} if isinstance(item, str) else dict(item) for item in value]
    for file in done:
        if folder:
            file.setdefault("target", f"{folder}/{file['source']}")
        file.pop("mode", None) if file.get("mode") is None else file.update(mode=_mode(file["mode"]))
    return sorted(done, key=lambda file: (file.get("target", ""), file["source"]))


def _mode(value: Tree) -> int:
    return int(value, 8) if isinstance(value, str) else value


def _dependencies(value: Tree) -> Tree:
    return {name: {"condition": "service_started", "required": True, **(how or {})} for name, how in _names(value).items()}


def _build(value: Tree) -> Tree:
    build = {"context": value} if isinstance(value, str) else dict(value)
    build.setdefault("context", ".")
    if "dockerfile_inline" not in build:
        build.setdefault("dockerfile", "Dockerfile")
    for key, form in (("args", _pairs), ("labels", _labels), ("additional_contexts", _pairs), ("extra_hosts", _hosts)):
        if key in build:
            build[key] = form(build[key])
    return {key: part for key, part in build.items() if part != {}}


def _healthcheck(value: Tree) -> Tree:
    check = {key: _seconds(part) if isinstance(part, str) and key not in ("test",) else part for key, part in value.items()}
    if isinstance(check.get("test"), str):
        check["test"] = ["CMD-SHELL", check["test"]]
    return {key: part for key, part in check.items() if part not in (False, None)}


def _deploy(value: Tree) -> Tree:
    deploy = dict(value)
    if "labels" in deploy:
        deploy["labels"] = _labels(deploy["labels"])
    for key in ("update_config", "rollback_config", "restart_policy"):
        if key in deploy:
            deploy[key] = {name: _seconds(part) if name in ("delay", "monitor", "window") else part for name, part in deploy[key].items()}
    resources = {kind: dict(limits) for kind, limits in deploy.get("resources", {}).items()}
    for limits in resources.values():
        if "memory" in limits:
            limits["memory"] = _bytes(limits["memory"])
        if "cpus" in limits:
            limits["cpus"] = float(limits["cpus"])
        for device in limits.get("devices", []):
            device["count"] = str(device["count"]).replace("all", "-1")
    deploy["resources"] = resources
    placement = {key: part for key, part in deploy.pop("placement", {}).items() if part}
    return {**{key: part for key, part in deploy.items() if part not in ({}, None)}, **({"placement": placement} if placement else {})}


def _device(value: Tree) -> Tree:
    if isinstance(value, dict):
        return value
    source, target, permissions = (*value.split(":"), "", "")[:3]
    return {"source": source, "target": target or source, "permissions": permissions or "rwm"}


def _networks(value: Tree) -> Tree:
    networks = {
        name: {key: part for key, part in (network or {}).items() if part != []}
        for name, network in (_names(value) or {"default": None}).items()
    }
    return {name: network or None for name, network in networks.items()}


def _blkio(value: Tree) -> Tree:
    rates = {key: part for key, part in value.items() if isinstance(part, list)}
    rates = {key: [{name.lower(): item for name, item in rate.items()} for rate in part] for key, part in rates.items()}
    return {**value, **{key: [{**rate, "rate": _bytes(rate["rate"])} for rate in part] for key, part in rates.items()}}


def _ulimits(value: Tree) -> Tree:
    limits = {name: {"single": limit} if isinstance(limit, int) else limit for name, limit in value.items()}
    return {name: {kind: part for kind, part in limit.items() if part} for name, limit in limits.items()}


_FORMS: dict[str, Callable[[Tree], Tree]] = {
    "command": _words,
    "entrypoint": _words,
    "environment": _pairs,
    "labels": _labels,
    "annotations": _labels,
    "sysctls": _labels,
    "storage_opt": _labels,
    "extra_hosts": _hosts,
    "dns": _texts,
    "dns_opt": _texts,
    "dns_search": _texts,
    "tmpfs": _texts,
    "expose": lambda value: sorted(_texts(value)),
    "group_add": _texts,
    "cap_add": sorted,
    "cap_drop": sorted,
    "profiles": lambda value: sorted(filter(None, value)),
    "ports": _ports,
    "volumes": _volumes,
    "secrets": lambda value: _files(value, "/run/secrets"),
    "configs": lambda value: _files(value, ""),
    "depends_on": _dependencies,
    "networks": _networks,
    "build": _build,
    "healthcheck": _healthcheck,
    "deploy": _deploy,
    "ulimits": _ulimits,
    "blkio_config": _blkio,
    "devices": lambda value: [_device(item) for item in value],
    "logging": lambda value: {key: part for key, part in {**value, "options": _labels(value.get("options", {}))}.items() if part},
    "cpus": float,
    **dict.fromkeys(("mem_limit", "memswap_limit", "mem_reservation", "shm_size"), _bytes),
    "stop_grace_period": _seconds,
    "pull_policy": lambda value: "missing" if value == "if_not_present" else value,
    "gpus": lambda value: [{"count": -1}] if value == "all" else value,
}


def _service(service: Tree) -> Tree:
    done = {key: _FORMS[key](part) if key in _FORMS else part for key, part in service.items() if part is not None and key[:2] != "x-"}
    if "network_mode" not in done:
        done.setdefault("networks", {"default": None})
    _imply(done)
    return {key: part for key, part in done.items() if part not in ({}, [], False, None) or key in ("command", "entrypoint", "scale")}


def _imply(service: Tree) -> None:
    """Compose adds what a service depends on without saying so."""
    needs = service.setdefault("depends_on", {})
    for link in service.get("links", []):
        needs.setdefault(link.split(":")[0], {"condition": "service_started", "restart": True, "required": True})
    if str(service.get("network_mode")).startswith("service:"):
        needs.setdefault(service["network_mode"][8:], {"condition": "service_started", "restart": True, "required": True})
    for other in service.get("volumes_from", []):
        needs.setdefault(other.split(":")[0], {"condition": "service_started", "restart": False, "required": True})
    service["depends_on"] = {name: {key: part for key, part in how.items() if part is not False} for name, how in needs.items()}


def _resource(key: str, resource: Tree, project: str) -> Tree:
    done = {name: part for name, part in resource.items() if part not in (False, None)}
    done.setdefault("name", key if done.get("external") else f"{project}_{key}")
    if "labels" in done:
        done["labels"] = _labels(done["labels"])
    if "driver_opts" in done:
        done["driver_opts"] = _labels(done["driver_opts"])
    if "ipam" in done and not done["ipam"]:
        del done["ipam"]
    return done
