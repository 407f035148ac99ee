"""The probe of the way between hosts: who tries whom, what the answers mean, and the node's program on real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hmcore.config.inventory import Host, SshTarget
from hmcore.records import Role
from hmctl.facts import gather
from hmctl.phases import probe
from hmctl.phases.validate import Check
from hmctl.remote.base import Completed, shown
from hmctl.remote.fake import Machine, facts

HOSTS = [Host(f"node{i}", SshTarget(f"10.0.0.{i}"), f"10.0.0.{i}", 7443, Role.CONTROL) for i in (1, 2, 3)]


def known(*running: str) -> dict[str, gather.HostFacts]:
    machines = [Machine(host.name, host.address, active=host.name in running) for host in HOSTS]
    return {machine.name: gather.parse(machine.name, gather.split(facts(machine)), 0.0, 0.0) for machine in machines}


def test_fresh_hosts_all_listen_and_try_each_other() -> None:
    attempts = probe.plan(HOSTS, known())
    assert [(a.host.name, a.listen, [peer.name for peer, _ in a.peers]) for a in attempts] == [
        ("node1", True, ["node2", "node3"]),
        ("node2", True, ["node1", "node3"]),
        ("node3", True, ["node1", "node2"]),
    ]


def test_where_agents_run_only_the_newcomer_is_tried_both_ways() -> None:
    attempts = probe.plan(HOSTS, known("node1", "node2"))
    assert [(a.host.name, a.listen, [(peer.name, live) for peer, live in a.peers]) for a in attempts] == [
        ("node1", False, [("node3", False)]),
        ("node2", False, [("node3", False)]),
        ("node3", True, [("node1", True), ("node2", True)]),
    ]
    assert probe.plan(HOSTS, known("node1", "node2", "node3")) == []


def test_problems_name_both_hosts_and_the_port() -> None:
    fine: dict[str, object] = {"tcp": None, "udp": None}
    attempts = probe.plan(HOSTS, known())
    answers = {
        "node1": {"node2": fine, "node3": {"tcp": None, "udp": "no answer"}},
        "node2": "Address already in use",
        "node3": {"node1": fine},
    }
    checks = probe.judge(attempts, answers)
    assert [(check.host, check.status) for check in checks] == [("node1", "error"), ("node2", "error"), ("node3", "error")]
    assert "cannot reach node3 at 10.0.0.3 (UDP 7443: no answer)" in checks[0].message
    assert "Address already in use" in checks[1].message
    good = {host.name: {peer.name: fine for peer in HOSTS} for host in HOSTS}
    assert [check.status for check in probe.judge(attempts, good)] == ["ok"]


def test_an_agent_that_refuses_tcp_is_warned_of_and_keeps_nobody_from_joining() -> None:
    attempts = probe.plan(HOSTS, known("node1", "node2"))
    fine, refusing = {"tcp": None, "udp": None}, {"tcp": "refused", "udp": None}
    answers: dict[str, object] = {"node1": {"node3": fine}, "node2": {"node3": fine}, "node3": {"node1": refusing, "node2": fine}}
    checks = probe.judge(attempts, answers)
    assert [(check.host, check.status) for check in checks] == [("node1", "warn")]
    assert checks[0].message == "its agent answers on UDP 7443, but TCP 7443 is refused to node3: nobody can fetch images from it"
    away = probe.judge(attempts, answers | {"node3": {"node1": {"tcp": "refused", "udp": "no answer"}, "node2": fine}})
    assert [(check.host, check.status) for check in away] == [("node3", "error")]
    no_agent = probe.judge(attempts, answers | {"node1": {"node3": refusing}})  # there our own probe listens: refused is refused
    assert [(check.host, check.status) for check in no_agent] == [("node1", "error"), ("node1", "warn")]
    dropped = probe.judge(attempts, answers | {"node3": {"node1": {"tcp": "no answer", "udp": None}, "node2": fine}})
    assert [(check.host, check.status) for check in dropped] == [("node3", "error")]


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.sampled_from(["node1", "node2"]),
        st.recursive(st.none() | st.text() | st.booleans(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=5),
    )
)
def test_judging_is_total(answers: dict[str, object]) -> None:
    checks = probe.judge(probe.plan(HOSTS, known()), answers)
    assert any(check.status == "error" for check in checks)


class Local:
    """A host that is this machine."""

    def __init__(self, host: Host) -> None:
        self.host = host

    async def run(self, argv: Sequence[str], **options: object) -> Completed:
        raise AssertionError("the probe only talks with processes")

    async def open_process(self, argv: Sequence[str], *, sudo: bool = False, timeout: float) -> Talk:
        pipe = asyncio.subprocess.PIPE
        self.named = shown(argv)
        self.talk = Talk(await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe))
        return self.talk


class Talk:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self.stdin, self.stdout = process, process.stdin, process.stdout

    async def wait(self, *, timeout: float) -> Completed:
        return Completed(await self.process.wait(), b"", "")

    def kill(self) -> None:
        self.stdin.close()


async def probed(attempts: Sequence[probe.Attempt]) -> list[Check]:
    """Runs them here, and sees the programs end by themselves once their input does."""
    remotes = {attempt.host.name: Local(attempt.host) for attempt in attempts}
    checks = await probe.probe(attempts, remotes)
    for remote in remotes.values():
        assert remote.named == "network-probe"  # what an operator reads when the connection is lost meanwhile
        async with asyncio.timeout(10):
            await remote.talk.stdout.read()
            assert await remote.talk.process.wait() == 0
    return checks


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def here(*ports: int) -> list[Host]:
    target = SshTarget("127.0.0.1", python=sys.executable)
    return [Host(f"node{index}", target, "127.0.0.1", port, Role.CONTROL) for index, port in enumerate(ports, 1)]


async def test_the_real_program_finds_open_ways_open() -> None:
    hosts = here(*free_ports(3))
    attempts = [probe.Attempt(host, True, tuple((peer, False) for peer in hosts if peer is not host)) for host in hosts]
    checks = await probed(attempts)
    assert [check.status for check in checks] == ["ok"], checks


async def test_the_real_program_finds_a_taken_port_and_nobody_at_home() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        hosts = here(taken.getsockname()[1], *free_ports(2))
        one, two, absent = hosts
        attempts = [probe.Attempt(one, True, ((two, False),)), probe.Attempt(two, True, ((absent, False), (absent, True)))]
        checks = await probed(attempts)
    assert "in use" in checks[0].message
    assert "node3" in checks[1].message
    assert "refused" in checks[1].message


def test_the_task_is_one_line_of_json() -> None:
    host = replace(HOSTS[0], port=7444)
    task = probe.Attempt(host, False, ((HOSTS[1], True),)).task()
    assert json.loads(task) == {"address": "10.0.0.1", "port": 7444, "listen": False, "peers": [["node2", "10.0.0.2", 7443]]}
    assert task.count(b"\n") == 1
    assert Path(probe.__file__).with_name("probe_node.py").exists()
