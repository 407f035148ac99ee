"""Records from the kernel as events that can be followed: named, in order, with what was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hmcore.api import EventsRequest
from hmcore.errors import CallRefused, LayerDown
from node_agent.container.info import ContainerInfo
from node_agent.security.chronicle import PATIENCE, Chronicle
from node_agent.security.maps import ExecRecord, RawFlow, Record, TcpRecord, Totals

WEB, DB = "a" * 64, "b" * 64
Run = Callable[[Coroutine[Any, Any, None]], None]


class Source:
    """The security layer."""

    def __init__(self) -> None:
        self.lost = 0
        self.directories = {7: WEB, 8: DB}
        self.down = False

    async def flows(self) -> list[RawFlow]:
        if self.down:
            raise LayerDown("the security layer is not up")
        return [RawFlow(7, "172.17.0.1", 17, 1, 2, 3, 4, 0, 0)]

    def totals(self) -> Totals:
        return Totals(events_limited=self.lost)

    def cgroups(self) -> dict[int, str]:
        return self.directories


class Scene:
    def __init__(self) -> None:
        self.source = Source()
        self.trouble: tuple[str, str | None] | None = None
        self.wall = 1000.0
        self.chronicle = self.made(began=1)

    def made(self, began: int, *, off: bool = False) -> Chronicle:
        return Chronicle(
            "node1",
            self.source,
            began=began,
            off=off,
            trouble=lambda: self.trouble,
            wall_clock=lambda: self.wall,
            monotonic_ns=lambda: 5_000_000_000,
        )

    def name(self, **containers: str) -> None:
        ids = {"web": WEB, "db": DB}
        self.chronicle.containers_changed({ids[key]: ContainerInfo(ids[key], name, name) for key, name in containers.items()})

    async def messages(self, **request: Any) -> list[tuple[str, str]]:
        reply = await self.chronicle.events(EventsRequest(**request))
        return [(event.container, event.attributes.get("filename", event.kind)) for event in reply.events]


def ran(program: str, cgroup: int = 7) -> Record:
    return ExecRecord(cgroup, 4_000_000_000, 12, 0, "sh", program)


CLOSED = TcpRecord(8, 5_000_000_000, 2, "10.0.0.2", 1, "10.0.0.3", 2, 1, 7)


def test_events_have_names_times_and_numbers(virtual: Run) -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.name(web="web-1", db="db-1")
        scene.chronicle.received([ran("/bin/sh"), CLOSED])
        reply = await scene.chronicle.events(EventsRequest())
        assert [(event.sequence, event.unix_time, event.kind, event.container) for event in reply.events] == [
            (1, 999.0, "exec", "web-1"),
            (2, 1000.0, "tcp", "db-1"),
        ]
        assert (reply.last, reply.lost, reply.journal) == (2, 0, 1)
        assert await scene.messages(container="web-1") == [("web-1", "/bin/sh")]
        assert await scene.messages(container=DB[:12]) == [("db-1", "tcp")]
        assert await scene.messages(kinds=["tcp"]) == [("db-1", "tcp")]

    virtual(scenario())


def test_a_new_containers_first_program_waits_for_its_name_and_keeps_its_place(virtual: Run) -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.name(db="db-1")
        scene.chronicle.received([ran("first"), ran("second", cgroup=8)])
        assert await scene.messages() == []
        asyncio.get_running_loop().call_later(0.3, lambda: scene.name(web="web-1", db="db-1"))
        assert await scene.messages(after=0, wait=10) == [("web-1", "first"), ("db-1", "second")]
        assert asyncio.get_running_loop().time() == pytest.approx(0.3)

    virtual(scenario())


def test_nobody_waits_for_a_name_that_never_comes_more_than_once(virtual: Run) -> None:
    async def scenario() -> None:
        scene, loop = Scene(), asyncio.get_running_loop()
        scene.chronicle.received([ran("first")])
        assert await scene.messages(after=0, wait=10) == [("a" * 12, "first")]
        assert loop.time() == pytest.approx(PATIENCE)
        scene.name(db="db-1")  # another one comes: the first is nameless still
        scene.chronicle.received([ran("second"), ran("third", cgroup=99)])
        assert await scene.messages(after=1) == [("a" * 12, "second"), ("cgroup-99", "third")]
        assert loop.time() == pytest.approx(PATIENCE)

    virtual(scenario())


def test_a_follower_waits_for_what_it_wants_and_not_for_ever(virtual: Run) -> None:
    async def scenario() -> None:
        scene, loop = Scene(), asyncio.get_running_loop()
        scene.name(web="web-1", db="db-1")
        loop.call_later(1, lambda: scene.chronicle.received([CLOSED]))
        loop.call_later(2, lambda: scene.chronicle.received([ran("/bin/sh")]))
        assert await scene.messages(after=0, wait=15, container="web-1") == [("web-1", "/bin/sh")]
        assert loop.time() == pytest.approx(2)
        reply = await scene.chronicle.events(EventsRequest(after=2, wait=1e9))
        assert loop.time() == pytest.approx(22)
        assert (reply.events, reply.last) == ([], 2)

    virtual(scenario())


def test_what_the_kernel_dropped_is_a_gap(virtual: Run) -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.source.lost = 40  # before we came
        scene.name(web="web-1")
        scene.chronicle.received([ran("a")])
        scene.source.lost = 52
        scene.chronicle.received([ran("b")])
        reply = await scene.chronicle.events(EventsRequest(after=0))
        assert [event.sequence for event in reply.events] == [1, 14]
        assert reply.lost == 12

    virtual(scenario())


def test_after_a_restart_a_follower_begins_anew_though_the_new_numbers_have_passed_its_own(virtual: Run) -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.chronicle = scene.made(began=2)
        scene.name(web="web-1")
        scene.chronicle.received([ran("a"), ran("b"), ran("c")])
        reply = await scene.chronicle.events(EventsRequest(after=2, journal=1, wait=5))
        assert [event.sequence for event in reply.events] == [1, 2, 3]
        assert reply.journal == 2

    virtual(scenario())


def test_flows_have_names(virtual: Run) -> None:
    async def scenario() -> None:
        scene = Scene()
        web = ContainerInfo(WEB, "web-1", "shop/web", address="172.17.0.2", gateway="172.17.0.1")
        scene.chronicle.containers_changed({WEB: web})
        reply = await scene.chronicle.flows()
        assert [(flow.container, flow.service, flow.peer, flow.protocol) for flow in reply.flows] == [
            ("web-1", "shop/web", "172.17.0.1", "udp")
        ]
        assert reply.names == {"172.17.0.2": "web-1", "172.17.0.1": "node1"}
        assert reply.unix_time == 1000.0

    virtual(scenario())


def test_without_the_kernels_programs_it_says_what_would_mend_it(virtual: Run) -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.source.down = True
        with pytest.raises(CallRefused, match="the security layer is not up"):
            await scene.chronicle.flows()
        scene.trouble = ("bcc is not installed", "apt-get install python3-bpfcc")
        for question in (scene.chronicle.flows(), scene.chronicle.events(EventsRequest())):
            with pytest.raises(CallRefused, match="bcc is not installed") as caught:
                await question
            assert caught.value.fix == "apt-get install python3-bpfcc"

    virtual(scenario())


def test_switched_off_on_purpose_flows_are_refused_and_events_do_not_come(virtual: Run) -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.chronicle, scene.trouble = scene.made(1, off=True), ("it is ready", None)
        with pytest.raises(CallRefused, match="switched off") as caught:
            await scene.chronicle.flows()
        assert "config apply" in (caught.value.fix or "")
        assert (await scene.chronicle.events(EventsRequest(after=0, wait=3))).events == []

    virtual(scenario())
