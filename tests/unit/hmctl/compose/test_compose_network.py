"""Networks, names on them, links, hosts and name servers."""

from __future__ import annotations

import pytest
from composing import converted, refused, refused_file, service, warnings

from hmctl.compose.convert import convert

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
    assert not converted(text.format("{internal: false, enable_ipv4: true}")).warnings
    found = converted(
        text.format(
            "{driver: bridge, driver_opts: {com.docker.network.driver.mtu: 1400, encrypted: 'false'}, name: x, attachable: true,"
            " enable_ipv6: true, ipam: {config: [{subnet: 10.0.0.0/8}]}, labels: [a=b]}"
        )
    )
    assert {problem.path for problem in found.warnings} == {
        f"networks.n.{key}" for key in ("attachable", "enable_ipv6", "ipam", "labels", "name", "driver_opts")
    }
    assert found.spec.networks == ("n",)
    for external in ("{external: true}", "{external: true, name: bridge}"):
        assert "services of other apps are not on it" in str(converted(text.format(external)).warnings[0])


BRIDGE = "com.docker.network.bridge."


@pytest.mark.parametrize(
    ("made", "path", "words"),
    [
        ("driver_opts: {encrypted: ''}", "driver_opts.encrypted", "TLS of their own, or the nodes a private link"),
        ("driver_opts: {encrypted: }", "driver_opts.encrypted", "nothing is encrypted"),
        ("driver: overlay, driver_opts: {encrypted: true}", "driver_opts.encrypted", "nothing is encrypted"),
        (f"driver_opts: {{{BRIDGE}enable_icc: 'false'}}", f"driver_opts.{BRIDGE}enable_icc", "forbidden on the nodes"),
        (f"driver_opts: {{{BRIDGE}enable_ip_masquerade: 'false'}}", f"driver_opts.{BRIDGE}enable_ip_masquerade", "on the nodes"),
        (f"driver_opts: {{{BRIDGE}inhibit_ipv4: 'true'}}", f"driver_opts.{BRIDGE}inhibit_ipv4", "on the nodes"),
        (f"driver_opts: {{{BRIDGE}gateway_mode_ipv4: isolated}}", f"driver_opts.{BRIDGE}gateway_mode_ipv4", "on the nodes"),
        (f"driver_opts: {{{BRIDGE}host_binding_ipv4: 127.0.0.1}}", f"driver_opts.{BRIDGE}host_binding_ipv4", "['127.0.0.1:8080:80']"),
        ("driver_opts: {parent: eth0}", "driver_opts.parent", "publish ports, or network_mode: host"),
        ("driver: macvlan", "driver", "publish ports, or network_mode: host"),
        ("driver: ipvlan", "driver", "publish ports, or network_mode: host"),
        ("driver: host", "driver", "network_mode: host"),
        ("driver: 'null'", "driver", "network_mode: none"),
        ("driver: weaveworks/net-plugin", "driver", "neither encrypts nor keeps apart"),
        ("internal: true", "internal", "containers reach what their node reaches"),
        ("enable_ipv4: false", "enable_ipv4", "every container has an IPv4 address"),
        ("external: true, name: host", "", "network_mode: host, in place of networks:"),
        ("external: {name: host}", "", "network_mode: host, in place of networks:"),
        ("external: true, name: none", "", "network_mode: none, in place of networks:"),
    ],
)
def test_what_a_network_keeps_out_or_lets_in_elsewhere_is_not_dropped(made, path, words):
    text = f"services: {{web: {{image: nginx, networks: [n]}}}}\nnetworks:\n  n: {{{made}}}\n"
    where = f"compose.yaml:3: networks.n.{path}".removesuffix(".")
    (said,) = refused_file(text)
    assert said.startswith(f"{where}: ")
    assert words in said
    left = converted(text, ignore_unsupported=True)
    assert left.spec.networks == ("n",)
    assert any(str(problem).startswith(f"{where}: ") and words in str(problem) for problem in left.warnings)
    assert not any(f"networks.n.{path}" == problem.path for problem in convert(left.counted).warnings)


def test_host_networking_as_stacks_have_it_is_told_what_to_write():
    text = "services: {web: {image: nginx, networks: [host]}}\nnetworks: {host: {external: true}}\n"
    assert "network_mode: host" in refused_file(text)[0]


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
