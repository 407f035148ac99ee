"""Every key that is promised changes what the app is: nothing of it is read and then forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
from composing import converted

from hmctl.compose.app import app_of
from hmctl.compose.parts.keys import OBJECTS

TOP = """
volumes: {data: }
networks: {front: }
secrets: {s: {external: true}}
configs: {c: {external: true}}
"""
PROMISED = {
    "image": "redis:7",
    "build": ".",
    "command": "serve",
    "entrypoint": "[/bin/serve]",
    "environment": "{A: b}",
    "ports": '["8080:80"]',
    "volumes": "[data:/data, /srv:/srv]",
    "tmpfs": "/run",
    "user": "1000:1000",
    "working_dir": "/srv",
    "hostname": "one",
    "labels": "{a: b}",
    "healthcheck": "{test: 'true'}",
    "restart": "on-failure:3",
    "stop_signal": "SIGQUIT",
    "stop_grace_period": "1m",
    "depends_on": "{other: {condition: service_healthy}}",
    "secrets": "[s]",
    "configs": "[c]",
    "cap_add": "[NET_ADMIN]",
    "cap_drop": "[ALL]",
    "read_only": "true",
    "init": "true",
    "ulimits": "{nofile: 1024}",
    "sysctls": "{net.core.somaxconn: 1024}",
    "extra_hosts": '["a:192.0.2.1"]',
    "networks": "{front: {aliases: [www]}}",
    "logging": "{driver: json-file, options: {max-size: 10m}}",
    "container_name": "one",
    "expose": "[80]",
    "privileged": "true",
    "deploy.mode": "global",
    "deploy.replicas": "3",
    "deploy.labels": "{a: b}",
    "deploy.resources.limits.cpus": '"0.5"',
    "deploy.resources.limits.memory": "64m",
    "deploy.resources.limits.pids": "9",
    "deploy.resources.reservations.cpus": '"0.5"',
    "deploy.resources.reservations.memory": "64m",
    "deploy.placement.constraints": "[node.labels.zone==a]",
    "deploy.placement.preferences": "[{spread: node.labels.zone}]",
    "deploy.placement.max_replicas_per_node": "2",
    "deploy.restart_policy.condition": "on-failure",
    "deploy.restart_policy.delay": "1s",
    "deploy.restart_policy.max_attempts": "3",
    "deploy.restart_policy.window": "1m",
    **{
        f"deploy.{config}.{key}": value
        for config in ("update_config", "rollback_config")
        for key, value in {
            "parallelism": "2", "delay": "2s", "order": "start-first", "failure_action": "continue", "monitor": "9s",
            "max_failure_ratio": "0.5",
        }.items()
    },
    "x-hypermesh.exclusive": "true",
    "x-hypermesh.weight": "5",
    "x-hypermesh.priority": "5",
    "x-hypermesh.check": "{type: http, port: 80, path: /healthz}",
}  # fmt: skip


def app(body=""):
    image = "" if body.startswith("{image:") or body.startswith("{build:") else "image: nginx"
    inner = ", ".join(part for part in (image, body.strip()[1:-1]) if part)
    other = "healthcheck: {test: 'true'}"
    return converted(f"services:\n  web: {{{inner}}}\n  other:\n    image: x\n    {other}\n{TOP}")


@pytest.mark.parametrize("key", sorted(PROMISED))
def test_it_changes_the_app(key):
    path = key.split(".")
    body = PROMISED[key]
    for name in reversed(path):
        body = f"{{{name}: {body}}}"
    plain, found = app(), app(body)
    assert (found.spec.services["web"], found.builds) != (plain.spec.services["web"], plain.builds)
    assert found.spec.services["other"] == plain.spec.services["other"]


@pytest.mark.parametrize("key", sorted({key.partition(".")[0] for key in PROMISED}))
def test_it_is_in_the_table(key):
    assert key in OBJECTS["service"].supported


FILES = {
    "compose.yaml": """
version: "3"
include: [more.yaml]
services:
  web: {extends: {file: base.yaml, service: base}, env_file: web.env, environment: {B: "${B:-c}", C: $$d}}
  debug: {image: x, profiles: [debug]}
""",
    "base.yaml": "services: {base: {image: nginx, environment: {A: base}}}",
    "more.yaml": "services: {more: {image: redis}}",
    "web.env": "FILE=yes\n",
}


def test_what_is_carried_out_in_reading_the_files_comes_through():
    def read(path):
        if path.name not in FILES:
            raise FileNotFoundError(2, "No such file or directory")
        return FILES[path.name].encode()

    found = app_of([Path("/shop/compose.yaml")], environment={}, read=read)
    assert set(found.converted.spec.services) == {"web", "more"}
    container = found.converted.spec.services["web"].container
    assert (container.image, container.environment) == ("nginx", {"A": "base", "FILE": "yes", "B": "c", "C": "$d"})
    assert ["obsolete" in str(warning) for warning in found.converted.warnings] == [True]
