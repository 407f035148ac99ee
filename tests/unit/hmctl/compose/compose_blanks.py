"""Every key of a compose file with `${NOPE:-}`, which comes to nothing, where text can be: files for Docker Compose and for us."""

from __future__ import annotations

import copy
import re
from typing import Any

from hmcore.config import yaml_writing
from hmctl.compose.parts.keys import OBJECTS

BLANK = "${NOPE:-}"
Way = tuple[str | int, ...]

# What an object has besides, so that it is one.
_BESIDE: dict[str, Any] = {
    "ports": [{"target": 80, "published": "8080"}],
    "volumes": [{"type": "volume", "source": "v", "target": "/t"}],
    "secrets": [{"source": "s", "target": "t"}],
    "configs": [{"source": "c", "target": "/t"}],
    "devices": [{"source": "/dev/a", "target": "/dev/b", "permissions": "r"}],
    "build": {"context": "."},
    "healthcheck": {"test": "true"},
    "ulimits": {"nofile": {"soft": 1, "hard": 2}},
    "depends_on": {"db": {"condition": "service_started"}},
}
# Where the objects of keys.py stand, and what of them has no object of its own.
_WAYS: dict[str, Way] = {
    "service.networks": ("networks", "default"),
    "service.depends_on": ("depends_on", "db"),
    "service.ulimits": ("ulimits", "nofile"),
    "service.deploy.placement.preferences": ("deploy", "placement", "preferences", 0),
    **{f"service.{key}": (key, 0) for key in ("ports", "volumes", "secrets", "configs", "devices")},
    **{f"service.volumes.{key}": ("volumes", 0, key) for key in ("bind", "volume", "tmpfs")},
}
_LISTS = [
    "cap_add",
    "cap_drop",
    "group_add",
    "environment",
    "labels",
    "expose",
    "devices",
    "security_opt",
    "ports",
    "volumes",
    "secrets",
    "configs",
    "depends_on",
    "networks",
    "links",
    "env_file",
    "label_file",
    "dns",
    "dns_search",
    "dns_opt",
    "tmpfs",
    "extra_hosts",
    "profiles",
    "sysctls",
    "command",
    "entrypoint",
    "external_links",
    "volumes_from",
    "device_cgroup_rules",
    "annotations",
    "build.cache_from",
    "build.cache_to",
    "build.platforms",
    "build.tags",
    "build.extra_hosts",
    "build.args",
    "build.labels",
    "build.additional_contexts",
    "deploy.labels",
    "deploy.placement.constraints",
    "deploy.placement.preferences",
    "healthcheck.test",
    "networks.default.aliases",
]
_NAMED = [
    "environment",
    "labels",
    "annotations",
    "sysctls",
    "extra_hosts",
    "ulimits",
    "depends_on",
    "networks",
    "build.args",
    "build.labels",
    "build.additional_contexts",
    "build.extra_hosts",
    "deploy.labels",
    "logging.options",
]
_PARTLY = {
    "volumes": (f"{BLANK}:/t", f"v:{BLANK}", f"/h:/t:{BLANK}", f"v:/t:{BLANK}"),
    "ports": (f"{BLANK}:80", f"80:{BLANK}", f"{BLANK}:80:80", f"80/{BLANK}", f"{BLANK}:{BLANK}:80"),
    "extra_hosts": (f"h:{BLANK}", f"{BLANK}=192.0.2.1", f"h{BLANK}"),
    "environment": (f"A={BLANK}", f"{BLANK}=a"),
    "links": (f"db:{BLANK}",),
    "devices": (f"/dev/a:{BLANK}",),
}
_PARTLY_TEXT = {
    "image": (f"image:{BLANK}", f"{BLANK}image"),
    "restart": (f"on-failure:{BLANK}",),
    "user": (f"1000:{BLANK}", f"{BLANK}:1000"),
}
_REST = {"volumes": {"v": {}}, "secrets": {"s": {"file": "./s"}}, "configs": {"c": {"content": "x"}}}
_TOP = {
    "network": ("networks", {}),
    "volume": ("volumes", {}),
    "secret": ("secrets", {"file": "./x"}),
    "config": ("configs", {"content": "x"}),
}


def files() -> dict[str, tuple[str, str]]:
    """By a name: a file with nothing at that place, and the file without the place."""
    return {**_of_services(), **_of_the_top()}


def _of_services() -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}

    def add(name: str, way: Way, value: Any) -> None:
        bare: dict[str, Any] = {"image": "a"}
        if way[0] in _BESIDE and len(way) > 1 and not (len(way) == 2 and way[1] == 0):
            bare[str(way[0])] = copy.deepcopy(_BESIDE[str(way[0])])
        found[name] = _file(_with(bare, way, value)), _file(_without(bare, way))

    for kind, keys in OBJECTS.items():
        if kind.startswith("service") and "x-hypermesh" not in kind:
            way = _WAYS.get(kind, tuple(kind.split(".")[1:]))
            for key in keys.known:
                add(_spelled((*way, key)), (*way, key), BLANK)
    for text in _LISTS:
        add(f"{text}[]", (*text.split("."), 0), BLANK)
    for text in _NAMED:
        add(f"{text}.net.name", (*text.split("."), "net.name"), BLANK)
    for key, values in _PARTLY.items():
        for value in values:
            add(f"{key}[]: {_shown(value)}", (key, 0), value)
    for key, values in _PARTLY_TEXT.items():
        for value in values:
            add(f"{key}: {_shown(value)}", (key,), value)
    return found


def _of_the_top() -> dict[str, tuple[str, str]]:
    found = {}
    for kind, (section, beside) in _TOP.items():
        for key in OBJECTS[kind].known:
            other = {name: value for name, value in beside.items() if key not in ("file", "environment", "content")}
            use = {"volumes": ["x:/x"]} if kind == "volume" else {section: ["x"]}
            found[f"{section}.x.{key}"] = tuple(
                yaml_writing.dump({"services": {"web": {"image": "a", **use}}, section: {"x": resource}})
                for resource in ({**other, key: BLANK}, other)
            )
    return found  # type: ignore[return-value]


def _file(service: Any) -> str:
    return yaml_writing.dump({"services": {"web": service, "db": {"image": "db"}}, **_REST})


def _with(tree: Any, way: Way, value: Any) -> Any:
    if not way:
        return value
    if way[0] == 0:
        items = tree if isinstance(tree, list) else []
        return [_with(items[0] if items else None, way[1:], value)]
    entries = tree if isinstance(tree, dict) else {}
    return {**entries, way[0]: _with(entries.get(way[0]), way[1:], value)}


def _without(tree: Any, way: Way) -> Any:
    """Of a list, the list without the entry; nothing that would be there for the place alone."""
    if isinstance(tree, list):
        return [_without(tree[0], way[1:])] if way[1:] else []
    if not isinstance(tree, dict) or way[0] not in tree:
        return tree
    rest = {key: part for key, part in tree.items() if key != way[0]}
    return {**rest, way[0]: _without(tree[way[0]], way[1:])} if way[1:] else rest


def _spelled(way: Way) -> str:
    return re.sub(r"\.0(?=\.|$)", "[]", ".".join(map(str, way)))


def _shown(value: str) -> str:
    return value.replace(BLANK, "_")
