"""hmctl app deploy and config, as typed: from compose files to healthy replicas, or to a clear no."""

from __future__ import annotations

import io
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from app_world import FILE, World, shop

from hmctl.cli import main
from node_agent.consensus.statemachine.appcommands import PutApp, StopApp


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda: json.loads(capsys.readouterr().out)


def test_a_new_app_is_shown_asked_for_and_followed(world: World, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["app", "deploy", "-f", "compose.yaml"]) == 2
    captured = capsys.readouterr()
    assert "  + web\n" in captured.err
    assert "replicas: 3" in captured.err
    assert "hunter2" not in captured.err
    assert "nobody can answer, for stdin is no terminal: Deploy shop?" in captured.err
    assert world.state.apps == {}
    assert main.run(["app", "deploy", "-f", "compose.yaml", "-y", "--note", "at last"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "shop is healthy, as generation 1\n"
    lines = captured.err.splitlines()
    assert lines.index("web: pulled 3/3, started 0/3, healthy 0/3") < lines.index("web: pulled 3/3, started 3/3, healthy 3/3")
    assert lines[-1].startswith(("web: healthy 3/3", "db: healthy 1/1"))
    made = world.state.generations["shop@1"]
    assert (made.note, made.author, made.spec.services["web"].container.environment) == ("at last", "ann", {"TOKEN": "hunter2"})


def test_a_file_that_has_not_changed_is_said_so_and_nothing_is_done(world: World, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["app", "deploy", "-y"]) == 0
    capsys.readouterr()
    world.asked.clear()
    assert main.run(["app", "deploy"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "shop is so already, as generation 1; nothing was changed\n"
    assert "apps.deploy" not in [method for _, method in world.asked]
    assert captured.err == ""


def test_what_changes_is_told_service_by_service(world: World, folder: Path, capsys: pytest.CaptureFixture[str], told: Any) -> None:
    assert main.run(["app", "deploy", "-y"]) == 0
    (folder / "compose.override.yaml").write_text("services: {web: {deploy: {replicas: 4}}, cache: {image: cache:1}}\n")
    (folder / ".env").write_text("IMAGE=web:2\n")
    capsys.readouterr()
    assert main.run(["app", "deploy", "-y", "-o", "json"]) == 0
    document = told()
    assert (document["ending"], document["generation"], document["changed"]) == ("healthy", 2, True)
    assert [(each["service"], each["action"]) for each in document["plan"]] == [
        ("cache", "created"),
        ("db", "unchanged"),
        ("web", "replaced"),
    ]
    changes = {each["path"]: (each["old"], each["new"], each["replaces"]) for each in document["plan"][2]["changes"]}
    assert changes == {"image": ("web:1", "web:2", True), "replicas": (3, 4, False)}
    assert {each.spec.services["web"].replicas for each in world.state.generations.values() if each.number == 2} == {4}


def test_a_plan_that_is_only_asked_for_changes_nothing(world: World, folder: Path, capsys: pytest.CaptureFixture[str], told: Any) -> None:
    assert main.run(["app", "deploy", "--dry-run"]) == 0, "nobody is asked"
    captured = capsys.readouterr()
    assert captured.out.startswith("shop  a new app\n")
    assert "  + web\n" in captured.out
    assert "hunter2" not in captured.out
    assert captured.err == ""
    assert main.run(["app", "deploy", "--dry-run", "-y", "-o", "json"]) == 0
    document = told()
    assert (document["ending"], document["changed"], document["generation"], document["services"]) == ("planned", False, 1, [])
    assert {(each["service"], each["action"]) for each in document["plan"]} == {("db", "created"), ("web", "created")}
    assert world.state.apps == {}
    assert main.run(["app", "deploy", "--dry-run", "--detailed-exitcode"]) == 10
    assert not {"apps.deploy", "secrets.put"} & {method for _, method in world.asked}
    assert main.run(["app", "deploy", "-y"]) == 0
    capsys.readouterr()
    assert main.run(["app", "deploy", "--dry-run", "--detailed-exitcode", "-o", "json"]) == 0
    assert told()["ending"] == "unchanged"


def test_files_names_variables_and_profiles_are_as_named(world: World, folder: Path, capsys: pytest.CaptureFixture[str], told: Any) -> None:
    (folder / "one.yaml").write_text("services: {web: {image: '${IMAGE}'}, debug: {image: debug:1, profiles: [debug]}}\n")
    (folder / "two.yaml").write_text("services: {web: {deploy: {replicas: 2}}}\n")
    (folder / "some.env").write_text("IMAGE=web:7\n")
    words = ["-f", "one.yaml", "-f", "two.yaml", "--name", "other", "--env-file", "some.env", "--profile", "debug"]
    assert main.run(["app", "config", *words, "-o", "json"]) == 0
    document = told()
    assert (document["name"], sorted(document["services"])) == ("other", ["debug", "web"])
    assert document["services"]["web"] == {"image": "web:7", "deploy": {"replicas": 2}}
    assert world.asked == []
    assert main.run(["app", "deploy", *words, "-y", "--no-wait"]) == 0
    assert capsys.readouterr().out.startswith("other: generation 1 is being rolled out")
    assert main.run(["app", "config", *words]) == 0
    (folder / "one.yaml").write_text(capsys.readouterr().out)
    assert main.run(["app", "deploy", "-f", "one.yaml", "--profile", "debug", "--no-wait"]) == 0
    assert "other is so already" in capsys.readouterr().out


def test_a_profile_that_no_service_has_is_no_way_to_lose_a_service(
    world: World, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "compose.yaml").write_text("services: {web: {image: web:1}, tools: {image: debug:1, profiles: [debug]}}\n")
    assert main.run(["app", "deploy", "--profile", "debug", "-y", "--no-wait"]) == 0
    capsys.readouterr()
    assert main.run(["app", "deploy", "--profile", "debgu", "-y"]) == 2
    line = capsys.readouterr().err.splitlines()[1]
    assert line == "  compose.yaml:1: services: none has the profile 'debgu' that --profile names (did you mean debug?)"
    assert sorted(world.state.generations["shop@1"].spec.services) == ["tools", "web"]
    monkeypatch.setenv("COMPOSE_PROFILES", "debug,other")  # which may be that of several apps
    assert main.run(["app", "deploy", "-y", "--no-wait"]) == 0
    said = capsys.readouterr()
    assert "warning: compose.yaml:1: services: none has the profile 'other' that COMPOSE_PROFILES names (allowed: debug)" in said.err
    assert "shop is so already" in said.out
    for profile in ("*", "debug"):
        assert main.run(["app", "config", "--profile", profile]) == 0
        assert capsys.readouterr().err == ""
    (folder / "compose.yaml").write_text("services: {web: {image: web:1}}\n")
    assert main.run(["app", "config", "--profile", "debug"]) == 2
    assert "(no service has any profile)" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["table", "yaml", "json"])
def test_the_shown_file_deploys_alike_in_every_form(
    form: str, world: World, folder: Path, capsys: pytest.CaptureFixture[str], told: Any
) -> None:
    text = "services: {web: {image: web:1, command: ['echo', '$$HOME', '$${X:-y}'], environment: {PRICE: '5$$', SET: '${IMAGE:-}'}}}\n"
    (folder / "compose.yaml").write_text(text)
    assert main.run(["app", "deploy", "-y", "--no-wait"]) == 0
    container = world.state.generations["shop@1"].spec.services["web"].container
    assert (container.command, container.environment["PRICE"]) == (("echo", "$HOME", "${X:-y}"), "5$")
    capsys.readouterr()
    assert main.run(["app", "config", "-o", form]) == 0
    (folder / "compose.yaml").write_text(capsys.readouterr().out)
    assert main.run(["app", "config", "-o", "json"]) == 0
    assert told()["services"]["web"]["environment"]["PRICE"] == "5$$"
    assert main.run(["app", "deploy", "-y", "-o", "json"]) == 0
    assert told()["changed"] is False


def test_a_file_comes_by_stdin(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"services: {web: {image: web:9}}\n")))
    assert main.run(["app", "deploy", "-f", "-", "-y", "--no-wait"]) == 0
    assert world.state.generations["shop@1"].spec.services["web"].container.image == "web:9"


def test_mistakes_are_told_with_their_lines_before_anybody_is_asked(world: World, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "compose.yaml").write_text("services:\n  web:\n    image: web:1\n    imagine: x\n")
    assert main.run(["app", "deploy", "-y"]) == 2
    said = capsys.readouterr().err
    assert "compose.yaml:4" in said
    assert "imagine" in said
    (folder / "compose.yaml").unlink()
    assert main.run(["app", "deploy", "-y"]) == 2
    assert "which file?" in capsys.readouterr().err
    assert main.run(["app", "deploy", "-y", "-f", "no.yaml"]) == 2
    assert world.asked == []


def test_warnings_are_marked_among_mistakes_and_it_is_said_where_there_may_be_more(
    world: World, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "compose.yaml").write_text('version: "3"\nservices:\n  web:\n    image: ${A\n    imagine: x\n')
    assert main.run(["app", "config"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: 1 mistake in the configuration; nothing was done"
    assert [line for line in lines if line.startswith("  warning: compose.yaml:1: version:")]
    assert "  more may be found once these are mended" in lines
    (folder / "compose.yaml").write_text("services:\n  web:\n    image: web:1\n    imagine: x\n")
    assert main.run(["app", "config"]) == 2
    assert "more may be found" not in capsys.readouterr().err


def test_the_shown_file_is_without_what_is_left_out(world: World, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "compose.yaml").write_text("services:\n  my.web:\n    image: web:1\n    cgroup_parent: /x\n    volumes: [./a:/a, /b:/b]\n")
    assert main.run(["app", "config"]) == 2
    capsys.readouterr()
    assert main.run(["app", "config", "--ignore-unsupported"]) == 0
    captured = capsys.readouterr()
    assert "it is left out" in captured.err
    assert "my.web besides" in captured.err
    (folder / "compose.yaml").write_text(captured.out)
    assert main.run(["app", "config"]) == 0
    again = capsys.readouterr()
    assert again.out == captured.out
    assert "cgroup_parent" not in again.out
    assert "./a" not in again.out
    assert again.err == ""


def test_a_port_that_another_app_publishes_is_refused_before_anybody_is_asked_to_agree(
    world: World, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "compose.yaml").write_text("services:\n  web:\n    image: web:1\n    ports: ['80:80']\n")
    assert main.run(["app", "deploy", "--name", "blog", "-y"]) == 0
    capsys.readouterr()
    assert main.run(["app", "deploy", "-y"]) == 1
    first, fix = capsys.readouterr().err.splitlines()
    assert first == "error: port 80/tcp of web belongs to blog/web: a published port answers on every node, for one service"
    assert fix.startswith("  fix: publish another one, or take it from blog first")
    assert "shop" not in world.state.apps
    world.do(StopApp(name="blog"))
    assert main.run(["app", "deploy", "-y"]) == 0
    capsys.readouterr()
    world.deploy("blog", world.state.generations["shop@1"].spec)  # by somebody else's hmctl, an older one
    (folder / "compose.yaml").write_text("services:\n  web:\n    image: web:2\n    ports: ['80:80']\n")
    assert main.run(["app", "deploy", "-y", "--no-wait"]) == 0, "it has the port, whoever waits for it"
    (folder / "compose.yaml").write_text("services:\n  web:\n    image: web:2\n")
    assert main.run(["app", "deploy", "-y", "--no-wait"]) == 0
    assert main.run(["app", "rollback", "shop", "-y"]) == 1
    assert "error: port 80/tcp of web belongs to blog/web" in capsys.readouterr().err


def test_what_is_not_supported_is_refused_or_left_out_as_asked(world: World, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "compose.yaml").write_text("services:\n  web:\n    image: web:1\n    cgroup_parent: /x\n")
    assert main.run(["app", "deploy", "-y"]) == 2
    assert "cgroup_parent" in capsys.readouterr().err
    assert main.run(["app", "deploy", "-y", "--ignore-unsupported"]) == 0
    assert "warning: " in capsys.readouterr().err
    assert world.state.apps["shop"].generation == 1


def test_an_update_that_fails_is_taken_back_and_is_a_failure(world: World, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["app", "deploy", "-y"]) == 0
    (folder / ".env").write_text("IMAGE=web:2\n")
    world.sick.add("web:2")
    capsys.readouterr()
    assert main.run(["app", "deploy", "-y", "-o", "json"]) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["ending"], document["generation"]) == ("rolled-back", 2)
    (web,) = [each for each in document["services"] if each["service"] == "web"]
    assert "no such file: /start" in web["failing"]  # of generation 2, though another is rolled out by now
    assert "generation 2 failed: web: 1 of 3 new replicas failed" in captured.err
    assert "no such file: /start" in captured.err
    assert "generation 3 brings back what generation 1 was" in captured.err
    assert captured.err.splitlines()[-1] == "  fix: hmctl app logs shop; hmctl app history shop"


def test_a_first_deployment_that_fails_is_paused_and_says_why(world: World, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "compose.yaml").write_text(FILE % "pause")
    world.sick.add("web:1")
    assert main.run(["app", "deploy", "-y"]) == 1
    said = capsys.readouterr().err
    assert "web: failed: paused: " in said
    assert "error: shop: the rollout of generation 1 is paused: web: " in said
    assert "fix: hmctl app explain shop says more; then deploy what works, or hmctl app restart shop to try the same again" in said
    assert main.run(["app", "deploy", "-y"]) == 1, "nothing was changed, and that is not enough"
    assert "shop is as the file says, but its rollout is paused: web: " in capsys.readouterr().err
    assert main.run(["app", "scale", "shop/web=3"]) == 1
    assert "shop has as many replicas as that already, but its rollout is paused: web: " in capsys.readouterr().err


def test_what_is_on_its_way_is_waited_for_by_whoever_asks_again(
    world: World, folder: Path, capsys: pytest.CaptureFixture[str], told: Any
) -> None:
    """As after a lost connection."""
    assert main.run(["app", "deploy", "-y", "--no-wait"]) == 0
    assert world.state.apps["shop"].healthy == 0
    capsys.readouterr()
    assert main.run(["app", "deploy", "-y", "-o", "json"]) == 0
    document = told()
    assert (document["changed"], document["ending"], document["generation"]) == (False, "healthy", 1)
    assert world.state.apps["shop"].healthy == 1
    assert main.run(["app", "deploy", "-y", "-o", "json"]) == 0
    assert told()["ending"] == "unchanged"
    (folder / "compose.yaml").write_text(FILE % "pause")
    world.sick.add("web:1")
    assert main.run(["app", "deploy", "--name", "other", "-y", "--no-wait"]) == 0
    assert main.run(["app", "deploy", "--name", "other", "-y"]) == 1
    assert "other is as the file says, and on its way there" in (said := capsys.readouterr().err)
    assert "error: other: the rollout of generation 1 is paused: web: " in said


def test_another_operator_in_between_is_not_overwritten(world: World, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hmctl.actions.apps import plan

    before = plan.plan
    planned: list[Any] = []

    def overtaken(*given: Any) -> Any:
        planned.append(before(*given))
        world.do(PutApp(name="shop", spec=shop("web:8")), "bob")
        return planned[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "plan", overtaken)
        assert main.run(["app", "deploy", "-y"]) == 1
    assert capsys.readouterr().err.endswith(
        "error: shop is at generation 1 by now, not 0\n  fix: run it again, to see what it would change now\n"
    )
    assert world.state.generations["shop@1"].author == "bob"


def test_what_is_being_removed_is_not_deployed_and_nothing_is_built_for_it(
    world: World, folder: Path, docker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.deploy("shop", shop())
    world.do(StopApp(name="shop"))
    (folder / "compose.yaml").write_text("services: {web: {build: .}}\n")
    assert main.run(["app", "deploy", "-y"]) == 1
    assert "shop is being removed" in capsys.readouterr().err
    assert not (docker / "docker.log").exists()


def test_ctrl_c_while_it_is_watched_leaves_the_rollout_alone(world: World, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world.on_wait = [world.step, lambda: signal.raise_signal(signal.SIGINT)]
    assert main.run(["app", "deploy", "-y"]) == 130
    assert "the rollout of shop goes on" in capsys.readouterr().err
    world.settle()
    assert world.state.apps["shop"].healthy == 1


def test_a_node_that_does_not_answer_at_a_published_port_is_named_once_the_app_runs(
    world: World, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.troubled["node2"] = "tcp port 80 is not published here: a program of this node listens on it"
    world.lose("node3")
    (folder / "plain.yaml").write_text("services: {web: {image: web:1}}\n")
    assert main.run(["app", "deploy", "-f", "plain.yaml", "--name", "plain", "-y"]) == 0
    assert "warning" not in capsys.readouterr().err
    (folder / "ported.yaml").write_text("services: {web: {image: web:1, ports: ['80:80']}}\n")
    assert main.run(["app", "deploy", "-f", "ported.yaml", "--name", "ported", "-y", "--no-wait"]) == 0
    assert "warning" not in capsys.readouterr().err, "it is not known yet"
    (folder / "ported.yaml").write_text("services: {web: {image: web:2, ports: ['80:80']}}\n")
    assert main.run(["app", "deploy", "-f", "ported.yaml", "--name", "ported", "-y"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert f"warning: the containers' network of node2: {world.troubled['node2']} fix: on node2: ss -lntup" in told
    assert told.count("warning") == 1
    world.troubled["node1"] = world.troubled["node2"]  # the third one does not answer anybody
    (folder / "ported.yaml").write_text("services: {web: {image: web:3, ports: ['80:80']}}\n")
    assert main.run(["app", "deploy", "-f", "ported.yaml", "--name", "ported", "-y"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "ported is healthy, as generation 3\n"
    *_, error, fix = captured.err.splitlines()
    assert error == "error: no node answers at tcp port 80, which the app publishes"
    assert fix.startswith("  fix: publish another port and deploy again; or stop the program")
    assert main.run(["app", "deploy", "-f", "plain.yaml", "--name", "ported", "-y"]) == 0, "it publishes none"
