"""What consensus relies on, under any schedule of sends, breaks, crashes and returns, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pool_world import NO_CREDENTIALS, Net, Node, addresses

from hmcore.config.settings import Calls, Transport
from node_agent.transport.pool import Pool

Run = Callable[[Coroutine[Any, Any, None]], None]
NAMES = {"n1": 1, "n2": 2, "n3": 3}
ROLES = {"n3": "worker"}
KINDS = ("raft", "heartbeat")

pairs = st.sampled_from(list(combinations(NAMES, 2)))
directed = st.tuples(st.sampled_from(list(NAMES)), st.sampled_from(list(NAMES))).filter(lambda pair: pair[0] != pair[1])
moments = st.sampled_from([0.0, 0.0005, 0.01, 0.3])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), directed, st.sampled_from(KINDS), st.integers(1, 5)),
        st.tuples(st.just("break"), pairs, moments, moments),
        st.tuples(st.just("crash"), st.sampled_from(list(NAMES))),
        st.tuples(st.just("start"), st.sampled_from(list(NAMES))),
        st.tuples(st.just("wait"), moments),
    ),
    max_size=40,
)


@dataclass
class Cluster:
    net: Net = field(default_factory=Net)
    lives: list[Node] = field(default_factory=list)  # one for each time a node was started
    running: dict[str, tuple[Node, Pool, asyncio.Task[None]]] = field(default_factory=dict)
    sent: dict[tuple[int, str, str], int] = field(default_factory=dict)  # (life, to, kind) -> messages

    def start(self, group: asyncio.TaskGroup, name: str) -> None:
        if name in self.running:
            return
        node = Node(name, ROLES.get(name, "control"))
        loop = asyncio.get_running_loop()
        pool = node.make_pool(NO_CREDENTIALS, Transport(), Calls(), dial=self.net.dial, clock=loop.time, chance=lambda: 0.5)
        pool.set_peers(addresses(NAMES, ROLES, name))
        self.lives.append(node)
        self.running[name] = (node, pool, group.create_task(pool.run()))
        self.net.nodes[NAMES[name]] = (node, pool)

    def crash(self, name: str) -> None:
        """As kill -9: its connections just fall silent, and the others notice later."""
        if name in self.running:
            for other in NAMES.keys() - {name}:
                self.net.break_between(name, other, noticed=(0.05, 0.05))
            node, _, task = self.running.pop(name)
            del self.net.nodes[NAMES[name]]
            node.log.append(("crashed", ""))
            task.cancel()

    def send(self, sender: str, receiver: str, kind: str) -> None:
        if sender in self.running:
            node, pool, _ = self.running[sender]
            life = self.lives.index(node)
            number = self.sent.get((life, receiver, kind), 0)
            if pool.send(receiver, kind, f"{life}.{number}".encode()):
                self.sent[life, receiver, kind] = number + 1

    async def play(self, script: list[tuple[Any, ...]]) -> None:
        async with asyncio.TaskGroup() as group:
            for name in NAMES:
                self.start(group, name)
            await asyncio.sleep(0.1)
            for step in script:
                match step:
                    case ("send", (sender, receiver), kind, count):
                        for _ in range(count):
                            self.send(sender, receiver, kind)
                    case ("break", (one, other), first, second):
                        self.net.break_between(one, other, noticed=(first, second))
                    case ("crash", name):
                        self.crash(name)
                    case ("start", name):
                        self.start(group, name)
                    case ("wait", seconds):
                        await asyncio.sleep(seconds)
            for name in NAMES:
                self.start(group, name)
            await asyncio.sleep(30)
            calm = {name: list(node.log) for name, (node, _, _) in self.running.items()}
            for name, (_, pool, _) in self.running.items():
                assert pool.connected == NAMES.keys() - {name}
                for other in NAMES.keys() - {name}:
                    for kind in KINDS:
                        self.send(name, other, kind)
            await asyncio.sleep(30)
            for name, (node, _, _) in self.running.items():
                news = node.log[len(calm[name]) :]
                assert sorted(entry[:3] for entry in news) == sorted(
                    ("message", other, kind) for other in NAMES.keys() - {name} for kind in KINDS
                )
            for _, _, task in self.running.values():
                task.cancel()


def check(node: Node) -> None:
    """Ups and downs alternate; every message comes between; messages of one kind, within one up, are consecutive; none comes twice."""
    for peer in NAMES:
        up = False
        last: dict[str, tuple[int, int]] = {}
        latest: dict[str, tuple[int, int]] = {}
        for entry in node.about(peer):
            match entry:
                case ("up", _):
                    assert not up
                    up, last = True, {}
                case ("down", _):
                    assert up
                    up = False
                case ("message", _, kind, payload):
                    assert up
                    life, number = map(int, payload.split("."))
                    if kind in last:
                        assert (life, number) == (last[kind][0], last[kind][1] + 1)
                    assert kind not in latest or (life, number) > latest[kind]
                    last[kind] = latest[kind] = (life, number)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(script=steps)
def test_order_ups_and_downs_whatever_happens(script: list[tuple[Any, ...]], virtual: Run) -> None:
    cluster = Cluster()
    virtual(cluster.play(script))
    for node in cluster.lives:
        crashed = node.log.index(("crashed", "")) if ("crashed", "") in node.log else len(node.log)
        node.log = node.log[:crashed]
        check(node)


def test_a_quiet_script_delivers_everything(virtual: Run) -> None:
    """The control experiment: nothing is lost without a break."""
    cluster = Cluster()
    script = [("send", pair, kind, 5) for _ in range(5) for pair in [("n1", "n2"), ("n2", "n1"), ("n3", "n1")] for kind in KINDS]
    virtual(cluster.play([*script, ("wait", 0.3)]))
    assert sum(entry[0] == "message" for node in cluster.lives for entry in node.log) == sum(cluster.sent.values()) == 150 + 12
