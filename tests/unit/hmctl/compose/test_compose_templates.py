"""Swarm's templates: kept for the node where it fills them in, refused where it would not."""

from __future__ import annotations

import pytest
from composing import refused, refused_file, service, warnings

from hmcore.apps.spec import Mount


def test_they_are_kept_for_the_node():
    body = """
hostname: "{{.Node.Hostname}}-{{.Task.Slot}}"
environment: {A: "{{.Node.ID}}", B: "{{ .Name }}"}
volumes: ["/srv/{{.Service.Name}}/{{.Task.Slot}}:/data:ro", {type: bind, source: "/srv/{{.Task.ID}}", target: /x}]
command: ["{{.Node.Nothing}}"]
labels: {a: "{{.Node.Nothing}}"}
"""
    container = service(body).container
    assert container.hostname == "{{.Node.Hostname}}-{{.Task.Slot}}"
    assert container.environment == {"A": "{{.Node.ID}}", "B": "{{ .Name }}"}
    assert container.mounts == (
        Mount(kind="bind", source="/srv/{{.Service.Name}}/{{.Task.Slot}}", target="/data", read_only=True),
        Mount(kind="bind", source="/srv/{{.Task.ID}}", target="/x"),
    )
    assert container.command == ("{{.Node.Nothing}}",)
    assert not warnings(body)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("hostname: '{{.Node.Nothing}}'", "hostname"),
        ("environment: {A: 'x{{.Task.Nothing}}'}", "environment.A"),
        ("environment: ['A={{.Task.Nothing}}']", "environment"),
        ("volumes: ['/srv/{{.Service.Nothing}}:/data']", "volumes[0]"),
    ],
)
def test_unknown_ones_are_a_mistake_that_lists_the_others(body, where):
    (problem,) = refused(body)
    assert problem.startswith(f"compose.yaml:4: services.web.{where}: ")
    assert ".Nothing}}" in problem
    assert "{{.Task.Slot}}" in problem


def test_they_can_be_left_as_they_are():
    body = "environment: {A: '{{.Task.Nothing}}'}"
    assert service(body, ignore_unsupported=True).container.environment == {"A": "{{.Task.Nothing}}"}
    assert "it stays as it is" in warnings(body, ignore_unsupported=True)[0]


@pytest.mark.parametrize("name", ["{{.Task.Slot}}-", "a b {{.Task.Slot}}", "-{{.Node.ID}}"])
def test_the_rest_of_a_hostname_must_be_one(name):
    assert "hostname" in refused(f"hostname: '{name}'")[0]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("services: {web: {image: x, volumes: ['data-{{.Task.Slot}}:/d']}}", "services.web.volumes[0]"),
        ("services: {web: {image: x}}\nvolumes: {data: {name: 'data-{{.Task.Slot}}'}}", "volumes.data.name"),
        ("services: {web: {image: x}}\nvolumes: {data: {driver_opts: {device: '/srv/{{.Node.ID}}'}}}", "volumes.data.driver_opts.device"),
    ],
)
def test_not_in_volumes(text, where):
    (problem,) = refused_file(text)
    assert f" {where}: " in problem
    assert "/srv/data-{{.Task.Slot}}" in problem
