"""Preflight over the wire: UDP and TCP on the agents' port between every pair of hosts, tried by the hosts themselves.

Only where an agent is missing. Two hosts that both run one are not tried: whether their agents have a connection is what the agents say
themselves, and `hmctl status` and `hmctl node inspect` show.

Agents listen on TCP, too: images go that way. One that answers on UDP and refuses TCP is of a release before apps, has failed to listen, or
stands behind a firewall that refuses in its name. It can join all the same, and deploy may be what mends it: a warning, and no error.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hmcore.errors import HyperMeshError
from hmcore.records import Role
from hmctl.facts.gather import HostFacts
from hmctl.phases.validate import Check
from hmctl.remote.base import Process, Remote
from hmctl.text import listed

if TYPE_CHECKING:
    from hmcore.config.inventory import Host

_TIMEOUT = 20.0  # seconds for all of one host's attempts
REFUSED = "refused"  # as probe_node.py says it
_NODE = Path(__file__).with_name("probe_node.py")


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one host is to do. `listen`: nobody answers on its port yet, so the probe does."""

    host: Host
    listen: bool
    peers: tuple[tuple[Host, bool], ...]  # and whether an agent answers there

    def task(self) -> bytes:
        peers = [[peer.name, peer.address, peer.port] for peer, _ in self.peers]
        document = {"address": self.host.address, "port": self.host.port, "listen": self.listen, "peers": peers}
        return json.dumps(document).encode() + b"\n"


def plan(hosts: Sequence[Host], facts: Mapping[str, HostFacts]) -> list[Attempt]:
    """Who tries whom; nobody, when every host runs an agent. Pure."""
    known = [host for host in hosts if host.name in facts]
    live = {host.name: facts[host.name].agent.unit.active in ("active", "activating", "reloading") for host in known}
    if all(live.values()):
        return []
    attempts = []
    for host in known:
        # Two hosts that both run an agent are not our business.
        peers = tuple((peer, live[peer.name]) for peer in known if peer is not host and not (live[host.name] and live[peer.name]))
        attempts.append(Attempt(host, not live[host.name], peers))
    return attempts


def groups(hosts: Sequence[Host], at_once: int) -> list[list[Host]]:
    """Who is tried together: a host that answers must be connected as long as others try it, and no more than `at_once` can be. Each
    control node with everybody; of the others, those that stand beside each other in the inventory. Pure.

    It also keeps the work in proportion: 500 hosts that all try each other would be 250 000 ways.
    """
    if len(hosts) <= at_once:
        return [list(hosts)]
    control = [host for host in hosts if host.role is Role.CONTROL]
    if len(control) >= at_once:
        control = []
    rest = [host for host in hosts if host not in control]
    size = at_once - len(control)
    return [[*control, *rest[start : start + size]] for start in range(0, len(rest), size)]


def together(found: Sequence[Sequence[Check]], hosts: int) -> list[Check]:
    """What the groups' checks come to: if all is well everywhere, that is said once. Pure."""
    if len(found) == 1:
        return list(found[0])
    wrong = [check for checks in found for check in checks if check.status != "ok"]
    if wrong or not any(found):
        return wrong
    return [
        Check(None, "network", "ok", f"UDP and TCP work: {hosts} hosts, tried in {len(found)} groups, the control nodes with everybody")
    ]


def judge(attempts: Sequence[Attempt], answers: Mapping[str, object]) -> list[Check]:
    """Checks from what each host's probe said: {peer: {"tcp": problem or null, "udp": ...}}, or why it could not. Pure and total."""
    checks: list[Check] = []
    refusing: dict[Host, list[str]] = {}
    reached = 0
    for attempt in attempts:
        name, answer = attempt.host.name, answers.get(attempt.host.name)
        if not isinstance(answer, dict):
            checks.append(Check(name, "network", "error", f"its port {attempt.host.port} could not be tried: {answer}"))
            continue
        for peer, live in attempt.peers:
            found = answer.get(peer.name)
            found = found if isinstance(found, dict) else {"udp": "not tried", "tcp": "not tried"}
            if live and found.get("tcp") == REFUSED and not found.get("udp"):
                refusing.setdefault(peer, []).append(name)
                continue
            problems = [f"{protocol.upper()} {peer.port}: {found[protocol]}" for protocol in ("udp", "tcp") if found.get(protocol)]
            if problems:
                checks.append(
                    Check(
                        name,
                        "network",
                        "error",
                        f"it cannot reach {peer.name} at {peer.address} ({listed(problems)})",
                        f"open UDP and TCP {peer.port} between the hosts: their own firewalls, and what lies between",
                    )
                )
            else:
                reached += 1
    checks += [_refuses(peer, names) for peer, names in refusing.items()]
    if reached and not checks:
        checks.append(Check(None, "network", "ok", f"UDP and TCP work between all {len(attempts)} hosts"))
    return checks


def _refuses(peer: Host, names: Sequence[str]) -> Check:
    return Check(
        peer.name,
        "network",
        "warn",
        f"its agent answers on UDP {peer.port}, but TCP {peer.port} is refused to {listed(list(names))}: nobody can fetch images from it",
        f"hmctl deploy, if its release is an old one; else open TCP {peer.port} there, or see why it is closed: hmctl logs {peer.name}",
    )


async def probe(attempts: Sequence[Attempt], remotes: Mapping[str, Remote]) -> list[Check]:
    """Carries the attempts out, all at once: everybody listens before anybody tries."""
    program = _NODE.read_text(encoding="utf-8")
    processes: dict[str, Process] = {}
    answers: dict[str, object] = {}

    async def begin(attempt: Attempt) -> None:
        host = attempt.host
        try:
            processes[host.name] = await remotes[host.name].open_process(
                [host.ssh.python, "-c", program, "network-probe"], sudo=host.port < 1024, timeout=_TIMEOUT
            )
            processes[host.name].stdin.write(attempt.task())
            async with asyncio.timeout(_TIMEOUT):
                said = (await processes[host.name].stdout.readline()).decode(errors="replace").strip()
            if said != "ready":
                answers[host.name] = said or "the probe did not start"
        except (HyperMeshError, TimeoutError, OSError) as error:
            answers[host.name] = str(error) or "no answer in time"

    async def ask(attempt: Attempt) -> None:
        name = attempt.host.name
        if name in answers:
            return
        try:
            processes[name].stdin.write(b"go\n")
            async with asyncio.timeout(_TIMEOUT):
                answers[name] = json.loads(await processes[name].stdout.readline())
        except (HyperMeshError, TimeoutError, OSError, ValueError, RecursionError) as error:
            answers[name] = str(error) or "no answer in time"

    try:
        for action in (begin, ask):
            async with asyncio.TaskGroup() as group:
                for attempt in attempts:
                    group.create_task(action(attempt), name=f"probe {attempt.host.name}")
    finally:
        for process in processes.values():
            process.kill()
    return judge(attempts, answers)
