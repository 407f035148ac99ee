"""Every key that the tables call supported makes a difference: to the app, to a warning or to an error. None is heeded in name only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hmcore.errors import ConfigError
from hmctl.compose.app import app_of
from hmctl.compose.parts.keys import OBJECTS

FILES = {
    "web.env": "FROM_FILE=yes\n",
    "web.labels": "from.file=yes\n",
    "more.yaml": "services: {more: {image: redis}}",
    "base.yaml": "services: {base: {image: nginx, user: someone}}",
}
ENVIRONMENT = {"ONE": "1", "TWO": "2"}
NOTHING = object()


@dataclass(frozen=True)
class Case:
    """`value` of the key makes another outcome than `other` (NOTHING: than none), beside the keys of `beside` (None: the kind's usual)."""

    value: Any
    other: Any = NOTHING
    beside: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Kind:
    """`file`: the whole of a file with this object in its place."""

    file: Callable[[dict[str, Any]], dict[str, Any]]
    keys: Mapping[str, Any]
    beside: Mapping[str, Any]


def whole(web: dict[str, Any], **top: Any) -> dict[str, Any]:
    return {
        "services": {"web": {"image": "nginx", **web}, "other": {"image": "x", "healthcheck": {"test": "true"}}},
        "networks": {"front": {}},
        "volumes": {"data": {}, "logs": {}},
        "secrets": {"s": {"external": True}, "t": {"external": True}},
        "configs": {"s": {"external": True}, "t": {"external": True}},
        **top,
    }


def service(path: str, keys: Mapping[str, Any], **beside: Any) -> Kind:
    """Of a part of a service: `deploy.resources`; with [] at its end it is the only one of a list."""

    def file(made: dict[str, Any]) -> dict[str, Any]:
        part: Any = made
        for name in reversed(path.split(".") if path else ()):
            part = {name.removesuffix("[]"): [part] if name.endswith("[]") else part}
        return whole(part)

    return Kind(file, keys, beside)


def mount(key: str, keys: Mapping[str, Any], **beside: Any) -> Kind:
    return Kind(lambda made: whole({"volumes": [{"target": "/d", key: made, **beside}]}), keys, {})


def top(section: str, keys: Mapping[str, Any], used: dict[str, Any], **beside: Any) -> Kind:
    return Kind(lambda made: whole(used, **{section: {"site": made}}), keys, beside)


UPDATE = {
    "parallelism": 2,
    "delay": "2s",
    "failure_action": "continue",
    "monitor": "9s",
    "max_failure_ratio": 0.5,
    "order": "start-first",
}
ATTACHED = {"source": Case("s", "t"), "target": "/somewhere", "uid": "5", "gid": "5", "mode": "0400"}
BIND = {"type": "bind", "source": "/srv", "target": "/d"}
SERVICE = {
    "build": ".",
    "cap_add": ["NET_ADMIN"],
    "cap_drop": ["ALL"],
    "command": "serve",
    "configs": ["s"],
    "container_name": "one",
    "cpus": 0.5,
    "depends_on": ["other"],
    "deploy": {"replicas": 2},
    "devices": ["/dev/fuse"],
    "dns": "192.0.2.53",
    "dns_opt": ["ndots:2"],
    "dns_search": ["example.org"],
    "entrypoint": ["/bin/serve"],
    "env_file": "web.env",
    "environment": {"A": "b"},
    "expose": ["53/udp"],
    "extends": {"file": "base.yaml", "service": "base"},
    "extra_hosts": ["a:192.0.2.1"],
    "group_add": ["audio"],
    "healthcheck": {"test": "true"},
    "hostname": "one",
    "image": Case("redis:7", "redis:8"),
    "init": True,
    "ipc": "host",
    "label_file": "web.labels",
    "labels": {"a": "b"},
    "links": ["other:alias"],
    "logging": {"driver": "journald"},
    "mem_limit": "64m",
    "mem_reservation": "64m",
    "network_mode": "host",
    "networks": ["front"],
    "oom_score_adj": 5,
    "pid": "host",
    "pids_limit": 9,
    "platform": "linux/arm64",
    "ports": ["8080:80"],
    "privileged": True,
    "profiles": ["debug"],
    "pull_policy": "never",
    "read_only": True,
    "restart": "on-failure:3",
    "scale": 2,
    "secrets": ["s"],
    "security_opt": ["no-new-privileges:true"],
    "shm_size": "64m",
    "stdin_open": True,
    "stop_grace_period": "1m",
    "stop_signal": "SIGQUIT",
    "sysctls": {"net.core.somaxconn": "1024"},
    "tmpfs": "/run",
    "tty": True,
    "ulimits": {"nofile": 1024},
    "user": "1000:1000",
    "volumes": ["/srv:/srv"],
    "working_dir": "/srv",
    "x-hypermesh": {"weight": 5},
}
FILE = {"web": {"image": "nginx", "networks": ["front"], "volumes": ["data:/d"], "secrets": ["s"], "configs": ["s"]}}
KINDS = {
    "": Kind(
        lambda made: {**whole({}), **made},
        {
            "name": "blog",
            "services": Case(FILE, {"web": {"image": "redis"}}),
            "networks": Case({"front": {}}, {"front": {"driver": "macvlan"}}),
            "volumes": Case({"data": {}}, {"data": {"driver": "nfs"}}),
            "secrets": Case({"s": {"external": True}}, {"s": {"file": "a"}}),
            "configs": Case({"s": {"external": True}}, {"s": {"file": "a"}}),
            "include": ["more.yaml"],
        },
        {"services": FILE},
    ),
    "service": service("", SERVICE),
    "service.build": service(
        "build",
        {
            "context": "sub",
            "dockerfile": "Other",
            "dockerfile_inline": "FROM x",
            "args": {"A": "b"},
            "target": "stage",
            "labels": {"a": "b"},
            "cache_from": ["x"],
            "network": "host",
            "extra_hosts": ["a=192.0.2.1"],
            "additional_contexts": {"a": "sub"},
            "shm_size": "64m",
            "no_cache": True,
            "pull": True,
            "platforms": ["linux/amd64"],
        },
    ),
    "service.depends_on": service(
        "depends_on.other",
        {"condition": Case("service_healthy", "service_started"), "restart": True, "required": False},
        condition="service_started",
    ),
    "service.devices": service(
        "devices[]", {"source": Case("/dev/a", "/dev/c"), "target": "/dev/b", "permissions": "r"}, source="/dev/a"
    ),
    "service.deploy": service(
        "deploy",
        {
            "mode": "global",
            "endpoint_mode": "vip",
            "replicas": 3,
            "labels": {"a": "b"},
            "rollback_config": {"parallelism": 2},
            "update_config": {"parallelism": 2},
            "resources": {"limits": {"cpus": "0.5"}},
            "restart_policy": {"condition": "none"},
            "placement": {"max_replicas_per_node": 2},
        },
    ),
    "service.deploy.rollback_config": service("deploy.rollback_config", UPDATE),
    "service.deploy.update_config": service("deploy.update_config", UPDATE),
    "service.deploy.resources": service("deploy.resources", {"limits": {"cpus": "0.5"}, "reservations": {"cpus": "0.5"}}),
    "service.deploy.resources.limits": service("deploy.resources.limits", {"cpus": "0.5", "memory": "64m", "pids": 9}),
    "service.deploy.resources.reservations": service("deploy.resources.reservations", {"cpus": "0.5", "memory": "64m"}),
    "service.deploy.restart_policy": service(
        "deploy.restart_policy", {"condition": "on-failure", "delay": "1s", "max_attempts": 3, "window": "1m"}
    ),
    "service.deploy.placement": service(
        "deploy.placement",
        {"constraints": ["node.role==worker"], "preferences": [{"spread": "node.labels.zone"}], "max_replicas_per_node": 2},
    ),
    "service.deploy.placement.preferences": service(
        "deploy.placement.preferences[]", {"spread": Case("node.labels.zone", "node.labels.rack")}
    ),
    "service.healthcheck": service(
        "healthcheck",
        {  # as usual, which counts, too: the image may say otherwise
            "disable": True,
            "interval": "30s",
            "retries": 3,
            "test": Case("true", "false"),
            "timeout": "30s",
            "start_period": "1s",
            "start_interval": "5s",
        },
        test="true",
    ),
    "service.logging": service("logging", {"driver": "journald", "options": {"max-size": "10m"}}),
    "service.networks": service("networks.front", {"aliases": ["www"]}),
    "service.ports": service(
        "ports[]",
        {
            "mode": Case("host", beside={"target": 80, "published": "8080"}),
            "host_ip": "192.0.2.1",
            "target": Case(80, 81),
            "published": "8080",
            "protocol": "udp",
        },
        target=80,
    ),
    "service.secrets": service("secrets[]", ATTACHED, source="s"),
    "service.configs": service("configs[]", ATTACHED, source="s"),
    "service.ulimits": service("ulimits.nofile", {"soft": Case(1, 2), "hard": Case(8, 9)}, soft=5, hard=9),
    "service.volumes": service(
        "volumes[]",
        {
            "type": Case("volume", "tmpfs", beside={"target": "/d"}),
            "source": Case("data", "logs"),
            "target": Case("/d", "/e"),
            "read_only": True,
            "bind": Case({"propagation": "shared"}, beside=BIND),
            "volume": {"nocopy": True},
            "tmpfs": Case({"size": "1m"}, beside={"type": "tmpfs", "target": "/d"}),
        },
        type="volume",
        source="data",
        target="/d",
    ),
    "service.volumes.bind": mount("bind", {"propagation": "shared", "create_host_path": False}, type="bind", source="/srv"),
    "service.volumes.volume": mount("volume", {"nocopy": True}, type="volume", source="data"),
    "service.volumes.tmpfs": mount("tmpfs", {"size": "1m", "mode": "0700"}, type="tmpfs"),
    "service.x-hypermesh": service(
        "x-hypermesh", {"exclusive": True, "weight": 5, "priority": 5, "check": {"type": "tcp", "port": 80}}
    ),
    "service.x-hypermesh.check": service(
        "x-hypermesh.check",
        {
            "type": Case("http", "tcp", beside={"port": 80}),
            "port": Case(80, 81),
            "path": "/healthz",
            "interval": "1s",
            "timeout": "1s",
            "retries": 1,
            "start_period": "1s",
            "start_interval": "1s",
        },
        type="http",
        port=80,
    ),
    "network": top(
        "networks",
        {
            "name": "n",
            "external": True,
            "driver": "macvlan",
            "driver_opts": {"encrypted": ""},
            "internal": Case(True, False),
            "enable_ipv4": Case(False, True),
        },
        {"networks": ["site"]},
    ),
    "volume": top(
        "volumes",
        {"name": "n1", "external": True, "driver": "nfs", "driver_opts": {"a": "b"}, "labels": {"a": "b"}},
        {"volumes": ["site:/d"]},
    ),
    "secret": top(
        "secrets",
        {
            "name": Case("n1", beside={"external": True}),
            "external": Case(True, {"name": "n1"}),
            "file": Case("a", "b"),
            "environment": Case("ONE", "TWO"),
        },
        {"secrets": ["site"]},
    ),
    "config": top(
        "configs",
        {
            "name": Case("n1", beside={"external": True}),
            "external": Case(True, {"name": "n1"}),
            "file": Case("a", "b"),
            "environment": Case("ONE", "TWO"),
            "content": Case("a", "b"),
        },
        {"configs": ["site"]},
    ),
    "external": Kind(
        lambda made: whole({"secrets": ["s"]}, secrets={"s": {"external": made}}), {"name": Case("n1", "n2")}, {}
    ),
}  # fmt: skip


def outcome(file: dict[str, Any]) -> object:
    def read(path: Path) -> bytes:
        if path.name not in (known := {**FILES, "compose.yaml": json.dumps(file)}):
            raise FileNotFoundError(2, "No such file or directory")
        return known[path.name].encode()

    found = app_of([Path("/shop/compose.yaml")], environment=ENVIRONMENT, read=read, ignore_unsupported=True)
    made = found.converted
    return found.name, made.spec, made.builds, made.pulls, made.contents, [(each.path, each.message) for each in made.warnings]


@pytest.mark.parametrize("kind", sorted(OBJECTS))
def test_all_of_them_are_tried(kind: str) -> None:
    assert KINDS[kind].keys.keys() == OBJECTS[kind].supported


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind in sorted(KINDS) for key in sorted(KINDS[kind].keys)])
def test_it_makes_a_difference(kind: str, key: str) -> None:
    of, said = KINDS[kind], KINDS[kind].keys[key]
    case = said if isinstance(said, Case) else Case(said)
    beside = {name: value for name, value in (of.beside if case.beside is None else case.beside).items() if name != key}
    with_it = outcome(of.file({**beside, key: case.value}))
    without = beside if case.other is NOTHING else {**beside, key: case.other}
    try:
        assert outcome(of.file(without)) != with_it
    except ConfigError:
        pytest.fail("the file without it is no file: it proves nothing")
