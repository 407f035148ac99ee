"""Apps from compose files, on real hosts with real Docker: deployed, found, changed under load, taken back, removed."""

from __future__ import annotations

import json
from collections.abc import Callable

from composing import IMAGE, Apps, Load, serving

PORT = 18080
HEALTH = '{test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/alive"], interval: 1s, timeout: 10s, retries: 2}'
SHOP = """
services:
  web:
    image: %(image)s
    command: %(command)s
    init: true
    ports: ["%(port)d:8080"]
    healthcheck: %(health)s
    deploy:
      replicas: %(replicas)d
      update_config: {order: start-first, monitor: 1s, failure_action: %(action)s}
      rollback_config: {order: start-first, monitor: 1s}
  desk:
    image: %(image)s
    init: true
    deploy: {update_config: {monitor: 0s}}
"""


def shop(words: str = "one", *, replicas: int = 2, health: str = HEALTH, action: str = "rollback") -> str:
    command = serving(words)
    return SHOP % {"image": IMAGE, "command": command, "port": PORT, "health": health, "replicas": replicas, "action": action}


def answers_everywhere(apps: Apps, word: str) -> bool:
    """Whether a request at each node's published port, from outside, and one from a container, by the service's name, is answered so."""
    outside = [apps.get(f"{apps.address(node)}:{PORT}") for node in apps.cluster.names]
    inside = apps.run("exec", "shop/desk", "--", "wget", "-q", "-O", "-", "http://web:8080/").stdout
    said = {answer.split()[0] if answer.strip() else "" for answer in (*outside, inside)}
    assert said == {word}, said
    return True


def test_what_a_compose_file_says_runs_answers_everywhere_and_is_deployed_once(apps: Apps, eventually: Callable[..., None]) -> None:
    done = apps.deploy("shop", shop())
    assert (done["ending"], done["generation"], done["changed"]) == ("healthy", 1, True)
    assert {each["service"]: (each["action"]) for each in done["plan"]} == {"desk": "created", "web": "created"}
    assert {each["service"]: (each["healthy"], each["desired"]) for each in done["services"]} == {"desk": (1, 1), "web": (2, 2)}
    eventually(lambda: answers_everywhere(apps, "one"), within=10)
    web = apps.replicas("shop/web")
    assert len({each["node"] for each in web}) == 2, "replicas of a service stand on nodes of their own while there are some"

    before = apps.containers("shop")
    again = apps.deploy("shop", shop())
    assert (again["ending"], again["generation"], again["changed"]) == ("unchanged", 1, False)
    assert apps.containers("shop") == before
    listed = json.loads(apps.run("ls", "-o", "json").stdout)["apps"]
    assert [(app["stage"], app["healthy_generation"]) for app in listed if app["name"] == "shop"] == [("steady", 1)]


def test_scaling_adds_and_takes_away_and_touches_no_other_container(apps: Apps, eventually: Callable[..., None]) -> None:
    apps.deploy("shop", shop())
    before = apps.containers("shop")
    up = apps.change("scale", "shop/web=5")
    assert (up["ending"], up["services"][1]["healthy"]) == ("healthy", 5)
    assert before.items() <= apps.containers("shop").items()
    assert sorted(list(apps.containers("shop").values()).count(node) for node in apps.cluster.names) == [2, 2, 2]
    assert apps.change("scale", "shop/web=5")["ending"] == "unchanged"
    down = apps.change("scale", "shop/web=1")
    assert (down["ending"], down["services"][1]["desired"]) == ("healthy", 1)
    eventually(lambda: len(apps.containers("shop")) == 2, within=15)
    eventually(lambda: answers_everywhere(apps, "one"), within=10)


def test_an_update_start_first_fails_no_request(apps: Apps, eventually: Callable[..., None]) -> None:
    apps.deploy("shop", shop())
    eventually(lambda: answers_everywhere(apps, "one"), within=10)
    addresses = [f"{apps.address(node)}:{PORT}" for node in apps.cluster.names]
    with Load(addresses) as load:
        load.until(lambda: load.answers["one"] > 50)
        done = apps.deploy("shop", shop("two"))
        load.until(lambda: load.recent(30) == {"two"})
    assert done["ending"] == "healthy"
    assert {each["service"]: each["action"] for each in done["plan"]} == {"desk": "unchanged", "web": "replaced"}
    load.expect_no_failure()
    assert load.answers["one"]
    assert load.answers["two"]


def test_an_update_that_is_never_healthy_is_taken_back(apps: Apps, eventually: Callable[..., None]) -> None:
    apps.deploy("shop", shop())
    kept = apps.containers("shop")
    ill = HEALTH.replace("/alive", "/missing")
    eventually(lambda: answers_everywhere(apps, "one"), within=10)
    with Load([f"{apps.address('node1')}:{PORT}"]) as load:
        failing = shop("two", health=ill).replace("exec httpd", "echo words of the ill; exec httpd")
        done = apps.deploy("shop", failing, check=False)
    assert (done["code"], done["ending"]) == (1, "rolled-back")
    assert "generation 2 failed: web: " in done["error"]
    assert "unhealthy" in done["error"]
    assert "generation 3 brings back what generation 1 was" in done["error"]
    assert "fix: hmctl app logs shop; hmctl app history shop" in done["said"]
    load.expect_no_failure()
    generations = json.loads(apps.run("history", "shop", "-o", "json").stdout)["generations"]
    assert [(each["number"], each["reached"], each["origin"]) for each in generations][:2] == [(1, True, None), (2, False, None)]
    assert (generations[2]["origin"], generations[2]["author"]) == (1, "")
    assert kept.items() <= apps.containers("shop").items(), "what was well was never replaced"
    eventually(lambda: answers_everywhere(apps, "one"), within=10)
    eventually(lambda: apps.containers("shop") == kept, within=10)
    assert "words of the ill" in apps.run("logs", "shop").stdout, "what was removed is still read"


def test_an_update_that_fails_is_paused_if_its_file_says_so(apps: Apps, eventually: Callable[..., None]) -> None:
    apps.deploy("shop", shop(replicas=3, action="pause"))
    failing = shop("two", replicas=3, action="pause").replace("exec httpd", "exit 7; httpd")
    done = apps.deploy("shop", failing, check=False)
    assert (done["code"], done["ending"]) == (1, "paused")
    assert "the rollout of generation 2 is paused: web: " in done["error"]
    assert "7" in done["error"]
    assert "hmctl app rollback shop" in done["said"]
    listed = next(app for app in json.loads(apps.run("ls", "-o", "json").stdout)["apps"] if app["name"] == "shop")
    assert (listed["stage"], listed["healthy_generation"]) == ("paused", 1)
    eventually(lambda: answers_everywhere(apps, "one"), within=10)
    back = apps.change("rollback", "shop", "--yes")
    assert (back["ending"], back["generation"]) == ("healthy", 3)
    eventually(lambda: {each["generation"] for each in apps.replicas("shop/web")} <= {1, 3}, within=10)


def test_rolling_back_to_a_generation_brings_back_what_it_was(apps: Apps, eventually: Callable[..., None]) -> None:
    apps.deploy("shop", shop())
    apps.deploy("shop", shop("two"))
    apps.deploy("shop", shop("three"))
    refused = apps.run("rollback", "shop", "--to", "9", "--yes", check=False)
    assert refused.returncode == 1
    assert "shop has no generation 9; there are 1, 2, 3" in refused.stderr
    back = apps.change("rollback", "shop", "--to", "1", "--yes")
    assert (back["ending"], back["generation"]) == ("healthy", 4)
    eventually(lambda: answers_everywhere(apps, "one"), within=10)
    generations = json.loads(apps.run("history", "shop", "-o", "json").stdout)["generations"]
    assert [each["origin"] for each in generations] == [None, None, None, 1]


def test_one_service_is_restarted_by_new_containers(apps: Apps, eventually: Callable[..., None]) -> None:
    apps.deploy("shop", shop())
    before = {service: {each["container"] for each in apps.replicas(f"shop/{service}")} for service in ("web", "desk")}
    eventually(lambda: answers_everywhere(apps, "one"), within=10)
    done = apps.change("restart", "shop/web")
    assert (done["ending"], done["generation"]) == ("healthy", 1)
    after = {service: {each["container"] for each in apps.replicas(f"shop/{service}")} for service in ("web", "desk")}
    assert after["desk"] == before["desk"]
    assert not after["web"] & before["web"]
    unknown = apps.run("restart", "shop/nothing", check=False)
    assert unknown.returncode == 1
    assert "shop has no service nothing; there are desk, web" in unknown.stderr


def test_what_is_removed_leaves_no_container(apps: Apps, eventually: Callable[..., None]) -> None:
    apps.deploy("shop", shop(replicas=4))
    assert len(apps.containers("shop")) == 5
    done = apps.change("rm", "shop", "--yes")
    assert done["ending"] == "removed"
    assert apps.containers("shop") == {}
    assert {apps.get(f"{apps.address(node)}:{PORT}") for node in apps.cluster.names} == {""}
    assert apps.run("ps", "shop", check=False).returncode == 1


SLOTS = """
services:
  web:
    image: %(image)s
    command: ["sleep", "3600"]
    init: true
    environment: {SLOT: "{{.Task.Slot}}"}
    healthcheck: {test: "test $$SLOT -le 2", interval: 1s, timeout: 10s, retries: 1}
    deploy: {replicas: 2, update_config: {monitor: 1s, failure_action: pause}}
  migrate:
    image: %(image)s
    command: ["sh", "-c", "case $$(wget -O - http://web:1/ 2>&1) in *'bad address'*) exit 9;; esac; exit $$CODE"]
    environment: {CODE: "%(code)d"}
    restart: "no"
    depends_on: {web: {condition: service_healthy}}
"""


def test_too_many_replicas_that_are_ill_can_be_taken_back_and_a_job_that_failed_is_tried_again(
    apps: Apps, eventually: Callable[..., None]
) -> None:
    failed = apps.deploy("slots", SLOTS % {"image": IMAGE, "code": 3}, check=False)
    assert (failed["code"], failed["ending"]) == (1, "paused")
    assert "migrate" in failed["error"]
    again = apps.deploy("slots", SLOTS % {"image": IMAGE, "code": 0})
    assert (again["ending"], again["generation"]) == ("healthy", 2), "its first word is a name, which is known at once"

    up = apps.run("scale", "slots/web=4", "--timeout", "60", check=False)
    assert up.returncode == 1
    assert "paused" in up.stderr
    down = apps.change("scale", "slots/web=2")
    assert down["ending"] == "healthy"
    assert {each["replica"] for each in apps.replicas("slots/web")} == {"web.1", "web.2"}
    eventually(lambda: len(apps.containers("slots")) == 3, within=15)
