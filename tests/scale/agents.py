"""Many agents in one process, each on its own address: real QUIC, real mutual TLS with what deploy put on the host. For tests only.

    agents.py --control SOCKET

Behind them is no Raft but one World that answers for all of them consistently: who may form, who leads, who is a member.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from base64 import b64decode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from control import serve

from hmcore import api
from hmcore.config.agent import AgentConfig, parse_agent_config
from hmcore.pki import Kind, read_identity
from hmcore.records import FEATURE_LEVEL, ComponentReport, ComponentState, Node, NodeReport, PeerReport, PhaseReport, RaftReport, Role
from hmcore.stoq import endpoint, local
from hmcore.stoq.greeting import Local, Peer
from hmcore.stoq.mtls import Credentials
from hmcore.stoq.rpc import Router, invoke
from node_agent.platform.forwarding import Forwarding

COMPONENTS = ("transport", "consensus", "container", "security", "network", "images", "apps", "registry", "orchestration")
PHASES = ("identity", *COMPONENTS, "api")


@dataclass
class Agent:
    config: AgentConfig
    release: str
    began: float
    credentials: Credentials
    listener: endpoint.Listener | None = None
    socket: local.UnixListener | None = None  # for relays through SSH
    links: dict[str, endpoint.Connection] = field(default_factory=dict)
    calls: int = 0

    @property
    def name(self) -> str:
        return self.config.node

    @property
    def local(self) -> Local:
        return Local(read_identity(self.credentials.certificate), str(self.config.role), self.release)

    async def ask(self, name: str, timeout: float) -> NodeReport:
        return await invoke(self.links[name], api.REPORT, api.ReportRequest(members=False), timeout=timeout)

    def peers(self) -> list[PeerReport]:
        return [
            PeerReport(name=name, address="10.0.0.1:7443", state="connected", rtt_ms=None if link.rtt is None else link.rtt * 1000)
            for name, link in self.links.items()
            if not link.closed
        ]


@dataclass
class World:
    """`formed`: the bootstrap id the cluster was formed with. `rounds`: how often each agent was asked for its report."""

    folder: Path  # of the agents' own sockets
    agents: dict[str, Agent] = field(default_factory=dict)
    permitted: set[str] = field(default_factory=set)
    formed: str | None = None
    index: int = 0
    connections: int = 0
    peak: int = 0
    total: int = 0

    @property
    def voters(self) -> list[str]:
        return sorted({voter.name for agent in self.agents.values() for voter in agent.config.voters})

    def leader(self) -> str | None:
        there = [name for name in self.voters if name in self.agents]
        return there[0] if self.formed and 2 * len(there) > len(self.voters) else None

    def form(self, agent: Agent, bootstrap: str) -> api.Formation:
        if bootstrap == agent.config.bootstrap:
            self.permitted.add(agent.name)
        if 2 * len(self.permitted) > len(agent.config.voters):
            self.formed = bootstrap
        return self.formation(agent)

    def formation(self, agent: Agent) -> api.Formation:
        formed = self.formed == agent.config.bootstrap
        voters = [voter.name for voter in agent.config.voters] if agent.config.role is Role.CONTROL else []
        return api.Formation(
            bootstrap=agent.config.bootstrap,
            voters=voters,
            empty=not formed,
            permitted=agent.name in self.permitted,
            formed=formed,
            term=3,
            level=FEATURE_LEVEL,
        )

    def members(self) -> list[Node]:
        if not self.formed:
            return []
        return [
            Node(name=name, address=agent.config.address, port=agent.config.port, role=agent.config.role, release=agent.release)
            for name, agent in sorted(self.agents.items())
        ]

    def report(self, agent: Agent, members: bool) -> NodeReport:
        leader, voters, control = self.leader(), self.voters, agent.config.role is Role.CONTROL
        others = self.agents if control else voters
        role = "leader" if leader == agent.name else "follower" if control else "observer"
        return NodeReport(
            cluster=agent.config.cluster_id,
            name=agent.name,
            address=agent.config.address,
            role=agent.config.role,
            release=agent.release,
            uptime_seconds=round(time.monotonic() - agent.began, 3),
            health_score=1.0,
            reasons=[],
            containers=0,
            components={name: ComponentReport(state=ComponentState.RUNNING, init_seconds=0.1) for name in COMPONENTS},
            raft=RaftReport(
                role=role,
                leader=leader,
                term=3,
                commit_index=self.index,
                applied_index=self.index,
                voters=voters,
                reachable_voters=[name for name in voters if name in self.agents] if role == "leader" else [],
                level=FEATURE_LEVEL if self.formed else 0,
                knows=FEATURE_LEVEL,
            ),
            formed=self.formed is not None,
            members=self.members() if members else [],
            peers=[PeerReport(name=name, address="10.0.0.1:7443", state="connected", rtt_ms=0.3) for name in others if name != agent.name],
            phases=[PhaseReport(name=name, began_seconds=0.1, seconds=0.1, outcome="ok") for name in PHASES],
            unix_time=time.time(),
        )

    def router(self, agent: Agent) -> Router:
        async def ping(_peer: Peer, _request: api.Empty) -> api.PingReply:
            return api.PingReply(name=agent.name, unix_time=time.time())

        async def report(_peer: Peer, request: api.ReportRequest) -> NodeReport:
            agent.calls += 1
            return self.report(agent, request.members)

        forwarding = Forwarding(agent.ask, links=agent.peers, wall_clock=time.time)

        async def reports(_peer: Peer, request: api.ReportsRequest) -> api.ReportsReply:
            return await forwarding.reports(request)

        async def formation(_peer: Peer, _request: api.Empty) -> api.Formation:
            return self.formation(agent)

        async def form(_peer: Peer, request: api.FormRequest) -> api.Formation:
            return self.form(agent, request.bootstrap)

        async def state(_peer: Peer, _request: api.StateRequest) -> api.StateReply:
            return api.StateReply(index=self.index, leader=self.leader(), term=3, nodes=self.members())

        async def flows(_peer: Peer, _request: api.Empty) -> api.FlowsReply:
            return api.FlowsReply(flows=[], unix_time=time.time())

        async def events(_peer: Peer, request: api.EventsRequest) -> api.EventsReply:
            await asyncio.sleep(request.wait)  # nothing happens here
            return api.EventsReply(events=[], last=0, journal=1)

        who = (Kind.OPERATOR, Kind.VIEWER)
        return Router(
            {
                api.PING: (who, ping),
                api.REPORT: ((Kind.NODE, *who), report),
                api.REPORTS: (who, reports),
                api.FORMATION: (who, formation),
                api.FORM: ((Kind.OPERATOR,), form),
                api.STATE: (who, state),
                api.FLOWS: (who, flows),
                api.EVENTS: (who, events),
            }
        )

    def connected(self, connection: endpoint.Connection) -> None:
        self.connections += 1
        self.total += 1
        self.peak = max(self.peak, self.connections)
        connection.on_closed(self._closed)

    def _closed(self, _connection: endpoint.Connection) -> None:
        self.connections -= 1

    async def start(self, request: dict[str, Any]) -> None:
        config = parse_agent_config(b64decode(request["config"]), "agent.yaml")
        await self.stop(config.node)
        credentials = Credentials(*(b64decode(request[name]) for name in ("ca", "certificate", "key")))
        agent = Agent(config, request["release"] or "", time.monotonic(), credentials)
        agent.listener = await endpoint.serve(
            config.address,
            config.port,
            credentials=credentials,
            local=agent.local,
            service=self.router(agent),
            on_connection=self.connected,
        )
        agent.socket = await local.serve_unix(str(self.folder / f"{config.node}.agent"), self.router(agent), local=agent.local)
        self.agents[config.node] = agent
        self.index += 1

    async def link(self) -> None:
        """Connect the control nodes to all others, as real ones are."""
        for agent in [self.agents[name] for name in self.voters]:
            for other in self.agents.values():
                if other is not agent and other.name not in agent.links:
                    agent.links[other.name] = await endpoint.dial(
                        other.config.address,
                        other.config.port,
                        credentials=agent.credentials,
                        local=agent.local,
                        server=read_identity(other.credentials.certificate),
                        timeout=10.0,
                    )

    async def stop(self, name: str) -> None:
        agent = self.agents.pop(name, None)
        if agent is not None and agent.listener is not None:
            await agent.listener.close()
        if agent is not None and agent.socket is not None:
            await agent.socket.close()
        if not self.agents:
            self.formed, self.permitted = None, set()

    async def answer(self, request: dict[str, Any]) -> Any:
        match request:
            case {"start": _}:
                await self.start(request)
            case {"stop": str(name)}:
                await self.stop(name)
            case {"formed": str(bootstrap)}:
                self.formed = bootstrap
            case {"link": _}:
                await self.link()
            case {"counts": "reset"}:
                self.peak, self.total = self.connections, 0
            case {"counts": _}:
                return {"open": self.connections, "peak": self.peak, "total": self.total, "agents": len(self.agents)}
        return None


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--control", type=Path, required=True)
    gc.set_threshold(100_000, 50, 100)  # hundreds of agents in one process: each of the real ones has only its own garbage to look at
    control: Path = parser.parse_args().control
    uvloop.run(serve(control, World(control.parent).answer))
