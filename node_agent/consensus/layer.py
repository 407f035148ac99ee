"""Consensus on a control node as a component: it votes, and may lead. A worker's is in observer.py."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from hmcore.api import Formation, FormRequest
from hmcore.apps.records import Allocation, Generation, Image, NodeStatuses, Subnet, statuses_key
from hmcore.config.agent import AgentConfig
from hmcore.errors import HyperMeshError, InvalidRequest, LevelTooLow, NoQuorum, StorageDamaged, StorageFull
from hmcore.records import Cluster, Event, Lock, Maintenance, Mute, Node, RaftReport, Registration
from hmcore.voters import RaftStatus
from node_agent.consensus.following.own import OwnAllocations
from node_agent.consensus.leading.handover import Handed
from node_agent.consensus.log.aside import seconds_since, set_aside
from node_agent.consensus.log.room import low_disk
from node_agent.consensus.raft import RaftNode
from node_agent.consensus.statemachine import levels, machine, receipts
from node_agent.consensus.statemachine.checkpoints import Claim
from node_agent.consensus.statemachine.commands import Receipt, decode
from node_agent.consensus.statemachine.state import State

FORMATION_TIMEOUT = 1.0  # seconds for another voter to say whether there is a cluster

log = logging.getLogger(__name__)


class VoterLayer:
    """Consensus on a control node. See Component, and node_agent.orchestration.cluster.Proposer."""

    name = "consensus"

    def __init__(
        self, config: AgentConfig, raft: RaftNode, ask_formation: Callable[[str], Awaitable[Formation]], reconnect: Callable[[], None]
    ) -> None:
        """`ask_formation` asks another voter how far it is. `reconnect` breaks all connections: what came while this layer was down is
        missing from the middle of their streams."""
        self.raft = raft
        self._config = config
        self._ask_formation = ask_formation
        self._reconnect = reconnect
        self._directory = config.data_dir / "raft"
        self._aside: int | None = None  # once the layer stops, move its directory aside: wrong since this log index
        self._opened_before = False
        self._own = OwnAllocations(config.node)
        self._settled = False  # since it was opened, this node has come to know all that it had known before
        self._open = False
        self._ever_formed = False
        self._damage: StorageDamaged | None = None

    async def initialize(self) -> None:
        """What is damaged on the disk is never loaded, but keeps only this layer from working: the rest of the node goes on, and the
        operator is told by the node itself what is the matter (docs/adr/0032)."""
        if self._opened_before:
            self._reconnect()
        self._opened_before = True
        self._damage = None
        try:
            await self.raft.open()
        except StorageDamaged as error:
            log.error("%s; to mend it: %s", error, error.fix)
            self._damage = error
        else:
            self._open = True

    async def run(self) -> None:
        if self._damage is not None:
            await asyncio.Event().wait()  # for the end of the agent: nothing mends itself here
        while True:
            await self.raft.run()
            if self._aside is None:
                return
            index, self._aside = self._aside, None
            place = set_aside(self._directory, index, time.time())
            log.warning("what this node held is in %s", place)
            self._reconnect()
            await self.raft.open()
            self._open = True

    async def check(self) -> str | HyperMeshError | None:
        if self._damage is not None:
            return self._damage
        if self.serving and (trouble := self.raft.trouble):
            return trouble
        return low_disk(self._config.data_dir)

    async def stop(self) -> None:
        self._open = self._settled = False
        self._aside = None
        await self.raft.stop()

    async def reseed(self, index: int) -> None:
        """What this node made of the log is wrong, at least since log index `index`: move it aside, and begin with an empty disk."""
        self._aside = index
        self._open = self._settled = False
        await self.raft.stop()

    async def hand_over(self) -> None:
        """To whoever can take it; whether one did shows in who leads."""
        try:
            await self.raft.transfer()
        except HyperMeshError as error:
            log.warning("the leadership was not handed over: %s", error)

    @property
    def since_reseeding(self) -> float | None:
        """Seconds since this node re-seeded itself last, as its disk remembers it."""
        return seconds_since(self._directory, time.time())

    @property
    def hashes(self) -> Mapping[int, str]:
        """Of our own states, by log index."""
        return self.raft.checkpoints.hashes

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What to tell others of our state: nothing before we know that we have it."""
        return self.raft.checkpoints.claims if self._open and not self.reseeding else ()

    @property
    def reseeding(self) -> bool:
        return self._open and self.raft.report().role == "reseeding"

    @property
    def serving(self) -> bool:
        """Not before the cluster is formed, or found: a node that waits for that is well."""
        return self.report().role != "unformed"

    @property
    def index(self) -> int:
        return self.raft.state.index

    @property
    def cluster(self) -> Cluster | None:
        return self.raft.state.cluster

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self.raft.state.nodes

    @property
    def registrations(self) -> Mapping[str, Registration]:
        return self.raft.state.registrations

    @property
    def maintenance(self) -> Mapping[str, Maintenance]:
        return self.raft.state.maintenance

    @property
    def mutes(self) -> Mapping[str, Mute]:
        return self.raft.state.mutes

    @property
    def locks(self) -> Mapping[str, Lock]:
        return self.raft.state.locks

    @property
    def generations(self) -> Mapping[str, Generation]:
        return self.raft.state.generations

    @property
    def subnets(self) -> Mapping[str, Subnet]:
        return self.raft.state.subnets

    @property
    def images(self) -> Mapping[str, Image]:
        return self.raft.state.images

    @property
    def own_index(self) -> int:
        return self.index

    @property
    def allocations(self) -> Mapping[str, Allocation] | None:
        """Not before this node has carried out what its log holds: what was stopped long ago must not begin again."""
        self._settled = self._open and (self._settled or self.raft.settled)
        return self._own.of(self.raft.state.allocations) if self._settled and self._config.node in self.raft.state.nodes else None

    @property
    def statuses(self) -> NodeStatuses | None:
        return self.raft.state.statuses.get(statuses_key(self._config.node))

    @property
    def state(self) -> State:
        return self.raft.state

    @property
    def events(self) -> Sequence[Event]:
        return self.raft.state.events

    @property
    def leader(self) -> str | None:
        return self.raft.leader

    @property
    def is_leader(self) -> bool:
        return self.raft.is_leader

    @property
    def caught_up(self) -> bool:
        return self.raft.caught_up

    @property
    def leads_in(self) -> int | None:
        return self.raft.leads_in

    @property
    def no_quorum(self) -> NoQuorum | None:
        return self.raft.no_quorum

    def report(self) -> RaftReport:
        if self._damage is not None:
            return RaftReport(role="damaged", voters=[voter.name for voter in self._config.voters], knows=levels.LATEST)
        if not self._open:  # starting, or failed: the component's state says which
            voters = [voter.name for voter in self._config.voters]
            return RaftReport(role="follower" if self._ever_formed else "unformed", voters=voters, knows=levels.LATEST)
        return msgspec.structs.replace(self.raft.report(), level=self._level, knows=levels.LATEST)

    @property
    def _level(self) -> int:
        """The feature level in force; 0 while there is no cluster."""
        state = self.raft.state
        return 0 if state.cluster is None else state.level

    @property
    def fresh(self) -> bool:
        return self.raft.leader is not None

    @property
    def formed(self) -> bool:
        self._ever_formed = self._ever_formed or self._damage is not None or (self._open and self.raft.formation().formed)
        return self._ever_formed

    def formation(self) -> Formation:
        """Raises StorageDamaged: nobody knows what this node took part in."""
        if self._damage is not None:
            raise self._damage
        status = self.raft.formation()
        return Formation(
            bootstrap=self._config.bootstrap,
            voters=self.raft.report().voters,
            empty=status.empty,
            permitted=status.permitted,
            formed=status.formed,
            term=status.term,
            level=self._level,
        )

    async def form(self, request: FormRequest) -> Formation:
        """Let this node form the cluster with the others (design section 4). Harmless when it is formed already.

        The others are asked before: where the cluster exists, a node with an empty disk is re-seeded and never votes on it.
        """
        if request.bootstrap != self._config.bootstrap:
            raise InvalidRequest(f"this node was set up for another formation ({self._config.bootstrap})", fix="hmctl deploy")
        if self._damage is not None:
            raise self._damage
        voters = self.raft.report().voters
        changed = self.raft.state.configuration is not None  # through the log, which is what counts since (docs/adr/0069)
        if not changed and sorted(request.voters) != sorted(voters):  # two lists within one formation would be two majorities
            message = f"this node was set up to form with {', '.join(voters)}, and is asked to form with {', '.join(request.voters)}"
            raise InvalidRequest(message, fix="make these the control nodes of the inventory, then: hmctl deploy")
        if not self.formed and await self._formed_elsewhere():
            self.raft.reseed()
        if not self.formed:
            self.raft.permit(request.bootstrap)
        return self.formation()

    async def _formed_elsewhere(self) -> bool:
        answers: list[Formation] = []

        async def ask(name: str) -> None:
            try:
                answers.append(await self._ask_formation(name))
            except HyperMeshError as error:
                log.info("%s does not say whether the cluster is formed: %s", name, error.message)

        async with asyncio.TaskGroup() as tasks:
            for voter in self._config.voters:
                if voter.name != self._config.node:
                    tasks.create_task(ask(voter.name), name=f"ask {voter.name}")
        return any(answer.formed for answer in answers)

    def receipt(self, request_id: str) -> Receipt | None:
        return receipts.find(self.raft.state, request_id)

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        """Raises what RaftNode.propose raises (NoQuorum for a full disk), and LevelTooLow: such a command must not even reach the log."""
        if self._damage is not None:
            raise self._damage
        if self._too_new(command) and not self.raft.caught_up:
            await self.barrier(timeout)  # what raised the level may be among what a new leader has yet to carry out
        if (reason := self._too_new(command)) is not None:
            raise LevelTooLow(reason, fix="hmctl deploy")
        with self._stepping_down():
            return await self.raft.propose(command, request_id=request_id, timeout=timeout, author=author)

    def _too_new(self, command: bytes) -> str | None:
        """Why the command may not be written at the level in force, as far as this node's state goes."""
        state = self.raft.state
        refused = machine.too_new(state, decode(command)) if state.level < levels.LATEST else None
        return None if refused is None else refused.reason

    async def barrier(self, timeout: float) -> int:
        with self._stepping_down():
            return await self.raft.barrier(timeout)

    @contextmanager
    def _stepping_down(self) -> Iterator[None]:
        """With a full disk this node leads no more; before long another one does, so that whoever asks shall ask again."""
        try:
            yield
        except StorageFull as error:
            raise NoQuorum(f"{self._config.node} has stepped down: {error.message}", host=self._config.node, fix=error.fix) from error

    async def transfer(self, to: str | None, timeout: float) -> Handed:
        return await self.raft.transfer(to, timeout)

    async def change_voters(self, *, add: str, remove: str, request_id: str, timeout: float, author: str) -> int:
        return await self.raft.change_voters(add=add, remove=remove, request_id=request_id, timeout=timeout, author=author)

    def status(self) -> RaftStatus | None:
        """How the log stands here; None while it is not open."""
        if self._damage is not None:
            trouble = f"{self._damage}; to mend it: {self._damage.fix}"
            voters = [voter.name for voter in self._config.voters]
            return RaftStatus(
                name=self._config.node,
                role="damaged",
                index=0,
                term=0,
                leader=None,
                level=0,
                knows=levels.LATEST,
                voters=voters,
                learners=[],
                trouble=trouble,
            )
        status = self.raft.status() if self._open else None
        return None if status is None else msgspec.structs.replace(status, knows=levels.LATEST)
