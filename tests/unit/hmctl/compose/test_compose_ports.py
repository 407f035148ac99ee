"""Published ports, in all forms; who takes the same one."""

from __future__ import annotations

import pytest
from composing import refused, refused_file, service, warnings

from hmcore.apps.spec import Port


def ports(text, **options):
    return service(f"ports: {text}", **options).ports


def host(target, published=0, protocol="tcp", address=""):
    return Port(target=target, published=published, protocol=protocol, mode="host", address=address)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["8000:80"]', [Port(target=80, published=8000)]),
        ('["6060:6060/udp"]', [Port(target=6060, published=6060, protocol="udp")]),
        ('["6060:6060/UDP"]', [Port(target=6060, published=6060, protocol="udp")]),
        ('["3000"]', [host(3000)]),
        ("[3000]", [host(3000)]),
        ('["3000-3002"]', [host(3000), host(3001), host(3002)]),
        ('["9090-9091:8080-8081"]', [Port(target=8080, published=9090), Port(target=8081, published=9091)]),
        ('["127.0.0.1:8001:8001"]', [host(8001, 8001, address="127.0.0.1")]),
        ('["127.0.0.1::80"]', [host(80, address="127.0.0.1")]),
        ('["0.0.0.0:8001:80"]', [Port(target=80, published=8001)]),
        ('["[::]:8001:80"]', [Port(target=80, published=8001)]),
        ('["0.0.0.0:8001:80", "[::]:8001:80"]', [Port(target=80, published=8001)]),
        ('["[::ffff:127.0.0.1]:8001:80"]', [host(80, 8001, address="127.0.0.1")]),
        ('["[::ffff:0.0.0.0]:8001:80"]', [Port(target=80, published=8001)]),
        ('["0:80"]', [host(80)]),
        ('["8000:80", "8000:80"]', [Port(target=80, published=8000)]),
        ("[22:22]", [Port(target=22, published=22)]),  # text in YAML 1.2
        ("[{target: 80, published: 8080}]", [Port(target=80, published=8080)]),
        (
            '[{target: "80", published: "8080", protocol: udp}]',
            [Port(target=80, published=8080, protocol="udp")],
        ),
        ("[{target: 80, published: 8080, mode: host}]", [host(80, 8080)]),
        ('[{target: 80, published: "8080", mode: host, host_ip: 10.0.0.1}]', [host(80, 8080, address="10.0.0.1")]),
        ("[{target: 80, mode: ingress}]", [host(80)]),
        ("[{target: 80}]", [host(80)]),
        ("[]", []),
        ("", []),
    ],
)
def test_forms(text, expected):
    assert list(ports(text)) == expected


def test_an_address_is_that_of_some_nodes_only():
    (warning,) = warnings('ports: ["127.0.0.1:8001:80"]')
    assert warning.startswith("compose.yaml:4: services.web.ports[0]: published on 127.0.0.1 of the nodes where a replica runs")
    assert not warnings("ports: [{target: 80, published: 1, host_ip: 10.0.0.1, mode: host}]")  # as it says


@pytest.mark.parametrize(
    "text",
    [
        '"8000"',
        "{a: b}",
        '["a"]',
        '[":"]',
        '["80:"]',
        '["80/http"]',
        '["0"]',
        '["65536"]',
        '["70000:80"]',
        '["90-80:90-80"]',
        '["80:80-82"]',
        '["80-81:80-82"]',
        '["1.2.3:80:80"]',
        '["host:80:80"]',
        "[80.5]",
        "[true]",
        "[[80]]",
        "[null]",
        "[{published: 80}]",
        "[{target: 80, published: a}]",
        "[{target: 0}]",
        "[{target: 80, mode: hosts}]",
        "[{target: 80, port: 80}]",
    ],
)
def test_mistakes_have_their_line(text):
    problems = refused(f"ports: {text}")
    assert all(problem.startswith("compose.yaml:4: services.web.ports") for problem in problems)


def test_what_cannot_be_published():
    assert "only tcp and udp" in refused('ports: ["80:80/sctp"]')[0]
    assert "(8000:80)" in refused('ports: ["8000-8010:80"]')[0]
    assert ports('["8000-8010:80"]', ignore_unsupported=True) == (Port(target=80, published=8000),)
    assert "network_mode: host" in refused('ports: ["20000-29999:20000-29999/udp"]')[0]


@pytest.mark.parametrize(
    "port", ['"[::1]:8080:80"', '"::1:8080:80"', '"[fe80::1%eth0]::80"', "{target: 80, published: 8080, host_ip: '2001:db8::1'}"]
)
def test_no_address_of_ipv6_can_be_had(port):
    (problem,) = refused(f'ports: ["127.0.0.1:8080:80", {port}]')
    assert problem.startswith("compose.yaml:4: services.web.ports[1]: ports are published on IPv4 addresses, and ")
    assert problem.endswith('is none (an IPv4 address of the node, such as "127.0.0.1:8080:80", or no address: then every node answers)')
    assert ports(f'["127.0.0.1:8080:80", {port}]', ignore_unsupported=True) == (host(80, 8080, address="127.0.0.1"),)
    assert "is none: it is left out" in warnings(f"ports: [{port}]", ignore_unsupported=True)[0]


def test_the_nodes_own_network():
    assert service("network_mode: host\nports: ['8080:80', '53:53/udp']").ports == (host(80, 80), host(53, 53, "udp"))
    (warning,) = warnings("network_mode: host\nports: ['8080:80', '53:53/udp']")
    assert "reached at port 80 of its node, not at 8080" in warning
    assert service("network_mode: none\nports: ['8080:80']").ports == ()
    assert "without a network" in warnings("network_mode: none\nports: ['8080:80']")[0]


TWO = "services:\n  a: {{image: x, ports: ['{0}']}}\n  b: {{image: x, ports: ['{1}']}}\n"


@pytest.mark.parametrize(
    ("one", "other"), [("80:1", "80:2"), ("80:1", "127.0.0.1:80:1"), ("80-85:80-85", "84:1"), ("1.1.1.1:80:1", "1.1.1.1:80:2")]
)
def test_two_services_cannot_publish_the_same_port(one, other):
    (problem,) = refused_file(TWO.format(one, other))
    assert problem.startswith("compose.yaml:3: services.b.ports[0]: port 8")
    assert "published by a already" in problem


@pytest.mark.parametrize(("one", "other"), [("80:1", "81:1"), ("80:1/udp", "80:1"), ("127.0.0.1:80:1", "10.0.0.1:80:1"), ("80", "80")])
def test_two_services_can_publish_what_differs(one, other):
    from composing import converted

    assert len(converted(TWO.format(one, other)).spec.services) == 2


def test_one_service_cannot_publish_two_as_one():
    assert "by this service already" in refused("ports: ['80:1', '80:2']")[0]


def test_names_of_ports_do_nothing():
    said = warnings("ports: [{target: 80, published: 8080, name: web, app_protocol: http}]")
    assert [line.partition(" (")[0] for line in said] == [
        f"compose.yaml:4: services.web.ports[0].{key}: does nothing here" for key in ("name", "app_protocol")
    ]


@pytest.mark.parametrize(
    ("text", "tcp", "udp"),
    [
        ("[80]", (80,), ()),
        ("['80', 81/tcp, 82-84/TCP, 80]", (80, 81, 82, 83, 84), ()),
        ("['53', 53/udp, 60-61/UDP]", (53,), (53, 60, 61)),
        ("[99/sctp]", (), ()),
    ],
)
def test_expose(text, tcp, udp):
    container = service(f"expose: {text}").container
    assert (container.expose, container.expose_udp) == (tcp, udp)


def test_what_is_exposed_to_nobody():
    assert "does nothing here" in warnings("expose: [99/sctp]")[0]


@pytest.mark.parametrize("text", ["[a]", "[80:80]", "['0']", "['1-65535']", "[null]", "[[1]]", "[99/banana]", "[80/]", "[80/tcp/udp]"])
def test_what_cannot_be_exposed(text):
    assert refused(f"expose: {text}")[0].startswith("compose.yaml:4: services.web.expose[0]")


@pytest.mark.parametrize(
    "port", ['"80801:80"', '"80:80801"', '"8080-99999:80-91999"', '"80801"', '{target: 80, published: "80801"}', '"127.0.0.1:800000:80"']
)
def test_the_highest_port_is_said(port):
    (problem,) = refused_file(f"services:\n  web:\n    image: x\n    ports: [{port}]\n")
    assert "is a higher number than ports have (a port is a number from 1 to 65535)" in problem
