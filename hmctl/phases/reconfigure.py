"""Other settings for a running cluster: node by node, each healthy before the next; and all of it taken back when one does not come back.

A change is written, the agent restarted, and then everybody who was healthy before must be so again. Where that fails, on whatever node,
and when the operator interrupts, every node that was touched gets its previous file again, byte for byte, and is restarted with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from hmcore.errors import HyperMeshError, Interrupted, Unreachable
from hmctl import layout
from hmctl.facts.gather import HostFacts
from hmctl.phases import configure
from hmctl.phases.agents import Agents
from hmctl.phases.healthy import Ailments, wait_healthy, wait_steady
from hmctl.phases.hostlock import Locks
from hmctl.phases.rolling import in_order
from hmctl.phases.runner import Progress, Timings
from hmctl.phases.start import restart
from hmctl.remote.base import Remote, Script, check, put
from hmctl.text import listed

if TYPE_CHECKING:
    from hmcore.config.inventory import Host

TITLE = "Change settings"
LAST_WORDS = Script("hm-last-words", 'journalctl -u "$1" -n 40 -o cat --no-pager 2>/dev/null | grep -v "^$" | tail -n "$2"')
_LINES = 6  # of its journal: enough to see why
_BRIEF = 30.0  # seconds for a command that does little

# What a node was left with: nothing was done; the new settings; the previous ones again; nobody can say.
State = Literal["untouched", "changed", "restored", "stuck"]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What one node gets, beside what it has. `words`: the differences, for people; none when only a restart is due. `restart`: false
    where the agent runs with this already, and only the file says otherwise."""

    host: Host
    facts: HostFacts
    config: bytes
    unit: bytes
    words: tuple[str, ...]
    restart: bool

    @property
    def name(self) -> str:
        return self.host.name


@dataclass(slots=True)
class Fate:
    """What became of a node. `stage`: how far its change went, for whoever must take it back."""

    state: State = "untouched"
    stage: Literal["none", "written", "started"] = "none"
    error: HyperMeshError | None = None  # why its change failed
    stuck: HyperMeshError | None = None  # why it could not be taken back
    put_back: bool = False  # its previous files are there again
    log: tuple[str, ...] = ()

    @property
    def unsure(self) -> bool:
        """Whether nobody knows that its agent works: its change, or its return, was begun and not ended."""
        return self.state in ("untouched", "stuck") or (self.state == "changed" and self.put_back)


def order(rewrites: Sequence[Rewrite], leader: str | None, workers_at_once: int) -> list[list[Rewrite]]:
    """Workers by batches first: the cluster can spare one best if the settings are no good. Then the followers, then the leader. Pure."""
    control, workers = in_order(rewrites, leader, workers_at_once)
    return workers + control


@dataclass(slots=True)
class Reconfiguration:
    """One roll through the cluster. `limit`: how long an agent may take to start, `patience`: how long the cluster may take to be
    healthy again, `soak`: how long it must then stay so (seconds). `before`: what each node complained of before: with more than that it
    did not come back healthy. `again` opens another connection to a host that was lost. `locks`: of
    the hosts, held by the caller where it can."""

    remotes: dict[str, Remote]
    agents: Agents
    progress: Progress
    timings: Timings
    again: Callable[[Host], Awaitable[Remote]]
    locks: Locks
    at_once: int
    limit: float
    patience: float
    soak: float
    before: Mapping[str, Ailments] = field(default_factory=dict)
    fates: dict[str, Fate] = field(default_factory=dict)
    undone: bool = False  # something was taken back, or it was tried

    async def roll(self, batches: Sequence[Sequence[Rewrite]], guarded: Sequence[Host]) -> str | None:
        """Carries the change out. Returns why it was taken back, or None. When cancelled, or by a mistake of hmctl itself, takes back what
        was changed and goes; also when that comes while it is being taken back for another reason: then it goes on with the rest."""
        touched: list[Rewrite] = []
        self.fates = {rewrite.name: Fate() for batch in batches for rewrite in batch}
        try:
            for batch in batches:
                touched += batch
                with self.timings.span(TITLE, listed([rewrite.name for rewrite in batch])):
                    why = await self._batch(batch, guarded)
                if why is not None:
                    await self._give_up(batch)
                    await self._take_back(touched, guarded)
                    return why
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and any(self.fates[rewrite.name].stage != "none" for rewrite in touched):
                self.progress.phase("interrupted: taking back what was changed; interrupt again to leave it as it is")
            await self._take_back_at_last(touched, guarded)
            raise
        return None

    async def _batch(self, batch: Sequence[Rewrite], guarded: Sequence[Host]) -> str | None:
        gate = asyncio.Semaphore(self.at_once)

        async def one(rewrite: Rewrite) -> None:
            async with gate:
                await self._change(rewrite)

        async with asyncio.TaskGroup() as group:
            for rewrite in batch:
                group.create_task(one(rewrite), name=f"change {rewrite.name}")
        failed = [f"{name}: {error.message}" for name in (rewrite.name for rewrite in batch) if (error := self.fates[name].error)]
        if failed:
            return "; ".join(failed)
        for rewrite in batch:
            self.progress.update(rewrite.name, "waiting until it and the cluster are healthy")
        names = {rewrite.name for rewrite in batch}
        before = {host.name: self.before[host.name] for host in guarded if host.name in names & self.before.keys()}
        verdict = await wait_steady(guarded, self.agents, timeout=self.patience, soak=self.soak, before=before)
        if verdict.waiting:
            for name in names & verdict.waiting.keys() or names:
                reason = verdict.waiting.get(name) or "; ".join(f"{other}: {said}" for other, said in verdict.waiting.items())
                self.fates[name].error = HyperMeshError(reason, host=name, fix=f"hmctl logs {name}")
            return "; ".join(f"{name}: {reason}" for name, reason in verdict.waiting.items())
        for name, found in verdict.worse.items():
            reason = "; ".join(check.reason or check.name for check in found.values())
            fix = next((check.fix for check in found.values() if check.fix), None)
            self.fates[name].error = HyperMeshError(reason, host=name, fix=fix or f"hmctl node inspect {name}")
        if verdict.worse:
            return "; ".join(f"{name}: {error.message}" for name in verdict.worse if (error := self.fates[name].error))
        for rewrite in batch:
            self.fates[rewrite.name].state = "changed"
            self.progress.finish(rewrite.name, "runs with the new settings")
        return None

    async def _change(self, rewrite: Rewrite) -> None:
        fate, remote, agent = self.fates[rewrite.name], self.remotes[rewrite.name], rewrite.facts.agent
        try:
            async with self.locks.turn(rewrite):
                self.progress.update(rewrite.name, "writing its configuration")
                fate.stage = "written"
                if rewrite.config != agent.config:
                    await configure.write(remote, rewrite.config, present=agent.config)
                if rewrite.unit != agent.unit_file or agent.unit.stale:
                    await _write_unit(remote, rewrite.unit)
                if rewrite.restart:
                    self.progress.update(rewrite.name, "restarting the agent")
                    fate.stage = "started"
                    await restart(rewrite, remote, self.limit)
        except HyperMeshError as error:
            error.host = error.host or rewrite.name
            fate.error = error

    async def _give_up(self, batch: Sequence[Rewrite]) -> None:
        """Asks the agents that failed for their last words, before they are started anew and say other things."""
        for rewrite in batch:
            fate = self.fates[rewrite.name]
            if fate.error is not None:
                self.progress.finish(rewrite.name, "did not come back healthy", outcome="failed")
                try:
                    said = await self._last_words(rewrite)
                except HyperMeshError as error:
                    fate.log = (f"its journal cannot be read: {error.message}",)
                else:
                    fate.log = tuple(said.decode(errors="replace").splitlines())

    async def _last_words(self, rewrite: Rewrite) -> bytes:
        argv = LAST_WORDS.argv(layout.UNIT, str(_LINES))
        try:
            return await check(self.remotes[rewrite.name], argv, timeout=_BRIEF)
        except Unreachable:
            return await check(await self._anew(rewrite), argv, timeout=_BRIEF)

    async def _take_back_at_last(self, touched: Sequence[Rewrite], guarded: Sequence[Host]) -> None:
        """Nobody tries again after this: what it does not get to stays as it is."""
        try:
            await self._take_back(touched, guarded)
        except BaseException:
            for rewrite in touched:
                fate = self.fates[rewrite.name]
                if fate.stage != "none" and fate.state not in ("restored", "stuck"):
                    self._stuck(rewrite.name, Interrupted("interrupted while it was taken back", host=rewrite.name))
            raise

    async def _take_back(self, touched: Sequence[Rewrite], guarded: Sequence[Host]) -> None:
        """Previous files for all that were touched, node by node, the leader last; one that fails does not keep the others waiting. Once
        more after it was cut short: what is restored already is left alone, and awaited like the others."""
        begun = [rewrite for rewrite in touched if self.fates[rewrite.name].stage != "none"]
        if not begun:
            return
        self.undone = True
        unsure = {rewrite.name for rewrite in touched if self.fates[rewrite.name].unsure}
        settled = [host for host in guarded if host.name not in unsure]
        before = await wait_healthy(settled, self.agents, timeout=self.patience, grace=0.0)  # an election may be under way
        due = [rewrite for rewrite in begun if self.fates[rewrite.name].state != "restored"]
        sick = [rewrite for rewrite in due if rewrite.name in unsure | before.waiting.keys()]  # costs nothing to restart
        well = [rewrite for rewrite in due if rewrite not in sick]
        awaited = {host.name: host for host in settled if host.name not in before.waiting}
        for rewrite in [*sick, *(one for batch in order(well, before.leader, 1) for one in batch)]:
            awaited[rewrite.name] = rewrite.host
            with self.timings.span("Take back", rewrite.name):
                # Without a leader nobody gets healthy by himself: put everything back, and look at the end.
                await self._restore(rewrite, list(awaited.values()) if before.leader else [])
            if self.fates[rewrite.name].state == "stuck":
                del awaited[rewrite.name]
        back = [rewrite for rewrite in begun if self.fates[rewrite.name].state == "restored"]
        if unseen := [rewrite.host for rewrite in back if not before.leader or rewrite not in due]:
            verdict = await wait_healthy(unseen, self.agents, timeout=self.patience, grace=0.0)
            for name, reason in verdict.waiting.items():
                self._stuck(name, HyperMeshError(f"not healthy with its previous settings: {reason}", host=name))

    async def _restore(self, rewrite: Rewrite, awaited: Sequence[Host]) -> None:
        name, fate = rewrite.name, self.fates[rewrite.name]
        self.progress.update(name, "putting its previous settings back")
        try:
            remote = await self._put_back(rewrite)
            fate.put_back = True
            if fate.stage == "started":
                self.progress.update(name, "restarting the agent with its previous settings")
                try:
                    await restart(rewrite, remote, self.limit)
                except Unreachable:  # and whether it was restarted is not known
                    await restart(rewrite, await self._anew(rewrite), self.limit)
                verdict = await wait_healthy(awaited, self.agents, timeout=self.patience, grace=0.0)
                if name in verdict.waiting:
                    raise HyperMeshError(f"not healthy with its previous settings: {verdict.waiting[name]}", host=name)
        except HyperMeshError as error:
            self._stuck(name, error)
        else:
            fate.state, fate.stuck = "restored", None
            self.progress.finish(name, "runs with its previous settings again", outcome="warning")

    def _stuck(self, name: str, error: HyperMeshError) -> None:
        fate = self.fates[name]
        fate.state, fate.stuck = "stuck", error
        self.progress.finish(name, f"not taken back: {error.message}", outcome="failed")

    async def _put_back(self, rewrite: Rewrite) -> Remote:
        """Its previous files. Over another connection where this one is lost: that may be what failed."""
        try:
            await _previous(rewrite, self.remotes[rewrite.name])
        except HyperMeshError:
            await _previous(rewrite, await self._anew(rewrite))
        return self.remotes[rewrite.name]

    async def _anew(self, rewrite: Rewrite) -> Remote:
        """Another connection to a host."""
        try:
            async with asyncio.timeout(_BRIEF):
                self.remotes[rewrite.name] = await self.again(rewrite.host)
        except TimeoutError:
            raise Unreachable(f"no connection within {_BRIEF:g} s", host=rewrite.name) from None
        return self.remotes[rewrite.name]


async def _previous(rewrite: Rewrite, remote: Remote) -> None:
    agent = rewrite.facts.agent
    if agent.config is not None and rewrite.config != agent.config:
        await put(remote, agent.config, layout.CONFIG, mode=0o644)
    if agent.unit_file is not None and rewrite.unit != agent.unit_file:
        await _write_unit(remote, agent.unit_file)


async def _write_unit(remote: Remote, unit: bytes) -> None:
    await put(remote, unit, layout.UNIT_FILE, mode=0o644)
    await check(remote, ["systemctl", "daemon-reload"], timeout=60.0)
