"""Operators' apps: changed where the leader is, read from any control node."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping

from msgspec.structs import replace

from hmcore.api import ChangeReply
from hmcore.apps.calls import (
    AppsReply,
    AppsRequest,
    DeployRequest,
    Moved,
    RebalanceReply,
    RebalanceRequest,
    RemoveRequest,
    RestartRequest,
    RollbackRequest,
    ScaleRequest,
)
from hmcore.apps.names import APP, APP_SAYS, SERVICE, SERVICE_SAYS
from hmcore.apps.records import Generation
from hmcore.apps.spec import AppSpec
from hmcore.errors import InvalidRequest, NotLeader
from hmcore.pki import Identity
from node_agent.consensus.statemachine.appcommands import PutApp, RestartApp, ScaleApp, StopApp
from node_agent.consensus.statemachine.state import State
from node_agent.orchestration.appplan import Cluster
from node_agent.orchestration.candidates import candidates, homes
from node_agent.orchestration.moving import next_moves
from node_agent.orchestration.scheduling.model import Move
from node_agent.platform.changes import Changes

MOST_REPLICAS = 10_000  # of a service
MOST_NOTE = 200  # characters


class Apps:
    """What is read: the replicated state as a control node holds it. `state` is None on a worker, which does not."""

    def __init__(
        self,
        me: str,
        changes: Changes,
        *,
        state: Callable[[], State | None],
        leader: Callable[[], str | None],
        barrier: Callable[[], Awaitable[None]],
        waits: Callable[[], Mapping[str, str]],
    ) -> None:
        """`barrier` returns once this node's state has all that was acknowledged before it was called. `waits`: by `app/service`, what the
        leader waits for."""
        self._me = me
        self._changes = changes
        self._state = state
        self._leader = leader
        self._barrier = barrier
        self._waits = waits

    async def deploy(self, request: DeployRequest, author: Identity) -> ChangeReply:
        """Raises what Changes.carry_out raises."""
        check_spec(request.name, request.spec)
        command = PutApp(name=request.name, spec=request.spec, expect=request.expect, note=request.note[:MOST_NOTE])
        return await self._changes.carry_out(command, request=request.id, author=author)

    async def rollback(self, request: RollbackRequest, author: Identity) -> ChangeReply:
        """Raises what Changes.carry_out raises."""
        if (before := self._changes.answered(request.id, author)) is not None:
            return before
        state = self._read()
        app = state.apps.get(request.name)
        if app is None:
            raise InvalidRequest(f"there is no app {request.name}")
        back = wanted_generation(state, request.name, request.to)
        command = PutApp(name=request.name, spec=back.spec, expect=app.generation, origin=back.number)
        return await self._changes.carry_out(command, request=request.id, author=author)

    async def scale(self, request: ScaleRequest, author: Identity) -> ChangeReply:
        """Raises what Changes.carry_out raises."""
        if not request.replicas:
            raise InvalidRequest("no service is named")
        for service, replicas in request.replicas.items():
            _check_replicas(service, replicas)
        command = ScaleApp(name=request.name, replicas=request.replicas)
        return await self._changes.carry_out(command, request=request.id, author=author)

    async def restart(self, request: RestartRequest, author: Identity) -> ChangeReply:
        """Raises what Changes.carry_out raises."""
        command = RestartApp(name=request.name, services=request.services)
        return await self._changes.carry_out(command, request=request.id, author=author)

    async def remove(self, request: RemoveRequest, author: Identity) -> ChangeReply:
        """Raises what Changes.carry_out raises."""
        return await self._changes.carry_out(StopApp(name=request.name), request=request.id, author=author)

    async def rebalance(self, request: RebalanceRequest, author: Identity) -> RebalanceReply:
        """Asked twice it moves more, but never too much at a time. Raises what Changes.carry_out raises, but for refusals: what was decided
        at the same moment comes first, and the rest when it is asked again."""
        self._changes.leading()
        state = self._read()
        if request.name and request.name not in state.apps:
            raise InvalidRequest(f"there is no app {request.name}")
        cluster = Cluster(candidates(state), homes=homes(state))
        moves = await asyncio.to_thread(next_moves, state, cluster, request.name)
        begun, later, waits, index = list(moves.now), list(moves.later), dict(moves.waits), state.index
        for command in () if request.dry else moves.commands:
            try:
                reply = await self._changes.carry_out(command, request=secrets.token_hex(16), author=author)
            except InvalidRequest as error:
                put_off = [move for move in begun if move.allocation.app == command.app]
                begun = [move for move in begun if move not in put_off]
                later += put_off
                waits[command.app] = error.message
            else:
                index = reply.index
        return RebalanceReply(index=index, moves=[*map(_moved, begun)], later=[*map(_moved, later)], waits=waits, absent=dict(moves.absent))

    async def list(self, request: AppsRequest) -> AppsReply:
        """Raises NotLeader on a worker, NoQuorum if it is to be consistent and cannot be."""
        if request.consistent:
            await self._barrier()
        state = self._read()
        apps = [app for name, app in sorted(state.apps.items()) if request.name in ("", name)]
        names = {app.name for app in apps}
        allocations = [each for _, each in sorted(state.allocations.items()) if each.app in names]
        ids = {each.id for each in allocations}
        told = (status for node in state.statuses.values() for status in node.allocations)
        return AppsReply(
            index=state.index,
            apps=apps,
            generations=_generations(state, request.name, {f"{app.name}@{app.generation}" for app in apps}),
            allocations=allocations,
            statuses={status.id: status for status in told if status.id in ids},
            waits={subject: why for subject, why in self._waits().items() if subject.partition("/")[0] in names},
            capacity={each.name: each.capacity for each in candidates(state) if each.open} if request.capacity else {},
        )

    def _read(self) -> State:
        found = self._state()
        if found is None:
            raise NotLeader(f"{self._me} is a worker and knows of no apps but its own replicas", leader=self._leader())
        return found


def _moved(move: Move) -> Moved:
    return Moved(allocation=move.allocation.id, source=move.allocation.node, target=move.node, reason=move.reason)


def wanted_generation(state: State, name: str, number: int) -> Generation:
    """The generation that an operator wants back; 0: the latest before the present one that was healthy. Raises InvalidRequest."""
    app = state.apps[name]
    if number:
        found = state.generations.get(f"{name}@{number}")
        if found is None:
            kept = sorted(each.number for each in state.generations.values() if each.app == name)
            raise InvalidRequest(
                f"{name} has no generation {number}; there are {', '.join(map(str, kept))}", fix=f"hmctl app history {name}"
            )
        return found
    present = state.generations[f"{name}@{app.generation}"].digest
    earlier = [each for each in state.generations.values() if each.app == name and each.reached and each.digest != present]
    if not earlier:
        raise InvalidRequest(f"{name} has no other generation that was healthy", fix=f"hmctl app history {name}")
    return max(earlier, key=lambda each: each.number)


def check_spec(name: str, spec: AppSpec) -> None:
    """What no compose file of ours can come to, whoever sends it. Raises InvalidRequest."""
    if not APP.fullmatch(name):
        raise InvalidRequest(f"{name[:80]!r} is no name of an app: {APP_SAYS}")
    if not spec.services:
        raise InvalidRequest(f"{name} has no services")
    for service, wanted in spec.services.items():
        if not SERVICE.fullmatch(service):
            raise InvalidRequest(f"{service[:80]!r} is no name of a service: {SERVICE_SAYS}")
        _check_replicas(service, wanted.replicas)
        if wanted.exclusive and (wanted.mode == "global" or wanted.replicas > 1):
            raise InvalidRequest(f"{service} is exclusive: never two of it run at a time")
        if unknown := sorted(set(wanted.depends_on) - set(spec.services)):
            raise InvalidRequest(f"{service} depends on {unknown[0]}, which is no service of {name}")
        if not wanted.container.image:
            raise InvalidRequest(f"{service} has no image")


def _generations(state: State, name: str, present: set[str]) -> list[Generation]:
    if name:
        return sorted((each for each in state.generations.values() if each.app == name), key=lambda each: each.number)
    return [_without_spec(state.generations[key]) for key in sorted(present) if key in state.generations]


def _without_spec(generation: Generation) -> Generation:
    """How many there shall be, and nothing of what they are made of."""
    services = {
        name: replace(spec, container=replace(spec.container, environment={}, labels={})) for name, spec in generation.spec.services.items()
    }
    return replace(generation, spec=AppSpec(services=services))


def _check_replicas(service: str, replicas: int) -> None:
    if not 0 <= replicas <= MOST_REPLICAS:
        raise InvalidRequest(f"{service}: {replicas} replicas; 0 to {MOST_REPLICAS}")
