"""Control nodes with one replicated log that accepts everything at once: their agents restart, lose their disks, are cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hmcore.apps.secrets import (
    EnrolRequest,
    FetchReply,
    FetchRequest,
    PutSecretReply,
    PutSecretRequest,
    Sort,
    UnlockReply,
    UnlockRequest,
)
from hmcore.errors import NotLeader, PeerUnreachable
from hmcore.pki import Identity, Kind
from hmcore.records import Node, Role
from node_agent.consensus.statemachine import levels, receipts
from node_agent.consensus.statemachine.commands import Command, FormCluster, Proposal, PutNode, Receipt, encode, encode_batch
from node_agent.consensus.statemachine.machine import apply_batch
from node_agent.consensus.statemachine.state import State
from node_agent.platform.changes import Changes
from node_agent.platform.secrets import Secrets
from node_agent.vault.fetching import Fetching
from node_agent.vault.holder import Holder
from node_agent.vault.keeper import VaultKeeper, vault_of

CLUSTER = "hm-abc123defg"
ANN = Identity(CLUSTER, Kind.OPERATOR, "ann")


def of_node(name: str) -> Identity:
    return Identity(CLUSTER, Kind.NODE, name)


class View:
    """See node_agent.orchestration.cluster.Proposer."""

    no_quorum = None

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name

    @property
    def is_leader(self) -> bool:
        return self.world.leader == self.name

    caught_up = is_leader

    @property
    def leader(self) -> str:
        return self.world.leader

    def receipt(self, request_id: str) -> Receipt | None:
        return receipts.find(self.world.state, request_id)

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        if not self.is_leader:
            raise NotLeader("no", leader=self.world.leader)
        receipt = self.world.put(command, request_id, author)
        return receipt.index, receipt.result


class Agent:
    """Of a control node, since its latest start."""

    def __init__(self, world: World, name: str) -> None:
        view = View(world, name)
        self.changes = Changes(name, view, view, timeout=1.0)  # type: ignore[arg-type]
        self.holder = Holder(
            name,
            CLUSTER,
            world.folder / name / "secrets.key",
            vault=lambda: vault_of(world.state),
            keepers=lambda: world.state.keepers,
            voters=lambda: world.voters,
            ask=lambda helper, request: world.unlock(helper, request, name),
        )
        self.keeper = VaultKeeper(
            name,
            CLUSTER,
            self.holder,
            state=lambda: world.state,
            voters=lambda: world.voters,
            leads=lambda: view.is_leader,
            log=view,
            enrol=lambda request: world.enrol(request, name),
            propose_timeout=1.0,
            request_prefix=lambda: f"{name}-{world.starts}",
        )
        self.secrets = Secrets(
            name,
            self.changes,
            holder=self.holder,
            keeper=self.keeper,
            state=lambda: world.state,
            leader=lambda: world.leader,
            barrier=world.barrier,
        )


class World:
    def __init__(self, folder: Path, *names: str, level: int = levels.LATEST) -> None:
        self.folder = folder
        self.state = State()
        self.log: list[bytes] = []
        self.voters = list(names)
        self.leader = names[0]
        self.down: set[str] = set()
        self.starts = 0
        self.requests = 0
        self.do(FormCluster(id=CLUSTER, bootstrap="b1", level=level))
        self.agents: dict[str, Agent] = {}
        for name in names:
            self.join(name)

    def join(self, name: str, role: Role = Role.CONTROL) -> None:
        self.do(PutNode(node=Node(name=name, address="198.18.0.9", port=7443, role=role, release="r1")))
        if role is Role.CONTROL:
            self.restart(name)

    def restart(self, *names: str) -> None:
        """What was in memory is gone."""
        self.starts += 1
        for name in names or list(self.agents):
            self.agents[name] = Agent(self, name)

    def reseed(self, name: str) -> None:
        """Its disk is new."""
        (self.folder / name / "secrets.key").unlink()
        self.restart(name)

    def put(self, command: bytes, request_id: str, author: str = "") -> Receipt:
        self.log.append(command)
        batch = encode_batch([Proposal(request_id, command, 1.0, author)])
        self.state, (receipt,), _ = apply_batch(self.state, batch, self.state.index + 1)
        return receipt

    def do(self, *commands: Command) -> None:
        for command in commands:
            self.put(encode(command), f"world-{len(self.log)}")

    async def settle(self) -> None:
        """Until no control node that is up has anything to do but wait."""
        for _ in range(40):
            if not [name for name in self.agents if name not in self.down and await self.agents[name].keeper.step() == 0.0]:
                return
        raise AssertionError("the control nodes do not come to rest")

    async def barrier(self) -> None:
        """All is known everywhere at once."""

    async def unlock(self, helper: str, request: UnlockRequest, asker: str) -> UnlockReply:
        return await self.up(helper).secrets.unlock(request, of_node(asker))

    async def enrol(self, request: EnrolRequest, asker: str) -> Any:
        return await self.up(self.leader).secrets.enrol(request, of_node(asker))

    async def fetch(self, name: str, request: FetchRequest, asker: str) -> FetchReply:
        return await self.up(name).secrets.fetch(request, of_node(asker))

    def up(self, name: str) -> Agent:
        if name in self.down or name not in self.agents:
            raise PeerUnreachable("no answer within 2 s", host=name)
        return self.agents[name]

    async def set(self, name: str, value: bytes, sort: Sort = "secret", **more: Any) -> PutSecretReply:
        self.requests += 1
        request = PutSecretRequest(id=f"request-{self.requests}", sort=sort, name=name, value=value, **more)
        return await self.agents[self.leader].secrets.put(request, ANN)

    def fetching(self, node: str) -> Fetching:
        """As that node's agent does it."""
        return Fetching(node, lambda name, request: self.fetch(name, request, node), control_nodes=lambda: list(self.agents))
