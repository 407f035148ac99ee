"""hmctl app, as typed: what the leader decides and the nodes do is followed to its end, whatever that is."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import pytest
import typer
from app_world import NAMES, World, service, shop
from msgspec.structs import replace

from hmcore.apps.records import Machine, Stage
from hmcore.apps.spec import AppSpec, ContainerSpec, Dependency, Mount, Placement, Port, Resources, ServiceSpec, Update, Volume
from hmcore.errors import ConnectionLost
from hmctl.cli import main
from hmctl.cli.completing import app_names, app_targets, scaled_services
from node_agent.consensus.statemachine.appcommands import PutApp, PutStatuses, StopApp


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Any:
    """The document that the command printed last."""
    return lambda: json.loads(capsys.readouterr().out)


def test_apps_are_listed_with_what_runs_of_them(world: World, capsys: pytest.CaptureFixture[str], told: Any) -> None:
    assert main.run(["app", "ls"]) == 0
    assert "there are no apps yet" in capsys.readouterr().err
    world.deploy("shop", shop())
    world.do(PutApp(name="blog", spec=AppSpec(services={"web": service("blog:1", 2)})))
    assert main.run(["app", "ls", "-o", "json"]) == 0
    first, second = told()["apps"]
    assert (first["name"], first["stage"], second["name"], second["stage"]) == ("blog", "rolling", "shop", "steady")
    assert [(each["name"], each["desired"], each["running"], each["healthy"]) for each in first["services"]] == [("web", 2, 0, 0)]
    assert [(each["name"], each["desired"], each["running"], each["healthy"]) for each in second["services"]] == [
        ("db", 1, 1, 1),
        ("web", 3, 3, 3),
    ]
    assert main.run(["app", "ls"]) == 0
    assert "db 1/1, web 3/3" in capsys.readouterr().out


def test_replicas_are_listed_with_their_nodes_and_troubles(world: World, capsys: pytest.CaptureFixture[str], told: Any) -> None:
    world.sick.add("web:1")
    world.deploy("shop", shop())
    assert main.run(["app", "ps", "shop/web", "-o", "json"]) == 0
    document = told()
    first = document["replicas"][0]
    assert (first["replica"], first["phase"], first["exit_code"]) == ("web.1", "failed", 127)
    assert {each["service"] for each in document["replicas"]} == {"web"}
    assert main.run(["app", "ps", "shop"]) == 0
    out = capsys.readouterr().out
    assert "db.1" in out
    assert "no such file: /start" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ps", "nothing"], "there is no app nothing"),
        (["history", "nothing"], "there is no app nothing"),
        (["explain", "shop/nothing"], "shop has no service nothing; there are db, web"),
        (["restart", "shop/nothing"], "shop has no service nothing; there are db, web"),
        (["restart", "nothing"], "there is no app nothing"),
        (["rm", "nothing", "-y"], "there is no app nothing"),
        (["rollback", "shop", "-y"], "shop has no other generation that was healthy"),
        (["rollback", "shop", "--to", "9", "-y"], "shop has no generation 9; there are 1"),
        (["scale", "nothing/web=1"], "there is no app nothing"),
        (["scale", "shop/nothing=1"], "shop has no service nothing; there are db, web"),
    ],
)
def test_what_is_not_there_is_said_so(words: list[str], said: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.deploy("shop", shop())
    assert main.run(["app", *words]) == 1
    first, fix = capsys.readouterr().err.splitlines()[-2:]
    assert first == f"error: {said}"
    assert fix.startswith("  fix: hmctl app ")


@pytest.mark.parametrize(
    "words",
    [
        ["ps", "shop/"], ["ps", "a/b/c"], ["explain", "/web"], ["scale", "shop=1"], ["scale", "shop/web=-1"], ["scale", "shop/web=x"],
        ["scale", "shop/web="], ["scale", "shop/web=10001"], ["scale", "shop/web=1", "blog/web=1"], ["scale", "shop/web=1", "shop/web=2"],
        ["scale", "shop/web=²"],
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_before_anybody_is_asked(words: list[str], world: World) -> None:
    assert main.run(["app", *words]) == 2
    assert world.asked == []


def test_scaling_is_followed_until_all_are_healthy(world: World, capsys: pytest.CaptureFixture[str], told: Any) -> None:
    world.deploy("shop", shop())
    assert main.run(["app", "scale", "shop/web=5", "shop/db=2"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "shop is healthy, as generation 2\n"
    lines = captured.err.splitlines()
    assert "web: pulled 3/5, started 3/5, healthy 3/5" in lines
    assert "web: pulled 5/5, started 3/5, healthy 3/5" in lines
    assert "web: healthy 5/5" in lines
    assert main.run(["app", "scale", "shop/web=5", "-o", "json"]) == 0
    document = told()
    assert (document["changed"], document["ending"], document["generation"]) == (False, "unchanged", 2)
    assert main.run(["app", "scale", "shop/web=2", "-o", "json"]) == 0
    document = told()
    assert (document["ending"], [(each["service"], each["healthy"]) for each in document["services"]]) == (
        "healthy",
        [("db", 2), ("web", 2)],
    )


def test_nobody_waits_who_does_not_want_to(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.deploy("shop", shop())
    world.asked.clear()
    assert main.run(["app", "scale", "shop/web=5", "--no-wait"]) == 0
    assert "generation 2 is being rolled out" in capsys.readouterr().out
    assert [method for _, method in world.asked] == ["apps.list", "apps.scale"]


def test_very_many_replicas_are_asked_about_and_fewer_never(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        world.do(PutStatuses(node=name, incarnation=0, allocations=(), machine=Machine(node=name, cpus=4000, memory=8 << 30, engine=True)))
    world.deploy("shop", shop(reservations=Resources(memory=4 << 20)))
    assert main.run(["app", "scale", "shop/web=150", "--no-wait"]) == 2
    warning, error, fix = capsys.readouterr().err.splitlines()
    assert warning == "warning: 151 replicas of shop are more than 50 for each of 3 nodes"
    assert error == "error: nobody can answer, for stdin is no terminal: Scale shop all the same?"
    assert fix == "  fix: give --yes to go ahead without being asked"
    assert world.state.apps["shop"].generation == 1
    assert main.run(["app", "scale", "shop/web=149", "--no-wait"]) == 0
    assert capsys.readouterr().err == ""
    assert main.run(["app", "scale", "shop/web=10000", "--yes", "--no-wait"]) == 0
    assert "on 3 nodes there is room for 6144 of the 10000 replicas of web, by what they reserve" in capsys.readouterr().err
    assert main.run(["app", "scale", "shop/web=9000", "--no-wait"]) == 0
    assert world.state.apps["shop"].generation == 4


def test_nodes_that_take_no_replicas_count_for_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine(node="node1", cpus=4000, memory=8 << 30, engine=True)
    for name, told in zip(NAMES, (machine, replace(machine, engine=False), replace(machine, apps=False)), strict=True):
        world.do(PutStatuses(node=name, incarnation=0, allocations=(), machine=replace(told, node=name)))
    world.deploy("shop", shop())
    assert main.run(["app", "scale", "shop/web=50", "--no-wait"]) == 2
    assert "more than 50 for each of 1 node" in capsys.readouterr().err


def test_replicas_that_will_share_a_volume_are_warned_of(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    container = ContainerSpec(image="db:1", mounts=(Mount(kind="volume", target="/data", source="data"),))
    world.deploy("shop", AppSpec(services={"db": ServiceSpec(container=container)}, volumes={"data": Volume(name="shop_data")}))
    said = "the 2 replicas of db will share the volume data, all on the one node that has it"
    assert main.run(["app", "scale", "shop/db=2", "--no-wait"]) == 0
    assert capsys.readouterr().err == f"warning: {said}\n"
    assert main.run(["app", "scale", "shop/db=1", "--no-wait"]) == 0
    assert capsys.readouterr().err == ""


def test_a_service_that_is_wanted_again_may_find_its_port_gone(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    port = Port(target=80, published=80)
    world.deploy("shop", shop(replicas=0, ports=(port,)))
    world.deploy("blog", AppSpec(services={"front": service(ports=(port,))}))
    assert main.run(["app", "scale", "shop/web=1", "--no-wait"]) == 1
    assert "error: port 80/tcp of web belongs to blog/front" in capsys.readouterr().err
    assert main.run(["app", "scale", "blog/front=4", "--no-wait"]) == 0


def test_restarting_replaces_containers_of_what_was_named_alone(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    spec = shop()
    both = AppSpec(services={**spec.services, "cache": service("cache:1", 1, depends_on={"db": Dependency(restart=True)})})
    world.deploy("shop", both)
    before = set(world.state.allocations)
    assert main.run(["app", "restart", "shop/db"]) == 0
    assert capsys.readouterr().out == "shop is healthy, as generation 1\n"
    new = {world.state.allocations[key].service for key in world.state.allocations.keys() - before}
    assert new == {"db", "cache"}
    assert all(rollout.stage is Stage.STEADY for rollout in world.state.apps["shop"].rollouts.values())
    world.sick.add("cache:1")  # which is restarted with db
    assert main.run(["app", "restart", "shop/db"]) == 1
    assert "is paused: cache: " in capsys.readouterr().err


def test_a_rollout_that_is_paused_is_a_failure_with_its_reason(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.deploy("shop", shop())
    world.sick.add("web:1")
    assert main.run(["app", "restart", "shop/web", "-o", "json"]) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["ending"] == "paused"
    assert [each["stage"] for each in document["services"] if each["service"] == "web"] == ["paused"]
    error, fix = captured.err.splitlines()[-2:]
    assert error == f"error: {document['error']}"
    assert "shop: the rollout of generation 1 is paused: web: 1 of 3 new replicas failed" in error
    assert "no such file: /start" in error
    assert "hmctl app explain shop" in fix


def test_what_takes_too_long_goes_on_and_says_what_it_waits_for(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.deploy("shop", shop(placement=Placement(max_per_node=1)))
    assert main.run(["app", "scale", "shop/web=5", "--timeout", "0.3"]) == 1
    error, fix = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith(
        "error: shop is not there after 0.3 s: web: pulled 3/5, started 3/5, healthy 3/5; waiting: max-per-node: 3 of 3"
    )
    assert error.endswith("; its rollout goes on")
    assert fix == "  fix: hmctl app explain shop"
    assert main.run(["app", "explain", "shop/web"]) == 0
    out = capsys.readouterr().out
    assert "rolling: 3 of 5 placed, 3 started, 3 healthy" in out
    assert "waits: max-per-node: 3 of 3 nodes have 1 of the service already" in out


def test_ctrl_c_ends_the_watching_only(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.deploy("shop", shop())
    world.on_wait = [world.step, lambda: signal.raise_signal(signal.SIGINT)]
    assert main.run(["app", "scale", "shop/web=5"]) == 130
    assert "the rollout of shop goes on; hmctl app ps shop shows how far it is" in capsys.readouterr().err
    world.settle()
    assert len(world.state.allocations) == 6


def test_the_death_of_the_leader_does_not_end_the_watching(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.deploy("shop", shop())

    def dies() -> None:
        world.lose("node1")
        world.leader = None
        world.down |= {"node2", "node3"}  # for a while
        asyncio.get_running_loop().call_later(0.1, world.down.intersection_update, {"node1"})
        raise ConnectionLost("the connection ended", host="node1")

    def another() -> None:
        world.leader = "node2"

    world.on_wait = [world.step, dies, world.step, another]
    assert main.run(["app", "scale", "shop/web=2"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "shop is healthy, as generation 2\n"
    assert captured.err.count("warning: node1: the connection ended\n") == captured.err.count("warning: ") == 1
    assert "is followed now" in captured.err
    assert captured.err.splitlines()[-1].startswith("db: healthy 1/1")  # it was on node1, and is elsewhere by now


def test_whoever_leads_now_is_asked_how_far_it_is(world: World) -> None:
    world.deploy("shop", shop())

    def moves() -> None:
        world.leader = "node2"

    world.on_wait = [world.step, moves]
    assert main.run(["app", "scale", "shop/web=5"]) == 0
    assert [name for name, method in world.asked if method == "apps.list"][-1] == "node2"


def test_a_node_that_is_behind_is_waited_for_and_not_believed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.deploy("shop", shop())
    asyncio.run(world.falls_behind("node1"))  # it has not carried out itself what it is about to acknowledge
    assert main.run(["app", "scale", "shop/web=4"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "shop is healthy, as generation 2\n"
    assert "3/3" not in captured.err
    assert world.asked.count(("node1", "cluster.watch")) > 3


def test_history_and_the_way_back(world: World, capsys: pytest.CaptureFixture[str], told: Any) -> None:
    world.deploy("shop", shop())
    world.deploy("shop", shop("web:2"))
    assert main.run(["app", "rollback", "shop"]) == 2
    assert "Roll shop back to generation 1?" in capsys.readouterr().err
    assert main.run(["app", "rollback", "shop", "--yes"]) == 0
    assert capsys.readouterr().out == "shop is healthy, as generation 3\n"
    assert main.run(["app", "history", "shop", "-o", "json"]) == 0
    generations = told()["generations"]
    assert [(each["number"], each["present"], each["reached"], each["origin"]) for each in generations] == [
        (1, False, True, None),
        (2, False, True, None),
        (3, True, True, 1),
    ]
    assert [each["services"]["web"] for each in generations] == ["web:1", "web:2", "web:1"]
    assert [each["changed"] for each in generations] == [None, {"web": ["image"]}, {"web": ["image"]}]
    assert main.run(["app", "scale", "shop/web=5"]) == 0
    capsys.readouterr()
    assert main.run(["app", "history", "shop"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-7:] == ["scaled:", "web=5", "web:", "replicas", "3", "->", "5"]
    assert "brings back 1" in lines[2]
    assert lines[4].endswith("-")


def test_the_way_back_goes_to_what_was_named(world: World) -> None:
    for number in (1, 2, 3):
        world.deploy("shop", shop(f"web:{number}"))
    assert main.run(["app", "rollback", "shop", "--to", "1", "-y"]) == 0
    assert world.state.generations["shop@4"].spec.services["web"].container.image == "web:1"


def test_the_way_back_to_what_was_never_healthy_is_warned_of(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.deploy("shop", shop("web:1"))
    world.sick.add("web:2")
    world.deploy("shop", shop("web:2"))
    world.sick.clear()
    world.deploy("shop", shop("web:3"))
    assert main.run(["app", "rollback", "shop", "--to", "2", "-y"]) == 0
    assert "generation 2 was never healthy" in capsys.readouterr().err
    assert main.run(["app", "rollback", "shop", "--to", "1", "-y"]) == 0
    assert "never healthy" not in capsys.readouterr().err


def test_what_the_cluster_takes_back_by_itself_is_a_failure(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    how = Update(failure_action="rollback")
    world.deploy("shop", shop("web:2", update=how))
    world.deploy("shop", shop("web:1", update=how))
    world.sick.add("web:2")
    assert main.run(["app", "rollback", "shop", "--to", "1", "-y"]) == 1  # a way back is not taken back, it is paused
    assert "is paused" in capsys.readouterr().err
    world.deploy("shop", shop("web:1", update=how))
    world.on_wait = [lambda: world.do(PutApp(name="shop", spec=shop("web:2", replicas=4, update=how)), "bob")]
    assert main.run(["app", "scale", "shop/web=4"]) == 1
    assert "by now by bob, not 5" in capsys.readouterr().err


def test_an_app_is_removed_with_consent_and_waited_for(world: World, capsys: pytest.CaptureFixture[str], told: Any) -> None:
    world.deploy("shop", shop())
    assert main.run(["app", "rm", "shop"]) == 2
    assert "shop" in world.state.apps
    said = capsys.readouterr().err
    assert "4 replicas of db, web will be stopped" in said
    assert "volume" not in said, "it has none"
    assert main.run(["app", "rm", "shop", "-y", "-o", "json"]) == 0
    assert (told()["ending"], world.state.apps, world.state.allocations) == ("removed", {}, {})


def test_what_goes_with_an_app_and_what_stays_is_what_there_is(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    mount = Mount(kind="volume", target="/data", source="data")
    held = ServiceSpec(container=ContainerSpec(image="db:1", mounts=(mount,)))
    nowhere = Placement(constraints=("node.labels.gpu==true",))
    services = {"db": held, "web": service(replicas=2, placement=nowhere)}
    world.deploy("shop", AppSpec(services=services, volumes={"data": Volume(name="shop_data")}))
    assert main.run(["app", "rm", "shop"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "shop: 1 replica of db will be stopped and removed" in said
    assert "its volume stays on its node, with the data (docker volume ls there): shop_data" in said
    world.deploy("idle", AppSpec(services={"web": service(replicas=2, placement=nowhere)}))
    assert main.run(["app", "rm", "idle"]) == 2
    assert "idle: no replica of it has a place" in capsys.readouterr().err


def test_what_is_being_removed_already_is_waited_for(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.deploy("shop", shop())
    world.do(StopApp(name="shop"))
    assert main.run(["app", "rm", "shop", "-y"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "shop is removed\n"
    assert "web: 3 left" in captured.err


def test_without_a_leader_it_is_said_who_knew_what_is_shown(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.deploy("shop", shop())
    world.leader = None
    assert main.run(["app", "explain", "shop"]) == 0
    captured = capsys.readouterr()
    assert "the cluster has no leader: this is what node3 knew last" in captured.err
    assert "as it shall be: 3 of 3 healthy" in captured.out


def test_nobody_answering_is_an_error_that_names_all(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.down = {"node1", "node2", "node3"}
    assert main.run(["app", "ls", "--via", "quic"]) == 1
    assert "no control node answers: node1: no answer within 2 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("complete", "typed", "offered"),
    [
        (app_names, "", ["blog", "shop"]),
        (app_names, "s", ["shop"]),
        (app_targets, "s", ["shop"]),
        (app_targets, "shop/", ["shop/db", "shop/web"]),
        (scaled_services, "shop/w", ["shop/web="]),
    ],
)
def test_a_shell_offers_what_the_cluster_runs(complete: Any, typed: str, offered: list[str], world: World) -> None:
    for name in ("shop", "blog"):
        world.do(PutApp(name=name, spec=shop()))
    ctx = typer.Context(main.load("app"), info_name="hmctl")
    assert complete(ctx, typed) == offered
    world.down = {"node1", "node2", "node3"}
    assert complete(ctx, typed) == []
