"""Keeps the vault in order, on every control node: tells its key, opens the vault, and turns its key when it leads. keeping.py decides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager

from hmcore.apps.secrets import EnrolRequest, Vault
from hmcore.errors import HyperMeshError, LevelTooLow, SecretsLocked
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.effects.secrets import VAULT
from node_agent.consensus.statemachine.secretcommands import PutKeeper, TurnKey
from node_agent.consensus.statemachine.state import State
from node_agent.orchestration.proposing import Log, Pen
from node_agent.vault.holder import Holder
from node_agent.vault.keeping import Enrol, Open, Step, Turn, View, decide, lacking, wanted_keepers
from node_agent.vault.sealing import VaultKey, boxes_of, new_vault_key, rewrap
from node_agent.waiting import woken

RETRY = 2.0  # seconds after a step that failed: others may be starting
ANYWAY = 30.0  # seconds after which it is looked although nothing was heard

log = logging.getLogger(__name__)


def vault_of(state: State) -> Vault | None:
    return state.vault.get(VAULT)


class VaultKeeper:
    """`holder` holds the key; nothing else in the agent turns it."""

    def __init__(
        self,
        me: str,
        cluster: str,
        holder: Holder,
        *,
        state: Callable[[], State],
        voters: Callable[[], Collection[str]],
        leads: Callable[[], bool],
        log: Log,
        enrol: Callable[[EnrolRequest], Awaitable[object]],
        propose_timeout: float,
        request_prefix: Callable[[], str],
    ) -> None:
        """`leads`: whether this node leads and knows all that was decided before it did. `enrol` asks the leader, and raises
        HyperMeshError."""
        self._me = me
        self._cluster = cluster
        self._holder = holder
        self._state = state
        self._voters = voters
        self._leads = leads
        self._enrol = enrol
        self._pen = Pen(log, prefix=lambda: f"{request_prefix()}-vault", timeout=propose_timeout)
        self._news = asyncio.Event()
        self._seen: tuple[object, ...] = ()
        self._steady = asyncio.Lock()
        self._failure: str | None = None

    def state_changed(self) -> None:
        state = self._state()
        seen = (state.keepers, state.vault, state.nodes, state.level, state.configuration, self._leads())
        if any(new is not old for new, old in zip(seen, self._seen or (None,) * len(seen), strict=True)):
            self._seen = seen
            self._news.set()

    def poke(self) -> None:
        """The cluster has another leader, or other voters."""
        self._news.set()

    async def run(self) -> None:
        while True:
            self._news.clear()
            pause = await self.step()
            await woken(self._news, pause)

    async def step(self) -> float:
        """Take the next step, if there is one. Returns how long to sleep if nothing happens."""
        try:
            if (step := self._next()) is None:
                self._failure = None
                return ANYWAY
            await self._carry_out(step)
        except HyperMeshError as error:
            if error.message != self._failure:
                log.warning("the secrets' key: %s", error)
            self._failure = error.message
            return RETRY
        return 0.0

    def _next(self) -> Step | None:
        state = self._state()
        if state.level < levels.APPS:
            return None
        holder = self._holder
        view = View(
            me=self._me,
            public=holder.public,
            leads=self._leads(),
            voters=self._voters(),
            keepers=state.keepers,
            vault=vault_of(state),
            opened=holder.opened,
        )
        return decide(view)

    async def _carry_out(self, step: Step) -> None:
        match step:
            case Enrol() if self._leads():
                await self._write(PutKeeper(node=self._me, public=self._holder.public))
            case Enrol():
                await self._enrol(EnrolRequest(public=self._holder.public))
            case Open():
                await self._holder.key()
            case Turn(keepers=keepers, lost=False):
                async with self._steady:
                    await self._turn(keepers, is_lost=False)
            case Turn(keepers=keepers):
                async with self._steady:
                    if await self._holder.is_held_by_nobody():
                        await self._turn(keepers, is_lost=True)
                    else:
                        await self._holder.key()

    async def _turn(self, keepers: dict[str, bytes], *, is_lost: bool) -> None:
        state = self._state()
        before = vault_of(state)
        basis = 0 if before is None else before.epoch
        new = new_vault_key(basis + 1)
        wraps: dict[str, bytes] = {}
        if before is not None and not is_lost:
            old = await self._holder.key()
            wraps = {key: rewrap(old, new, secret) for key, secret in state.secrets.items() if secret.wrapped}
        boxes = boxes_of(self._cluster, new, keepers)
        await self._write(TurnKey(basis=basis, keepers=keepers, boxes=boxes, wraps=wraps, lost=is_lost))
        now = vault_of(self._state())
        if now is not None and now.boxes == boxes:
            self._holder.keep(new)
        log.info("key %d of the secrets is sealed for %s", new.epoch, ", ".join(keepers))

    async def _write(self, command: PutKeeper | TurnKey) -> None:
        """Raises HyperMeshError."""
        if (failure := await self._pen.write([command])) is not None:
            raise HyperMeshError(failure)

    async def admit(self, node: str, public: bytes) -> None:
        """A control node's key, by its own word. This node leads. Raises HyperMeshError."""
        await self._write(PutKeeper(node=node, public=public))

    @asynccontextmanager
    async def key(self) -> AsyncIterator[VaultKey]:
        """The vault's key, which is not turned meanwhile; the vault is made if there is none. This node leads.

        Raises LevelTooLow, SecretsLocked, HyperMeshError.
        """
        async with self._steady:
            state = self._state()
            if state.level < levels.APPS:
                raise LevelTooLow(f"secrets need feature level {levels.APPS}, the cluster is at {state.level}", fix="hmctl deploy")
            if vault_of(state) is None:
                await self._turn(self._first_keepers(state), is_lost=False)
            yield await self._holder.key()

    def _first_keepers(self, state: State) -> dict[str, bytes]:
        voters = self._voters()
        keepers = wanted_keepers(voters, state.keepers)
        if missing := lacking(voters, keepers):
            raise SecretsLocked(
                f"{', '.join(missing)} told no key yet: with so few control nodes, a secret could be lost",
                host=self._me,
                fix="hmctl status",
            )
        return keepers
