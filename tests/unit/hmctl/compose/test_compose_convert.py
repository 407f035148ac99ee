"""Whole files as they are found in the wild, and several mistakes at once."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from composing import FOLDER, converted, project_of, refused_file

from hmcore.apps.spec import Dependency, Mount, Port, Probe, Resources, Restart, plain, revision, spec_digest
from hmcore.errors import ConfigError, Problem
from hmctl.compose.convert import convert
from hmctl.compose.parts.keys import OBJECTS
from hmctl.compose.project import Place, Project

CASES = Path(__file__).parents[3] / "cases" / "conversion"


@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.glob("*.yaml")))
def test_docker_composes_own_form_of_a_file_is_the_same_app(name):
    """NAME.json is what `docker compose config --format json --no-path-resolution` (v2.40.3) made of NAME.yaml."""
    written = project_of((CASES / f"{name}.yaml").read_text())
    normal = json.loads((CASES / f"{name}.json").read_text())
    for kind in ("secrets", "configs"):  # called otherwise in the cluster, and Compose gives all of them their name
        for entry in normal.get(kind, {}).values():
            if not entry.get("external"):
                del entry["name"]
    ours = convert(written, ignore_unsupported=True)
    theirs = convert(Project(name="shop", value=normal, folder=Path(FOLDER)), ignore_unsupported=True)
    assert plain(ours.spec) == plain(theirs.spec)
    assert ours.builds == theirs.builds
    assert ours.contents == theirs.contents


def test_a_site_and_its_database():
    found = converted("""
x-logging: &logging
  logging: {driver: json-file, options: {max-size: "10m", max-file: "3"}}
services:
  db:
    <<: *logging
    image: mariadb:10.6
    restart: always
    volumes: [db:/var/lib/mysql]
    environment:
      - MYSQL_ROOT_PASSWORD_FILE=/run/secrets/root
      - MYSQL_DATABASE=wordpress
    secrets: [root]
    healthcheck:
      test: ["CMD", "healthcheck.sh", "--connect"]
      interval: 10s
  wordpress:
    <<: *logging
    image: wordpress:6-apache
    depends_on:
      db: {condition: service_healthy}
    ports: ["8080:80"]
    environment: {WORDPRESS_DB_HOST: db:3306, WORDPRESS_DEBUG: 1}
    deploy:
      replicas: 2
      update_config: {parallelism: 1, order: start-first, failure_action: rollback}
      resources: {limits: {cpus: "0.5", memory: 512M}}
volumes: {db: }
secrets: {root: {file: /home/me/shop/root.txt}}
""")
    db, wordpress = found.spec.services["db"], found.spec.services["wordpress"]
    assert db.restart == Restart()
    assert db.container.mounts == (Mount(kind="volume", source="db", target="/var/lib/mysql"),)
    assert db.container.logging.options == {"max-size": "10m", "max-file": "3"}
    assert db.container.probe == Probe(test=("CMD", "healthcheck.sh", "--connect"), interval=10)
    assert wordpress.ports == (Port(target=80, published=8080),)
    assert wordpress.depends_on == {"db": Dependency(condition="healthy")}
    assert wordpress.container.environment == {"WORDPRESS_DB_HOST": "db:3306", "WORDPRESS_DEBUG": "1"}
    assert wordpress.container.limits == Resources(cpus=500, memory=512 << 20)
    assert (wordpress.update.order, wordpress.update.failure_action) == ("start-first", "rollback")
    assert found.spec.networks == ("default",)
    assert found.warnings == ()


def test_an_agent_on_every_node():
    found = converted("""
version: "3.8"
services:
  exporter:
    image: prom/node-exporter:v1.8.0
    command: ["--path.rootfs=/host"]
    network_mode: host
    pid: host
    volumes: ["/:/host:ro,rslave"]
    deploy: {mode: global}
    x-hypermesh: {check: {type: http, port: 9100, path: /metrics}}
""")
    exporter = found.spec.services["exporter"]
    assert exporter.mode == "global"
    assert exporter.container.mounts == (Mount(kind="bind", source="/", target="/host", read_only=True, propagation="rslave"),)
    assert exporter.container.probe == Probe(kind="http", port=9100, path="/metrics")
    assert found.spec.networks == ()
    assert [problem.path for problem in found.warnings] == ["version", "services.exporter.volumes[0]"]


def test_every_mistake_is_told_at_once_with_its_line():
    assert refused_file("""
services:
  web:
    imag: nginx
    ports:
      - "80:80"
      - "99999:80"
    deploy:
      replicas: many
      placement: {constraints: ["node.role = manager"]}
  api:
    image: app
    depends_on: [db]
    volumes: [data:/data]
    privileged: maybe
    gpus: all
secrets:
  s: {}
""") == [
        "compose.yaml:3: services.web: has no image (image: NAME, or build: FOLDER)",
        "compose.yaml:4: services.web.imag: unknown key (did you mean image?)",
        "compose.yaml:7: services.web.ports[1]: is a higher number than ports have (a port is a number from 1 to 65535)",
        "compose.yaml:9: services.web.deploy.replicas: must be a whole number, not 'many'",
        "compose.yaml:10: services.web.deploy.placement.constraints[0]: 'node.role = manager' is no placement constraint"
        " (a constraint is written as node.labels.zone==a, with == or !=)",
        "compose.yaml:13: services.api.depends_on: there is no service db in this file (or it has profiles, and none of them is chosen)",
        "compose.yaml:14: services.api.volumes[0]: there is no volume data in this file"
        " (volumes: {data: } at the top level; a path begins with / or .)",
        "compose.yaml:15: services.api.privileged: must be true or false, not 'maybe'",
        f"compose.yaml:16: services.api.gpus: not supported ({OBJECTS['service'].unsupported['gpus']})",
        "compose.yaml:18: secrets.s: comes from nowhere (one of file:, environment:, or external: true)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("services: {'a b': {image: x}}", "cannot be the name of a service"),
        ("services: {a.-: {image: x}}", "cannot be the name of a service"),
        ("services: {a.b: {image: x}, A-B: {image: x}}", "cannot be the name of a service"),
        ("services: {a.b-c: {image: x}, a-b.c: {image: x}}", "cannot be the name of a service"),
        ("services: {'$(x)': {image: x}}", "cannot be the name of a service"),
        ("services: {-a: {image: x}}", "cannot be the name of a service"),
        (f"services: {{{'a' * 64}: {{image: x}}}}", "cannot be the name of a service"),
        ("services: {Web: {image: x}, web: {image: x}}", "is the same name as Web"),
        ("services: {}", "there are no services"),
        ("services: [a]", "must be a mapping"),
        ("services: {web: nginx}", "must be a mapping"),
        ("{}", "there are no services"),
        ("[]", "must be a mapping"),
    ],
)
def test_services_that_cannot_be(text, words):
    assert words in refused_file(text)[0]


@pytest.mark.parametrize("name", ["", "Shop", "a b", "-a", "a-", "a/b", "a.b", "a" * 64, "a\n", "ä", "$(x)"])
def test_apps_that_cannot_be(name):
    with pytest.raises(ConfigError) as caught:
        convert(project_of("services: {web: {image: x}}", name=name))
    assert "an app cannot be called" in str(caught.value)


@pytest.mark.long
def test_a_file_of_mistakes_is_told_soon():
    text = "services:\n" + "".join(f"  s{n}: {{imaeg: x, pots: [], restrat: no}}\n" for n in range(5000))
    began = time.process_time()
    problems = refused_file(text)
    assert len(problems) == 20_000
    assert 0 < sum("did you mean" in problem for problem in problems) <= 200  # looking for 15,000 near words took a minute
    assert time.process_time() - began < 20


USUAL = """
    stop_grace_period: 10s
    restart: always
    healthcheck: {disable: false, start_period: 0s}
    privileged: false
    ports: [{target: 80, published: 8080, protocol: tcp, mode: ingress}]
    networks: [default]
    deploy:
      mode: replicated
      replicas: 1
      restart_policy: {condition: any, delay: 5s, window: 0s}
      update_config: {parallelism: 1, delay: 0s, monitor: 5s, max_failure_ratio: 0.0, order: stop-first, failure_action: pause}
      resources: {limits: {cpus: "0"}}
    x-hypermesh: {weight: 100, priority: 0, exclusive: false}
"""


def test_what_is_as_usual_changes_nothing_when_it_is_said():
    said = converted(f"services:\n  web:\n    image: nginx{USUAL}").spec
    silent = converted("services: {web: {image: nginx, healthcheck: {}, ports: ['8080:80']}}").spec
    assert said == silent
    assert (revision(said, "web"), spec_digest(said)) == (revision(silent, "web"), spec_digest(silent))


def test_files_keep_their_order_and_warnings_of_reading_are_kept():
    value = {"services": {"b": {"image": "x", "annotations": {}}, "a": {"image": "x", "attach": True}}}
    places = {("services", "b"): Place("one.yaml", 9), ("services", "a"): Place("two.yaml", 2)}
    odd = Problem("one.yaml", 1, "", "odd", warning=True)
    found = convert(Project(name="shop", value=value, folder=Path(FOLDER), places=places, warnings=(odd,)))
    assert [(problem.file, problem.line) for problem in found.warnings] == [("one.yaml", 1), ("one.yaml", 9), ("two.yaml", 2)]
