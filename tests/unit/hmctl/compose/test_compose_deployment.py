"""How many, where, with what, and how they are replaced and restarted."""

from __future__ import annotations

import pytest
from composing import converted, refused, refused_file, service, warnings

from hmcore.apps.spec import Placement, Resources, Restart, Update


def test_as_usual():
    spec = service("")
    assert (spec.mode, spec.replicas, spec.restart, spec.update, spec.rollback) == ("replicated", 1, Restart(), Update(), Update())
    assert (spec.placement, spec.reservations, spec.container.limits) == (Placement(), Resources(), Resources())
    assert (spec.exclusive, spec.weight, spec.priority) == (False, 100, 0)


def test_replicas_and_mode():
    assert service("deploy: {replicas: 3}").replicas == 3
    assert service("deploy: {replicas: '0'}").replicas == 0
    assert service("scale: 2").replicas == 2
    assert service("scale: 2\ndeploy: {replicas: 2}").replicas == 2
    assert "says 3, and deploy.replicas 2" in refused("scale: 3\ndeploy: {replicas: 2}")[0]
    assert service("deploy: {mode: global}").mode == "global"
    assert "runs once on every node" in refused("deploy: {mode: global, replicas: 2}")[0]
    assert "jobs are not supported" in refused("deploy: {mode: replicated-job}")[0]
    assert "must be from 0 to 10000" in refused("deploy: {replicas: 1000000}")[0]
    assert "must be one of replicated, global" in refused("deploy: {mode: everywhere}")[0]
    assert "a whole number" in refused("deploy: {replicas: true}")[0]


def test_resources():
    body = "deploy: {resources: {limits: {cpus: '0.50', memory: 50M, pids: 100}, reservations: {cpus: 0.25, memory: 20M}}}"
    spec = service(body)
    assert spec.container.limits == Resources(cpus=500, memory=50 << 20, pids=100)
    assert spec.reservations == Resources(cpus=250, memory=20 << 20)
    older = service("cpus: 0.5\nmem_limit: 50m\npids_limit: 100\nmem_reservation: 20m")
    assert older.container.limits == spec.container.limits
    assert older.reservations == Resources(memory=20 << 20)
    assert service("pids_limit: -1").container.limits.pids == 0
    assert service("mem_limit: 50m\ndeploy: {resources: {limits: {memory: 50M}}}").container.limits.memory == 50 << 20


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}", "is not what deploy.resources.limits.memory says"),
        ("mem_limit: 512", "less than Docker allows"),
        ("cpus: -1", "a number of processors"),
        ("cpus: 0.0001", "a number of processors"),
        ("cpus: true", "a number of processors"),
        ("deploy: {resources: {limits: {cpus: many}}}", "a number of processors"),
        ("deploy: {resources: {limits: {memory: '5 x'}}}", "a number of bytes"),
        ("deploy: {resources: {limits: {cpus: 1}, reservations: {cpus: 2}}}", "reserves more than the limit"),
        ("mem_limit: 10m\nmem_reservation: 20m", "reserves more than the limit"),
        ("deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}", "deploy.placement.constraints"),
        ("deploy: {resources: {limit: {}}}", "did you mean limits?"),
    ],
)
def test_resources_that_cannot_be(body, words):
    assert words in refused(body)[0]


def test_placement():
    spec = service(
        "deploy: {placement: {constraints: ['node.labels.zone == a', node.role==manager], max_replicas_per_node: 2,"
        " preferences: [{spread: node.labels.zone}, {spread: node.labels.rack}]}}"
    )
    assert spec.placement == Placement(
        constraints=("node.labels.zone == a", "node.role==manager"), spread=("node.labels.zone", "node.labels.rack"), max_per_node=2
    )
    assert service("platform: linux/arm64/v8").placement.constraints == ("node.platform.arch==arm64",)
    assert service("platform: linux").placement.constraints == ()
    assert "nodes run Linux" in refused("platform: windows/amd64")[0]
    for text in ("disktype=ssd", "node.colour==red", "node.id==x", "'a; b'"):
        (problem,) = refused(f"deploy: {{placement: {{constraints: [{text}]}}}}")
        assert problem.startswith("compose.yaml:4: services.web.deploy.placement.constraints[0]: ")
    assert refused("deploy: {placement: {preferences: [{spread: zone}]}}")
    assert refused("deploy: {placement: {preferences: [{}]}}")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("restart: always", Restart()),
        ("restart: unless-stopped", Restart()),
        ("restart: no", Restart(condition="none")),
        ("restart: 'no'", Restart(condition="none")),
        ("restart: false", Restart(condition="none")),
        ("restart: on-failure", Restart(condition="on-failure")),
        ("restart: on-failure:3", Restart(condition="on-failure", attempts=3)),
        ("deploy: {restart_policy: {condition: on-failure, delay: 1s, max_attempts: 3, window: 2m}}",
         Restart(condition="on-failure", delay=1, attempts=3, window=120)),
        ("deploy: {restart_policy: {}}", Restart()),
        ("deploy: {restart_policy: {condition: unless-stopped}}", Restart()),
        ("deploy: {restart_policy: {condition: always}}", Restart()),
        ("deploy: {restart_policy: {condition: no}}", Restart(condition="none")),
        ("restart: always\ndeploy: {restart_policy: {condition: none}}", Restart(condition="none")),
    ],
)  # fmt: skip
def test_restart(body, expected):
    assert service(body).restart == expected


def test_which_restart_wins_is_said():
    assert "deploy.restart_policy goes before it: none" in warnings("restart: always\ndeploy: {restart_policy: {condition: none}}")[0]
    assert not warnings("restart: always\ndeploy: {restart_policy: {condition: any, delay: 5s}}")


@pytest.mark.parametrize("text", ["sometimes", "on-failure:x", "always:3", "on-failure:-1", "5", "true"])
def test_restarts_that_cannot_be(text):
    assert refused(f"restart: {text}")[0].startswith("compose.yaml:4: services.web.restart")


def test_a_restart_that_cannot_be_is_shown_whole():
    for text in ("on-failure:x", "always:3"):
        assert f"cannot be '{text}' (always, unless-stopped" in refused(f"restart: {text}")[0]


MIGRATION = """
services:
  migrate: {{image: app, {0}}}
  web: {{image: app, depends_on: {{migrate: {{condition: service_completed_successfully}}}}}}
"""


def test_what_others_wait_for_need_not_run_for_ever():
    def restart(text, **options):
        return converted(MIGRATION.format(text), **options).spec.services["migrate"].restart

    assert restart("").condition == "on-failure"
    assert restart("restart: 'no'").condition == "none"
    assert restart("deploy: {restart_policy: {condition: on-failure}}").condition == "on-failure"
    assert "it is started again whenever it ends" in refused_file(MIGRATION.format("restart: always"))[0]
    assert restart("restart: always", ignore_unsupported=True).condition == "on-failure"


def test_updates():
    text = "{parallelism: 2, delay: 10s, order: start-first, failure_action: rollback, monitor: 30s, max_failure_ratio: 0.25}"
    full = Update(parallelism=2, delay=10, order="start-first", failure_action="rollback", monitor=30, max_failure_ratio=0.25)
    spec = service(f"deploy: {{update_config: {text}, rollback_config: {{parallelism: 0, failure_action: continue}}}}")
    assert spec.update == full
    assert spec.rollback == Update(parallelism=0, failure_action="continue")
    assert service("deploy: {update_config: {max_failure_ratio: '0.1'}}").update.max_failure_ratio == 0.1


@pytest.mark.parametrize(
    "text",
    [
        "update_config: {parallelism: -1}", "update_config: {delay: 10}", "update_config: {order: newest-first}",
        "update_config: {failure_action: panic}", "update_config: {max_failure_ratio: 1.5}", "update_config: {max_failure_ratio: .nan}",
        "rollback_config: {failure_action: rollback}", "update_config: [1]", "update_config: {paralellism: 1}",
    ],
)  # fmt: skip
def test_updates_that_cannot_be(text):
    (problem,) = refused(f"deploy: {{{text}}}")
    assert problem.startswith("compose.yaml:4: services.web.deploy.")


def test_endpoint_mode():
    assert service("deploy: {endpoint_mode: dnsrr}")
    assert "healthy replicas" in warnings("deploy: {endpoint_mode: vip}")[0]
    assert not warnings("deploy: {endpoint_mode: dnsrr}")
    assert refused("deploy: {endpoint_mode: vips}")


def test_our_own():
    spec = service("x-hypermesh: {exclusive: true, weight: 50, priority: 2}")
    assert (spec.exclusive, spec.weight, spec.priority) == (True, 50, 2)
    assert "did you mean exclusive?" in refused("x-hypermesh: {exclusiv: true}")[0]
    assert "must be from 0" in refused("x-hypermesh: {weight: -1}")[0]
    assert "two of it at a time" in refused("x-hypermesh: {exclusive: true}\ndeploy: {update_config: {order: start-first}}")[0]


def test_a_container_name_is_for_one_container():
    assert "it has several" in warnings("container_name: x\nscale: 2")[0]
    assert "it has several" in warnings("container_name: x\ndeploy: {mode: global}")[0]
    assert not warnings("container_name: x")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("deploy: {replicas: 3}", "compose.yaml:4: services.web.deploy.replicas: "),
        ("scale: 2", "compose.yaml:4: services.web.scale: "),
        ("deploy: {mode: global}", "compose.yaml:4: services.web.deploy.mode: "),
    ],
)
def test_what_is_exclusive_runs_once(text, where):
    (problem,) = refused(f"{text}\nx-hypermesh: {{exclusive: true}}")
    assert problem.startswith(where), problem
    assert "never two of it run at a time" in problem
    assert service("deploy: {replicas: 0}\nx-hypermesh: {exclusive: true}").exclusive
    assert service("x-hypermesh: {exclusive: true}").replicas == 1
