"""Networks, names on them, links, hosts and name servers."""

from __future__ import annotations

import pytest
from composing import converted, refused, refused_file, service, warnings

NETS = "networks: {front: , back: }\n"


def container(body, **options):
    return service(body, rest=NETS, **options).container


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", {"default": ()}),
        ("networks: []", {"default": ()}),
        ("networks: [front, back]", {"front": (), "back": ()}),
        ("networks: {front: , back: {aliases: [db, sql, db]}}", {"front": (), "back": ("db", "sql")}),
        ("networks: [default]", {"default": ()}),
        ("container_name: my-web", {"default": ("my-web",)}),
        ("container_name: web", {"default": ()}),
        ("container_name: x\nnetworks: {front: {aliases: [x]}, back: }", {"front": ("x",), "back": ("x",)}),
        ("network_mode: bridge", {"default": ()}),
        ("network_mode: host", {}),
        ("network_mode: none", {}),
    ],
)
def test_networks(body, expected):
    assert container(body).networks == expected


def test_modes():
    assert container("network_mode: host").network_mode == "host"
    assert container("network_mode: none").network_mode == "none"
    assert container("network_mode: bridge").network_mode == ""
    for mode in ("service:db", "container:x"):
        assert "in the network of another one" in refused(f"network_mode: '{mode}'")[0]
        assert container(f"network_mode: '{mode}'", ignore_unsupported=True).network_mode == ""
    assert "no such network mode" in refused("network_mode: mesh")[0]
    assert "cannot be together with networks" in refused("network_mode: host\nnetworks: [front]", rest=NETS)[0]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("networks: [frond]", "there is no network frond in this file"),
        ("networks: {front: {aliases: ['a b']}}", "letters, digits"),
        ("networks: {front: {aliases: db}}", "must be a list"),
        ("networks: {front: {ipv4_address: 10.0.0.9}}", "use the name of the service"),
        ("networks: {front: {aliasses: [x]}}", "did you mean aliases?"),
        ("networks: 5", "must be a list"),
        ("container_name: 'a b'", "letters, digits"),
        ("hostname: '-x'", "letters, digits"),
    ],
)
def test_mistakes(body, words):
    problems = refused(body, rest=NETS)
    assert problems[0].startswith("compose.yaml:4: services.web.")
    assert words in problems[0]


def test_what_networks_are_made_of_has_no_meaning_here():
    text = """
services: {{web: {{image: nginx, networks: [n]}}}}
networks: {{n: {0}, unused: }}
"""
    assert not converted(text.format("{driver: overlay}")).warnings
    assert not converted(text.format("")).warnings
    found = converted(text.format("{driver: macvlan, name: x, attachable: true, ipam: {config: [{subnet: 10.0.0.0/8}]}, labels: [a=b]}"))
    assert {problem.path for problem in found.warnings} == {
        f"networks.n.{key}" for key in ("attachable", "ipam", "labels", "name", "driver")
    }
    assert found.spec.networks == ("n",)
    assert "services of other apps are not on it" in str(converted(text.format("{external: true}")).warnings[0])
    assert "containers reach what their node reaches" in refused_file(text.format("{internal: true}"))[0]


def test_links_are_names_and_dependencies():
    spec = converted("""
services:
  web: {image: nginx, links: [db:database, "cache"], networks: [a, b]}
  db: {image: postgres, networks: [a, c]}
  cache: {image: redis, networks: [b]}
networks: {a: , b: , c: }
""").spec
    assert spec.services["db"].container.networks == {"a": ("database",), "c": ()}
    assert spec.services["cache"].container.networks == {"b": ()}
    assert set(spec.services["web"].depends_on) == {"db", "cache"}
    assert "there is no service x" in refused("links: [x]")[0]
    assert "is no link" in refused("links: ['x:a b']")[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[somehost=162.242.195.82]", ("somehost:162.242.195.82",)),
        ("['somehost:162.242.195.82']", ("somehost:162.242.195.82",)),
        ("['v6=[::1]', 'w6:::1', 'x6=::1']", ("v6:::1", "w6:::1", "x6:::1")),
        ("[host.docker.internal:host-gateway]", ("host.docker.internal:host-gateway",)),
        ("{a: 10.0.0.1, b: [10.0.0.2, '::2']}", ("a:10.0.0.1", "b:10.0.0.2", "b:::2")),
        ("[a=1.1.1.1, a=1.1.1.1]", ("a:1.1.1.1",)),
    ],
)
def test_extra_hosts(text, expected):
    assert container(f"extra_hosts: {text}").extra_hosts == expected


@pytest.mark.parametrize("text", ["[a]", "['a b=1.1.1.1']", "[a=x]", "{a: x}", "{a: [x]}", "5", "{a: 5}", "[[a]]"])
def test_extra_hosts_that_are_none(text):
    assert refused(f"extra_hosts: {text}")[0].startswith("compose.yaml:4: services.web.extra_hosts")


def test_name_servers():
    found = container("dns: 8.8.8.8\ndns_search: [a.example, b.example]\ndns_opt: [use-vc, 'ndots:2']")
    assert found.dns == ("8.8.8.8",)
    assert found.dns_search == ("a.example", "b.example")
    assert found.dns_options == ("use-vc", "ndots:2")
    assert container("dns: [8.8.8.8, '::1']").dns == ("8.8.8.8", "::1")
    assert "no IP address" in refused("dns: dns.example")[0]
    assert not warnings("dns: 8.8.8.8")
