"""Inside an app's containers: what they write, commands in them, secrets and configs; and compose files that are not as they should be."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest
from composing import IMAGE, Apps

SPEAKING = f"""
services:
  talk:
    image: {IMAGE}
    init: true
    command: ["sh", "-c", "echo I am $$(hostname); echo badly >&2; sleep 3600"]
    deploy: {{replicas: 2, update_config: {{monitor: 0s}}}}
  hum:
    image: {IMAGE}
    init: true
    command: ["sh", "-c", "echo hum; sleep 3600"]
    deploy: {{update_config: {{monitor: 0s}}}}
"""
SECRETIVE = f"""
services:
  vault:
    image: {IMAGE}
    init: true
    user: "1000:1000"
    secrets:
      - shared
      - {{source: own, target: its-own, uid: "1000", gid: "1000", mode: 0400}}
    configs: [{{source: motd, target: /motd}}]
    deploy: {{replicas: 3, update_config: {{monitor: 0s, parallelism: 0}}}}
secrets:
  shared: {{external: true, name: e2e-shared}}
  own: {{file: own.txt}}
configs:
  motd: {{content: "welcome to $HOSTNAME_OF_IT\\n"}}
"""


def test_logs_of_all_replicas_are_one_and_marked(apps: Apps) -> None:
    apps.deploy("speaking", SPEAKING)
    wanted = {("talk.1", "stdout"), ("talk.1", "stderr"), ("talk.2", "stdout"), ("talk.2", "stderr"), ("hum.1", "stdout")}
    lines = [json.loads(line) for line in apps.run("logs", "speaking", "-o", "json").stdout.splitlines()]
    assert {(line["replica"], line["stream"]) for line in lines} == wanted
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert {line["node"] for line in lines} == {each["node"] for each in apps.replicas("speaking")}
    said = apps.run("logs", "speaking/talk").stdout
    assert "talk.1 I am " in said
    assert "talk.2 badly" in said
    assert "hum" not in said
    assert len(apps.run("logs", "speaking/talk", "--tail", "1").stdout.splitlines()) == 2


def test_logs_that_are_followed_go_on_with_what_is_written_and_with_replicas_that_come(
    apps: Apps, eventually: Callable[..., None], following: Callable[..., list[str]]
) -> None:
    apps.deploy("speaking", SPEAKING)
    lines = following("app", "logs", "speaking", "-f")
    eventually(lambda: any("hum.1" in line and line.endswith("hum") for line in lines), within=10)
    apps.run("exec", "speaking/hum", "--", "sh", "-c", "echo still here > /proc/1/fd/1")
    eventually(lambda: any("hum.1" in line and "still here" in line for line in lines), within=10)
    apps.change("scale", "speaking/hum=2")
    eventually(lambda: any("hum.2" in line and line.endswith("hum") for line in lines), within=10)


def test_a_command_in_a_replica_has_our_input_and_we_its_output_and_exit_code(apps: Apps) -> None:
    apps.deploy("speaking", SPEAKING)
    hosts = {apps.run("exec", f"speaking/talk.{index}", "--", "hostname").stdout for index in (1, 2)}
    assert len(hosts) == 2
    assert {host.strip() for host in hosts} == {each["container"][:12] for each in apps.replicas("speaking/talk")}
    echoed = apps.run("exec", "speaking/talk", "--", "sh", "-c", "cat; echo to stderr >&2; exit 42", stdin="one\ntwo", check=False)
    assert (echoed.returncode, echoed.stdout, echoed.stderr) == (42, "one\ntwo", "to stderr\n")
    missing = apps.run("exec", "speaking/talk", "--", "no-such-program", check=False)
    assert missing.returncode in (126, 127)
    assert "no-such-program" in missing.stderr + missing.stdout
    nowhere = apps.run("exec", "speaking/talk.7", "--", "true", check=False)
    assert nowhere.returncode == 1
    assert "talk.7" in nowhere.stderr


def test_secrets_and_configs_are_files_that_docker_does_not_know_the_content_of(apps: Apps) -> None:
    apps.cluster.run("secret", "set", "e2e-shared", "-", stdin="correct horse battery")
    (apps.folder / "own.txt").write_text("staple")
    try:
        document = apps.deploy("secretive", SECRETIVE, env={"HOSTNAME_OF_IT": "the lab"})
        assert document["ending"] == "healthy"
        for each in apps.replicas("secretive"):
            where = f"secretive/{each['replica']}"
            said = apps.run("exec", where, "--", "cat", "/run/secrets/shared", "/run/secrets/its-own", "/motd").stdout
            assert said == "correct horse batterystaplewelcome to the lab\n"
            assert apps.run("exec", where, "--", "stat", "-c", "%u %a", "/run/secrets/its-own").stdout == "1000 400\n"
            inspected = apps.cluster.inside(each["node"], "docker", "inspect", each["container"])
            assert "horse" not in inspected
            assert "staple" not in inspected
        listed = apps.cluster.run("secret", "ls", "-o", "json").stdout
        assert "horse" not in listed
        assert {"e2e-shared", "secretive/own"} <= {each["name"] for each in json.loads(listed)["secrets"]}
        used = apps.cluster.run("secret", "rm", "e2e-shared", "--yes", check=False)
        assert used.returncode == 1
        assert "secretive" in used.stderr
    finally:
        apps.remove_all()
        apps.cluster.run("secret", "rm", "e2e-shared", "--yes")


def test_another_value_of_a_secret_comes_with_the_next_deployment(apps: Apps) -> None:
    text = SECRETIVE.replace("      - shared\n", "").replace("  shared: {external: true, name: e2e-shared}\n", "")
    (apps.folder / "own.txt").write_text("staple")
    apps.deploy("secretive", text, env={"HOSTNAME_OF_IT": "x"})
    before = apps.containers("secretive")
    assert apps.deploy("secretive", text, env={"HOSTNAME_OF_IT": "x"})["ending"] == "unchanged"
    (apps.folder / "own.txt").write_text("another")
    done = apps.deploy("secretive", text, env={"HOSTNAME_OF_IT": "x"})
    assert [each["action"] for each in done["plan"]] == ["replaced"]
    assert "another" not in json.dumps(done)
    assert apps.run("exec", "secretive/vault", "--", "cat", "/run/secrets/its-own").stdout == "another"
    assert not before.keys() & {each["container"] for each in apps.replicas("secretive")}


def test_config_shows_what_files_come_to_and_asks_nobody(apps: Apps) -> None:
    base = apps.file("merged", "services: {web: {image: '${REPO:-e2e-web}:1', environment: {A: one, B: two}}}\n")
    over = apps.folder / "over.yaml"
    over.write_text("services: {web: {environment: {B: three}, deploy: {replicas: 4}}}\n")
    done = apps.run("config", "-f", base, "-f", over, "-o", "json", env={"HMCTL_INVENTORY": "/nonexistent"})
    web = json.loads(done.stdout)["services"]["web"]
    assert (web["image"], web["environment"], web["deploy"]["replicas"]) == ("e2e-web:1", {"A": "one", "B": "three"}, 4)
    again = apps.folder / "resolved.yaml"
    again.write_text(apps.run("config", "-f", base, "-f", over).stdout)
    assert json.loads(apps.run("config", "-f", again, "-o", "json").stdout)["services"]["web"] == web


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("services:\n  web:\n    imaeg: e2e-web:1\n", 4, "imaeg"),
        ("services:\n  web:\n    image: e2e-web:1\n    ports: ['80:http']\n", 5, "ports"),
        ("services:\n  web:\n    image: ${NOT_SET:?say which}\n", 4, "say which"),
        ("services:\n  web:\n    image: e2e-web:1\n    depends_on: [db]\n", 5, "db"),
        ("services:\n  web:\n    image: e2e-web:1\n    secrets: [key]\n", 5, "key"),
        ("services:\n  web:\n    image: e2e-web:1\n    deploy: {replicas: many}\n", 5, "replicas"),
        ("services:\n  web:\n    image: e2e-web:1\n    network_mode: service:db\n", 5, "network_mode"),
        ("services:\n  web: [\n", 3, "not YAML"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_line_and_nothing_is_deployed(apps: Apps, text: str, line: int, words: str) -> None:
    path = apps.file("mistaken", text)
    done: subprocess.CompletedProcess[str] = apps.run("deploy", "-f", path, "--yes", check=False)
    assert done.returncode == 2, done.stderr
    assert f"mistaken.yaml:{line}" in done.stderr
    assert words in done.stderr
    assert "mistaken" not in apps.run("ls").stdout
