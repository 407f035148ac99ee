"""Health checks: Docker's, and the agent's own."""

from __future__ import annotations

import pytest
from composing import refused, refused_file, service, warnings

from hmcore.apps.spec import Probe


def probe(body):
    return service(body).container.probe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{test: curl -f http://localhost || exit 1}", Probe(test=("CMD-SHELL", "curl -f http://localhost || exit 1"))),
        ("{test: [CMD, curl, -f, http://localhost]}", Probe(test=("CMD", "curl", "-f", "http://localhost"))),
        ("{test: [CMD-SHELL, a || b]}", Probe(test=("CMD-SHELL", "a || b"))),
        ("{test: [NONE]}", Probe(test=("NONE",))),
        ("{disable: true}", Probe(test=("NONE",))),
        ("{disable: true, test: x}", Probe(test=("NONE",))),
        ("{disable: false, interval: 1m30s}", Probe(interval=90)),
        ("{test: x, interval: 5s, timeout: 500ms, retries: 5, start_period: 40s, start_interval: 1s}",
         Probe(test=("CMD-SHELL", "x"), interval=5, timeout=0.5, retries=5, start_period=40, start_interval=1)),
        ("{test: x, retries: '10', interval: 0s}", Probe(test=("CMD-SHELL", "x"), retries=10)),
        ("{test: x, interval: 30s, timeout: 30s, retries: 3, start_interval: 5s}",
         Probe(test=("CMD-SHELL", "x"), written=("interval", "timeout", "retries", "start_interval"))),
        ("{interval: 30s, retries: 5}", Probe(retries=5, written=("interval",))),
        ("{test: [CMD, nc, -z, localhost, 5432]}", Probe(test=("CMD", "nc", "-z", "localhost", "5432"))),
        ("", None),
        ("{}", Probe()),
    ],
)  # fmt: skip
def test_docker(text, expected):
    assert probe(f"healthcheck: {text}") == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{test: [curl, x]}", "must begin with CMD"),
        ("{test: [CMD]}", "nothing after CMD"),
        ("{test: [CMD-SHELL, a, b]}", "takes one text"),
        ("{interval: 30}", "with its unit: 30s"),
        ("{interval: '30'}", "with its unit: 30s"),
        ("{interval: soon}", "must be a duration"),
        ("{interval: 10us}", "a millisecond"),
        ("{retries: -1}", "must be from 0"),
        ("{retries: many}", "a whole number"),
        ("{intervall: 3s}", "did you mean interval?"),
        ("[CMD]", "must be a mapping"),
    ],
)
def test_mistakes(text, words):
    (problem,) = refused(f"healthcheck: {text}")
    assert problem.startswith("compose.yaml:4: services.web.healthcheck")
    assert words in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{type: http, port: 8080, path: /healthz, interval: 2s, timeout: 1s, retries: 2, start_period: 9s}",
         Probe(kind="http", port=8080, path="/healthz", interval=2, timeout=1, retries=2, start_period=9)),
        ("{path: /healthz}", Probe(kind="http", port=80, path="/healthz")),
        ("{type: http, interval: 30s}", Probe(kind="http", port=80, path="/")),
        ("{type: http}", Probe(kind="http", port=80, path="/")),
        ("{type: tcp}", Probe(kind="tcp", port=80)),
        ("{}", Probe(kind="tcp", port=80)),
        ("{port: 5432}", Probe(kind="tcp", port=5432)),
    ],
)  # fmt: skip
def test_the_agents_own(text, expected):
    assert probe(f"ports: ['8000:80', '53:53/udp']\nx-hypermesh: {{check: {text}}}") == expected


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("x-hypermesh: {check: {type: http}}", "says not which port"),
        ("ports: ['1:1', '2:2']\nx-hypermesh: {check: {}}", "says not which port"),
        ("x-hypermesh: {check: {type: grpc, port: 1}}", "must be one of http, tcp"),
        ("x-hypermesh: {check: {type: tcp, port: 1, path: /x}}", "only http has a path"),
        ("x-hypermesh: {check: {port: 1, path: 'x y'}}", "a path on the server"),
        ("x-hypermesh: {check: {port: 0}}", "must be from 1"),
        ("x-hypermesh: {check: http}", "must be a mapping"),
        ("network_mode: none\nx-hypermesh: {check: {port: 1}}", "nobody can reach"),
    ],
)
def test_mistakes_of_the_agents_own(body, words):
    assert words in refused(body)[0]


def test_the_agents_check_goes_before_dockers():
    body = "healthcheck: {test: x}\nx-hypermesh: {check: {port: 80}}"
    assert probe(body) == Probe(kind="tcp", port=80)
    assert "x-hypermesh.check goes before it" in warnings(body)[0]


def test_nobody_can_wait_for_the_health_of_what_has_no_check():
    (problem,) = refused_file("""
services:
  db:
    image: postgres
    healthcheck: {disable: true}
  web: {image: nginx, depends_on: {db: {condition: service_healthy}}}
""")
    assert problem.startswith("compose.yaml:5: services.db.healthcheck: ")
