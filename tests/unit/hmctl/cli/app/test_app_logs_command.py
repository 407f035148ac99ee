"""hmctl app logs: nodes merged by time, lost and found again, and replicas that come while it follows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from app_fleet import Fleet, eventually, fleet
from app_world import World, service, shop
from streaming_docker import BEGIN

from hmcore.apps.spec import AppSpec, Placement
from hmcore.errors import HyperMeshError
from hmctl.actions import agents as connections
from hmctl.actions import node_logs
from hmctl.actions.apps import logs as app_logs
from hmctl.actions.apps.logs import Line, Wanted, logs
from hmctl.cli import main
from node_agent.consensus.statemachine.appcommands import ScaleApp, StopApp
from node_agent.container import log_reading as node_side


@pytest_asyncio.fixture
async def here(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    monkeypatch.setattr(node_logs, "RETRY", 0.01)
    monkeypatch.setattr(node_side, "RETRY", 0.01)
    monkeypatch.setattr(app_logs, "HOLD", 0.05)
    world.deploy("shop", shop())
    async with fleet(tmp_path, world, tmp_path / "cluster.yaml") as made:
        monkeypatch.setattr(connections, "connect", made.connect)
        yield made


class Seen:
    """What was shown and told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.told: list[str] = []
        self.replicas: list[str] = []

    def show(self, line: Line) -> None:
        self.lines.append(f"{line.replica}: {line.text}")

    def tell(self, node: str, said: HyperMeshError | str) -> None:
        self.told.append(f"{node}: {said.message if isinstance(said, HyperMeshError) else said}")

    def begin(self, replicas: list[str]) -> None:
        self.replicas = replicas

    async def read(self, made: Fleet, wanted: Wanted = Wanted("shop"), *, follow: bool = False) -> int:  # noqa: B008  it is frozen
        async with made.agents() as agents:
            return (await logs(agents, wanted, self.show, self.tell, follow=follow, begin=self.begin)).exit_code


async def write(made: Fleet, *lines: tuple[str, int, str]) -> None:
    """Each of a container, nanoseconds after BEGIN, text."""
    where = made.start()
    for id, time, text in lines:
        await where[id].docker.log(id, (time, 1, text.encode() + b"\n"))


async def test_all_nodes_are_one_log_by_time(here: Fleet) -> None:
    ids = sorted(here.start())
    assert len(ids) == 4
    assert len({id(node) for node in here.start().values()}) == 3
    lines = [(ids[number % 4], number, f"line {number}") for number in range(40)]
    await write(here, *lines)
    seen = Seen()
    assert await seen.read(here) == 0
    assert [line.partition(": ")[2] for line in seen.lines] == [f"line {number}" for number in range(40)]
    assert seen.replicas == ["db.1", "web.1", "web.2", "web.3"]
    assert {line.partition(":")[0] for line in seen.lines} == set(seen.replicas)
    assert seen.told == []
    some = Seen()
    assert await some.read(here, Wanted("shop", "web", tail=1)) == 0
    assert sorted(line.partition(":")[0] for line in some.lines) == ["web.1", "web.2", "web.3"]
    late = Seen()
    assert await late.read(here, Wanted("shop", since=BEGIN / 1e9 + 100)) == 0
    assert late.lines == []


async def test_a_node_that_does_not_answer_is_said_and_the_others_go_on(here: Fleet) -> None:
    where = here.start()
    for id in where:
        await write(here, (id, 1, "hello"))
    lost = next(iter(here.world.state.allocations.values())).node
    if lost == "node1":  # it leads, and tells where replicas are
        here.world.leader = "node2"
    here.world.down.add(lost)
    seen = Seen()
    assert await seen.read(here) == 3
    gone = [id for id, node in where.items() if node is here.nodes[lost]]
    assert len(seen.lines) == 4 - len(gone)
    assert [line.partition(":")[0] for line in seen.told] == [lost]


async def test_no_control_node_is_no_reason_to_show_nothing(here: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(agents: object, name: str) -> None:
        raise HyperMeshError("no control node answers")

    monkeypatch.setattr(app_logs, "read", nobody)
    await write(here, *[(id, 1, "hello") for id in here.start()])
    seen = Seen()
    assert await seen.read(here) == 0
    assert len(seen.lines) == 4
    assert seen.told == [": no control node answers", ": so all nodes are asked for their logs"]


async def test_following_goes_on_where_a_lost_node_stopped_and_finds_new_replicas(here: Fleet) -> None:
    where = here.start()
    first = next(id for id in where if id.startswith("web"))
    node = next(name for name, each in here.nodes.items() if each is where[first])
    await write(here, (first, 1, "before"))
    seen = Seen()
    following = asyncio.ensure_future(seen.read(here, Wanted("shop", tail=10), follow=True))
    await eventually(lambda: len(seen.lines) == 1)
    await write(here, (first, 2, "while"))
    await eventually(lambda: len(seen.lines) == 2)

    here.cut_off(node)
    await eventually(lambda: seen.told)
    await write(here, (first, 2, "of the same moment"), (first, 3, "meanwhile"))
    here.world.down.clear()
    await eventually(lambda: len(seen.lines) == 4)
    assert [line.partition(": ")[2] for line in seen.lines] == ["before", "while", "of the same moment", "meanwhile"]
    assert [line for line in seen.told if "answers again" in line] == [f"{node}: answers again"]
    assert len([line for line in seen.told if line.startswith(f"{node}: ")]) == 2

    here.world.do(ScaleApp(name="shop", replicas={"web": 6}))
    await eventually(lambda: len(here.world.state.allocations) == 7)
    new = sorted(here.start().keys() - where.keys())
    await write(here, *[(id, 10 + number, f"I am {id}") for number, id in enumerate(new)])
    await eventually(lambda: len(seen.lines) == 7)
    assert {line.partition(": ")[2] for line in seen.lines[4:]} == {f"I am {id}" for id in new}

    here.world.do(StopApp(name="shop"))
    await eventually(lambda: ": shop was removed" in seen.told)
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    await eventually(lambda: all(node.streams.logs._open == node.streams.logs._readers == 0 for node in here.nodes.values()))


async def test_a_replica_on_a_node_that_had_none_is_followed_there(here: Fleet) -> None:
    here.world.deploy("one", AppSpec(services={"web": service(replicas=1)}))
    seen = Seen()
    following = asyncio.ensure_future(seen.read(here, Wanted("one", tail=0), follow=True))
    await eventually(lambda: seen.replicas == ["web.1"])
    await eventually(lambda: sum(node.streams.logs._readers for node in here.nodes.values()) == 1)
    here.world.do(ScaleApp(name="one", replicas={"web": 3}))
    await eventually(lambda: sum(node.streams.logs._readers for node in here.nodes.values()) == 3)
    here.start()
    for node in here.nodes.values():
        for id, each in node.docker.infos.items():
            if each.labels["hypermesh.app"] == "one" and "-1-" not in id:
                await node.docker.log(id, (5, 2, b"hello from the beginning\n"))
    await eventually(lambda: len(seen.lines) == 2)
    assert sorted(seen.lines) == ["web.2: hello from the beginning", "web.3: hello from the beginning"]
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


async def test_what_a_replica_wrote_that_is_gone_is_asked_for_where_none_is_now(here: Fleet) -> None:
    here.world.deploy("one", AppSpec(services={"web": service(replicas=1)}))
    here.start()
    runs = next(each.node for each in here.world.state.allocations.values() if each.app == "one")
    former, third = (name for name in here.nodes if name != runs)
    here.nodes[former].docker.add("web-1-0", allocation="one/web.1.0")
    await here.nodes[former].docker.log("web-1-0", (1, 1, b"boom\n"))
    await here.nodes[former].streams.logs.remember("web-1-0")
    await here.nodes[former].docker.remove("web-1-0")
    here.world.down.add(third)
    seen = Seen()
    assert await seen.read(here, Wanted("one")) == 0, "a node without replicas is not missed"
    assert (seen.lines, seen.told) == (["web.1: boom"], [])
    following = asyncio.ensure_future(seen.read(here, Wanted("one"), follow=True))
    await eventually(lambda: seen.lines == ["web.1: boom"] * 2)
    await eventually(lambda: [name for name, node in here.nodes.items() if node.streams.logs._readers] == [runs])
    here.world.down.clear()
    here.world.do(ScaleApp(name="one", replicas={"web": 3}))
    await eventually(lambda: all(node.streams.logs._readers for node in here.nodes.values()))
    for id, node in here.start().items():
        if node is here.nodes[former] and node.docker.infos[id].labels["hypermesh.app"] == "one":
            await node.docker.log(id, (2, 1, b"hello\n"))
    await eventually(lambda: len(seen.lines) > 2)
    assert [line.partition(": ")[2] for line in seen.lines] == ["boom", "boom", "hello"], "what was gone before is not told again"
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


async def test_an_agent_of_an_earlier_release_is_said(here: Fleet) -> None:
    for node in here.nodes.values():
        node.router._streams = None
    seen = Seen()
    assert await seen.read(here) == 1
    assert len(seen.told) == 3
    assert all("it is of an earlier release" in line for line in seen.told)


async def typed(*words: str) -> int:
    """In a thread of its own: hmctl makes an event loop for itself."""
    return await asyncio.to_thread(main.run, list(words))


async def test_lines_bear_their_time_and_replica(here: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    first = next(id for id in here.start() if id.startswith("web-1"))
    await write(here, (first, 5, "hello"), (first, 6, "\x1b[31mred\x07 alert"))
    assert await typed("app", "logs", "shop/web") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["web.1 hello", "web.1 [31mred alert"]
    assert await typed("app", "logs", "shop", "-o", "json") == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said[0] == {
        "time": "2026-11-18T11:06:40.000000005Z",
        "app": "shop",
        "service": "web",
        "replica": "web.1",
        "node": said[0]["node"],
        "container": f"{first}-name",
        "stream": "stdout",
        "message": "hello",
    }
    assert said[1]["message"] == "\x1b[31mred\x07 alert"
    assert await typed("app", "logs", "shop", "--tail", "1") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    second = next(id for id in here.start() if id.startswith("web-2"))
    await write(here, (second, 7, "of another"))
    for replica, text in (("web.1", "alert"), ("web.2", "of another")):
        assert await typed("app", "logs", f"shop/{replica}", "--tail", "1") == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert line.endswith(text)


async def test_one_nodes_replicas_are_read_there_alone(here: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    here.world.deploy("all", AppSpec(services={"agent": service(mode="global")}))
    where = here.start()
    await write(here, *[(id, 1, f"I am {id}") for id in sorted(where)])
    assert await typed("app", "logs", "all/agent@node2", "-o", "json") == 0
    (said,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (said["replica"], said["node"]) == ("agent@node2", "node2")
    here.world.down.add("node3")  # which it does not concern
    web = [id for id, node in where.items() if node is here.nodes["node1"] and id.startswith("web")]
    assert await typed("app", "logs", "shop/web@node1", "-o", "json") == 0
    assert [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()] == [f"I am {id}" for id in web]


async def test_what_there_is_not_is_said(here: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    for words, status, said in (
        (["nothing"], 1, "there is no app nothing"),
        (["shop/cache"], 1, "shop has no service cache; there are db, web"),
        (["shop/"], 2, "names no app"),
        (["shop/web.x"], 2, "names no replica"),
        (["shop/web@node9"], 2, "no host is called 'node9'"),
        (["shop", "--since", "soon"], 2, "that is no time"),
    ):
        assert await typed("app", "logs", *words) == status
        assert said in capsys.readouterr().err


async def test_a_replica_that_there_is_not_is_said_and_whoever_follows_waits_for_it(
    here: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    here.world.deploy("one", AppSpec(services={"web": service(replicas=1)}))
    [there] = [each.node for each in here.world.state.allocations.values() if each.app == "one"]
    other = next(name for name in here.nodes if name != there)
    here.start()
    for replica in ("one/web.7", f"one/web@{other}"):
        assert await typed("app", "logs", replica) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.splitlines() == [
            f"error: there is no replica {replica}; there are web.1 on {there}",
            "  fix: hmctl app ps one/web",
        ]
    seen = Seen()
    following = asyncio.ensure_future(seen.read(here, Wanted("one", "web", index=2), follow=True))
    await eventually(lambda: seen.told == [f": there is no replica one/web.2; there are web.1 on {there}"])
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


async def test_what_a_replica_wrote_that_is_gone_is_read_where_it_was(here: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    where = here.start()
    await write(here, *[(id, 1, f"I am {id}") for id in where])
    here.world.do(ScaleApp(name="shop", replicas={"web": 1}))
    here.world.settle()
    assert await typed("app", "logs", "shop/web.9") == 1
    capsys.readouterr()
    [left] = [each.node for each in here.world.state.allocations.values() if each.service == "web"]
    gone = next(node for id, node in where.items() if id.startswith("web") and node is not here.nodes[left])
    name = next(name for name, node in here.nodes.items() if node is gone)
    assert await typed("app", "logs", f"shop/web@{name}") == 0
    assert "I am web" in capsys.readouterr().out


async def test_nothing_that_has_a_place_is_no_silence(here: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = Placement(constraints=("node.labels.gpu == true",))
    here.world.deploy("imp", AppSpec(services={"s": service(placement=nowhere)}))
    for target in ("imp", "imp/s"):
        assert await typed("app", "logs", target) == 0
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.splitlines() == [f"warning: no replica of {target} has a place", f"  fix: hmctl app explain {target}"]
    assert await typed("app", "exec", "imp/s", "--", "sh") == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: there is no replica imp/s; there are none",
        "  fix: hmctl app explain imp/s",
    ]


def test_marks() -> None:
    assert node_logs.named("web", "shop/web.2.7", "c", "n1") == "web.2"
    assert node_logs.named("agent", "shop/agent.0.7", "c", "n1") == "agent@n1"
    assert node_logs.named("web", "", "by-hand", "n1") == "by-hand"
