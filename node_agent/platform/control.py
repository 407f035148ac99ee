"""What only a control node has: a vote, and what its leadership needs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from hmcore.api import Formation, Heartbeat, InstancesReply
from hmcore.apps.secrets import EnrolRequest, UnlockReply, UnlockRequest
from hmcore.config.agent import AgentConfig
from hmcore.records import KeyValue, Lock
from node_agent.consensus.layer import VoterLayer
from node_agent.consensus.protocol.transport import Links
from node_agent.consensus.raft import RaftNode
from node_agent.consensus.statemachine.commands import FormCluster
from node_agent.consensus.statemachine.history import History
from node_agent.consensus.statemachine.state import State
from node_agent.orchestration.appkeeper import AppKeeper
from node_agent.orchestration.comparison import Comparison
from node_agent.orchestration.controller import Leader
from node_agent.orchestration.lockkeeper import LockKeeper
from node_agent.orchestration.pulse import Holds
from node_agent.orchestration.rollout import Terms
from node_agent.platform.granting import Granter, latest
from node_agent.platform.told import Told
from node_agent.registry.replication import Replication
from node_agent.vault.holder import Holder
from node_agent.vault.keeper import VaultKeeper, vault_of

DOCKER_WITHIN = 60.0  # seconds that a node's Docker may not answer before what it has is placed elsewhere: to restart takes 10 to 30
BACK_WITHIN = 15.0  # seconds that an agent which was stopped may take to be back before what runs there is started elsewhere


def make_voter(
    config: AgentConfig,
    *,
    links: Links,
    ask_formation: Callable[[str], Awaitable[Formation]],
    reconnect: Callable[[], None],
    on_applied: Callable[[], None],
    on_sync: Callable[[float], None],
    wall_clock: Callable[[], float],
) -> VoterLayer:
    raft = RaftNode(
        name=config.node,
        voters=[voter.name for voter in config.voters],
        directory=config.data_dir / "raft",
        settings=config.settings.raft,
        links=links,
        call_timeout=config.settings.calls.timeout,
        on_applied=lambda state: on_applied(),
        on_fatal=lambda error: None,  # `run` raises it, too
        wall_clock=wall_clock,
        on_sync=on_sync,
    )
    return VoterLayer(config, raft, ask_formation, reconnect)


class Control:
    """`request_prefix` begins the ids of this node's own proposals; `on_renewal` hears what a node's heartbeat tells of its registry."""

    def __init__(
        self,
        config: AgentConfig,
        voter: VoterLayer,
        *,
        barrier: Callable[[], Awaitable[int]],
        request_prefix: Callable[[], str],
        on_renewal: Callable[[str, int, int], None],
        unlock: Callable[[str, UnlockRequest], Awaitable[UnlockReply]],
        enrol: Callable[[EnrolRequest], Awaitable[object]],
    ) -> None:
        self.voter = voter
        settings = config.settings
        self._ttl = settings.registry.ttl
        self._timeout = 2 * settings.raft.election_max
        self._request_prefix = request_prefix
        self.leader = Leader(
            me=config.node,
            formation=FormCluster(id=config.cluster_id, bootstrap=config.bootstrap),
            cluster=voter,
            timing=settings.membership,
            propose_timeout=self._timeout,
            request_prefix=request_prefix,
            clock=time.monotonic,
            on_renewal=on_renewal,
            on_hashes=self._hashes_told,
        )
        self.keeper = LockKeeper(
            log=voter, barrier=barrier, propose_timeout=self._timeout, request_prefix=request_prefix, clock=self.leader.now
        )
        self.comparison = Comparison(
            config.node,
            voter,
            heartbeat=settings.membership.heartbeat,
            silent_after=settings.membership.suspect,
            timeout=self._timeout,
            clock=time.monotonic,
        )
        self.granter = Granter(
            voter,
            barrier=barrier,
            lease=settings.fencing.lease,
            timeout=self._timeout,
            request_prefix=request_prefix,
            clock=self.leader.now,
        )
        self.apps = AppKeeper(
            log=voter,
            heard=lambda: latest(self.leader.last_heard(), self.granter.asked),
            terms=Terms(
                fence_after=settings.fencing.after,
                lost_after=settings.membership.down,
                back_within=BACK_WITHIN,
                docker_within=DOCKER_WITHIN,
            ),
            propose_timeout=self._timeout,
            request_prefix=request_prefix,
            clock=self.leader.now,
            network=settings.network,
            asked=lambda: self.granter.asked,
        )
        self.vault_holder = Holder(
            config.node,
            config.cluster_id,
            config.data_dir / "secrets.key",
            vault=lambda: vault_of(voter.state),
            keepers=lambda: voter.state.keepers,
            voters=lambda: voter.report().voters,
            ask=unlock,
        )
        self.vault_keeper = VaultKeeper(
            config.node,
            config.cluster_id,
            self.vault_holder,
            state=lambda: voter.state,
            voters=lambda: voter.report().voters,
            leads=lambda: voter.caught_up,
            log=voter,
            enrol=enrol,
            propose_timeout=self._timeout,
            request_prefix=request_prefix,
        )
        self.told = Told(voter, lambda: voter.state, timeout=self._timeout, request_prefix=request_prefix)

    @property
    def loops(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """What runs beside the leader's own, by name."""
        return {"locks": self.keeper.run, "apps": self.apps.run, "secrets": self.vault_keeper.run, "comparison": self.comparison.run}

    @property
    def trouble(self) -> str | None:
        """What keeps the leader from its work, but for what `leader` tells itself."""
        return self.apps.trouble

    def poke(self) -> None:
        """The cluster has another leader."""
        self.keeper.poke()
        self.apps.poke()
        self.vault_keeper.poke()

    def state_changed(self) -> None:
        self.keeper.state_changed()
        self.apps.state_changed()
        self.vault_keeper.state_changed()

    def _hashes_told(self, name: str, beat: Heartbeat) -> None:
        self.comparison.hear(name, beat.hashes, reseeding=beat.reseeding)

    def replication(self, pull: Callable[[str], Awaitable[InstancesReply]]) -> Replication:
        """Of the nodes' instances, once a leader; `pull` asks a node for its own."""
        return Replication(
            cluster=self.voter,
            ttl=self._ttl,
            pull=pull,
            propose_timeout=self._timeout,
            request_prefix=self._request_prefix,
            clock=self.leader.now,
        )


class Memory:
    """What this node may tell of the replicated state: all on a control node; on a worker, which is told of parts only, None."""

    def __init__(self, voter: VoterLayer | None) -> None:
        self._voter = voter

    def keys(self) -> tuple[int, Mapping[str, KeyValue]] | None:
        """As of a log index."""
        if self._voter is None:
            return None
        state = self._voter.raft.state
        return state.index, state.keys

    def locks(self) -> tuple[int, Mapping[str, Lock]] | None:
        """As of a log index."""
        return None if self._voter is None else (self._voter.index, self._voter.locks)

    def state(self) -> tuple[State, History] | None:
        """And how it came about."""
        return None if self._voter is None else (self._voter.raft.state, self._voter.raft.history)

    def holds(self) -> Holds:
        """What our heartbeats tell of it."""
        return Holds() if self._voter is None else Holds(self._voter.claims, self._voter.reseeding)
