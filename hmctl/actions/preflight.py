"""Preflight: can this run of deploy begin at all? Connects, asks, compares and tries; nothing is changed on any host.

look        who is there, whose are they, are they fit for a node, do they reach each other?
formation   was the cluster formed already, whoever did that?
unsafe      would nodes that run meet settings that must not meet theirs?
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from hmcore.config.mixtures import meeting
from hmcore.records import Role
from hmctl.actions.hosts import Hosts, Options
from hmctl.actions.refusal import unsafe
from hmctl.live import Progress
from hmctl.output import Output
from hmctl.phases import electorate, formed, hostlock, level, ownership, probe
from hmctl.phases.agents import Agents
from hmctl.phases.connect import Reached, reach
from hmctl.phases.electorate import Electorate, Shift
from hmctl.phases.healthy import PATIENCE
from hmctl.phases.runner import Timings
from hmctl.phases.validate import Check, validate
from hmctl.remote.base import FirstContact, Remote
from hmctl.render import edited
from hmctl.text import listed, plural

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, Inventory
    from hmcore.config.settings import Settings
    from hmctl.facts.gather import HostFacts
    from hmctl.state import OperatorStore


@dataclass(frozen=True, slots=True)
class Preflight:
    """Of one run of deploy, whose collaborators these are."""

    inventory: Inventory
    store: OperatorStore
    hosts: Hosts
    agents: Callable[[OperatorStore, Mapping[str, Remote]], Agents]
    output: Output
    options: Options
    timings: Timings
    now: Callable[[], datetime]

    async def look(self, chosen: Sequence[Host]) -> tuple[Reached, list[Check]]:
        """Who could be reached, and the preflight table. Raises UsageError and Interrupted where strangers are met."""
        reached = Reached()
        with self.output.progress(hosts=len(chosen)) as progress:
            await self._reach(chosen, reached, progress)
            return reached, await self._examine(chosen, reached, progress)

    async def formation(self, chosen: Sequence[Host], reached: Reached) -> formed.Known:
        """By our own records, or else by what the agents say that run already; a dry run does not write it down."""
        store = self.store
        if store.formed_at is not None:
            return formed.Known(formed=True)
        if not store.has_authority() or (bootstrap := store.known_bootstrap) is None:
            return formed.Known()
        names = {host.name for host in chosen}
        idle = {name for name in names if name not in reached.facts or not reached.facts[name].agent.journal}
        asked = [host for host in self.inventory.control_hosts if host.name not in idle]
        if not asked:
            return formed.Known()
        agents = self.agents(store, reached.remotes)
        try:
            with self.timings.span("Ask who runs"):
                known = formed.known(bootstrap, await agents.formation(asked, timeout=PATIENCE))
        finally:
            await agents.close()
        if known.formed and not self.options.dry_run:
            store.mark_formed(self.now())
        return known

    async def level(self, chosen: Sequence[Host], reached: Reached) -> int | None:
        """The feature level in force, by the control nodes that run; None where none tells."""
        names = {host.name for host in chosen if host.name in reached.facts and reached.facts[host.name].agent.unit.active == "active"}
        asked = [host for host in self.inventory.control_hosts if host.name in names]
        if not asked:
            return None
        agents = self.agents(self.store, reached.remotes)
        try:
            with self.timings.span("Ask for the level"):
                return level.in_force(await agents.formation(asked, timeout=PATIENCE))
        finally:
            await agents.close()

    async def electorate(self, reached: Reached) -> Electorate | None:
        """Who votes, by the leader's word; None where nobody leads, or tells."""
        asked = [host for host in self.inventory.hosts if self._may_vote(host, reached)]
        if not asked:
            return None
        agents = self.agents(self.store, reached.remotes)
        try:
            with self.timings.span("Ask who votes"):
                return electorate.told(await agents.raft(asked, timeout=PATIENCE))
        finally:
            await agents.close()

    def _may_vote(self, host: Host, reached: Reached) -> bool:
        """Whatever its role shall be: it runs as a control node by its file, or was one when we saw it last."""
        if host.name in reached.facts:
            facts = reached.facts[host.name]
            config = ownership.config_of(facts)
            return facts.agent.unit.running and (config is None or config.role is Role.CONTROL)
        return host.role is Role.CONTROL or host.name in {place.name for place in self.store.voters or ()}

    def voters(self, now: Electorate | None, change: Shift, reached: Reached) -> list[Check]:
        """Why the voters of the formed cluster cannot become the control nodes of the inventory; empty where they can, or are."""
        places = self.store.voters
        configs = {name: ownership.config_of(facts) for name, facts in reached.facts.items()}
        names = {place.name for place in places or ()}
        names |= {name for name, config in configs.items() if config is not None and config.role is Role.CONTROL}
        if places is None:
            known = [config for name, config in configs.items() if config is not None and reached.facts[name].agent.journal]
            names |= {voter.name for config in known for voter in config.voters}
        return list(electorate.examine(self.inventory, now, change, names))

    async def unsafe(self, chosen: Sequence[Host], reached: Reached) -> list[Check]:
        """Settings that agents which run must not meet, as config apply refuses them. Whoever does not run starts with the new ones; and
        what somebody wrote into a file by hand is undone, whatever it was. Those that are left out keep theirs: they are asked if it
        matters."""
        names, wanted = {host.name for host in chosen}, self.inventory.settings
        mine = {name: facts for name, facts in reached.facts.items() if name in names and not edited(facts.agent.config or b"")}
        present = list(_running(mine).values())
        others: dict[str, Settings] = {}
        unknown: list[str] = []
        left_out = [host for host in self.inventory.hosts if host.name not in names]
        if left_out and meeting(present, wanted):
            others, unknown = await self._settings_of(left_out, reached)
        found = [
            Check(None, refusal.path, "error", f"{refusal.path}: {refusal.message}", refusal.fix)
            for refusal in unsafe(present, wanted, others)
        ]
        if unknown:
            message = f"nobody knows whether the settings of {listed(unknown)}, left out, go with the new ones: out of reach"
            found.append(Check(None, "settings", "warn", message, "hmctl config diff, once they are back"))
        return found

    # inside

    async def _settings_of(self, hosts: Sequence[Host], reached: Reached) -> tuple[dict[str, Settings], list[str]]:
        """What agents on `hosts` run with, by name; and the hosts that could not be asked."""
        more = Reached()
        unseen = [host for host in hosts if host.name not in reached.facts]
        with self.output.progress(hosts=len(unseen)) as progress:
            await reach(unseen, self.hosts.connect, more, progress, self.timings, at_once=self.options.at_once)
        names = {host.name for host in hosts}
        facts = {name: known for name, known in (reached.facts | more.facts).items() if name in names}
        return _running(facts), [host.name for host in hosts if host.name not in facts]

    async def _reach(self, chosen: Sequence[Host], reached: Reached, progress: Progress) -> None:
        """Connects and gathers facts. Without a CA here, also from hosts that are not to be changed: the cluster may exist already."""
        wanted = list(chosen) if self.store.has_authority() else list(self.inventory.hosts)
        at_once = self.options.at_once
        await reach(wanted, self.hosts.connect, reached, progress, self.timings, at_once=at_once)
        strangers = {name: error for name, error in reached.lost.items() if isinstance(error, FirstContact)}
        if strangers:
            contacts = {contact.line: contact for contact in strangers.values()}
            for contact in contacts.values():
                self.output.warn(f"first contact with {contact.place}: its SSH host key is {contact.fingerprint}")
            question = f"Are these the keys of {plural(len(contacts), 'host')}, as far as you know?"
            fix = "compare them, then give --yes: " + ("for this run they are accepted" if self.options.dry_run else "they are pinned")
            self.output.confirm(question, yes=self.options.yes, fix=fix)
            for contact in contacts.values():
                self.hosts.trust(contact)
            again = [host for host in wanted if host.name in strangers]
            reached.lost = {name: error for name, error in reached.lost.items() if name not in strangers}
            await reach(again, self.hosts.connect, reached, progress, self.timings, at_once=at_once)

    async def _examine(self, chosen: Sequence[Host], reached: Reached, progress: Progress) -> list[Check]:
        """The preflight table: whose the hosts are, what they are, and whether they reach each other."""
        store = self.store
        ca = store.ca_certificate() if store.has_authority() else None
        owner = ownership.Owner(ca, store.bootstrap() if ca else None, store.formed_at is not None, store.voters)
        checks = ownership.examine(self.inventory, owner, reached.facts)
        checks += validate(self.inventory, chosen, reached.facts)
        if not ownership.failed(checks):
            checks += await self._probe(chosen, reached, progress)
        for name in reached.facts:
            mine = [check for check in checks if check.host == name and check.status != "ok"]
            worst = "failed" if ownership.failed(mine) else "warning" if mine else "ok"
            text = {"failed": "not fit for a node, see below", "warning": "usable, see below", "ok": "checks passed"}[worst]
            progress.finish(name, text, outcome=worst)  # type: ignore[arg-type]  # mypy joins the literals to str
        return checks

    async def _probe(self, chosen: Sequence[Host], reached: Reached, progress: Progress) -> list[Check]:
        known = [host for host in chosen if host.name in reached.facts]
        room = hostlock.room(known, self.options.at_once)
        if room == 1 < len(known) and probe.plan(known, reached.facts):
            message = "whether the hosts reach each other was not tried: that takes two SSH connections at the same time"
            return [Check(None, "network", "warn", message, "give --concurrency 2, or more")]
        plans = [probe.plan(group, reached.facts) for group in probe.groups(known, room)]
        found = []
        for attempts in filter(None, plans):
            for attempt in attempts:
                progress.update(attempt.host.name, "trying the way to the other hosts")
            with self.timings.span("Probe network"):
                found.append(await probe.probe(attempts, reached.remotes))
        return probe.together(found, len(known)) if found else []


def _running(facts: Mapping[str, HostFacts]) -> dict[str, Settings]:
    """What the agents that run were started with, as far as it can be read."""
    configs = {name: ownership.config_of(known) for name, known in facts.items() if known.agent.unit.running}
    return {name: config.settings for name, config in configs.items() if config is not None}
