"""What the inventory says and the nodes do not run with yet: setting by setting, node by node. Pure.

Settings, labels, whether a node runs apps, and the preset's name are configuration: `hmctl config apply` brings them to a running cluster.
Everything else that agent.yaml holds says who a node is, and is deploy's business: it is named here and left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hmcore.config.agent import AgentConfig, agent_config_for, parse_agent_config
from hmcore.config.catalogue import catalogue, value_at
from hmcore.config.mixtures import meeting
from hmcore.config.settings import Settings
from hmcore.config.targets import PYTHON
from hmcore.errors import ConfigError, HyperMeshError
from hmctl import layout
from hmctl.actions.refusal import Refusal, unsafe
from hmctl.facts.agent import checksum
from hmctl.facts.gather import HostFacts
from hmctl.phases.configure import differences, spelled
from hmctl.phases.ownership import cluster_of
from hmctl.phases.reconfigure import Rewrite
from hmctl.render import Renderer, edited

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, Inventory

DEPLOY = "hmctl deploy"
VOTERS = "voters "  # how the words begin that say which control nodes a file names
_TIMEOUT = re.compile(rb"^TimeoutStartSec=.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Change:
    """`path` as in the inventory: `settings.raft.heartbeat`, `labels.zone`, `apps`, `preset`. None: there is none."""

    path: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.path} {spelled(self.old)} -> {spelled(self.new)}"


@dataclass(frozen=True, slots=True)
class NodeDiff:
    """`changes`: its file against the inventory. `drift`: what somebody did behind hmctl's back. `elsewhere`: differences that are
    deploy's business. `restart`: its agent must be restarted to run with what the inventory says. `running`: whether it runs at all."""

    name: str
    status: Literal["same", "differs", "new", "unreadable", "unreachable"]
    changes: tuple[Change, ...] = ()
    drift: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    restart: bool = False
    running: bool | None = None
    error: str | None = None
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigDiff:
    """`common`: changes that every node that could be compared has; they stand in `nodes[].changes`, too. `unasked`: nodes that are left
    out and run with settings which the new ones must go with, but nobody knows which: why, by name."""

    cluster: str
    changed: bool
    common: tuple[Change, ...]
    nodes: tuple[NodeDiff, ...]
    refusals: tuple[Refusal, ...]
    unasked: Mapping[str, str] = field(default_factory=dict)

    def exit_code(self, *, detailed: bool) -> int:
        """Design section 10."""
        if not any(node.status in ("same", "differs") for node in self.nodes):
            return 1
        if self.unasked or any(node.status in ("unreachable", "unreadable") for node in self.nodes):
            return 3
        return 10 if detailed and self.changed else 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """The document, and what apply would do: `rewrites` by node, only of nodes where something is to be done. `meets_others`: it must go
    with what every other node runs with."""

    diff: ConfigDiff
    rewrites: Mapping[str, Rewrite]
    meets_others: bool


def compare(
    inventory: Inventory,
    hosts: Sequence[Host],
    facts: Mapping[str, HostFacts],
    lost: Mapping[str, HyperMeshError],
    bootstrap: str | None,
    renderer: Renderer,
    others: Sequence[Host] = (),
) -> Comparison:
    """Every one of `hosts` against the inventory; and whether the change goes with what `others` run with, which stay as they are."""
    nodes, rewrites, present, refusals = list[NodeDiff](), dict[str, Rewrite](), list[AgentConfig](), list[Refusal]()
    for host in hosts:
        if host.name not in facts:
            error = lost.get(host.name)
            message, fix = (error.message, error.fix) if error else ("it was not asked", None)
            nodes.append(NodeDiff(host.name, "unreachable", error=message, fix=fix))
            continue
        known = facts[host.name]
        config, why_not = _present(inventory, host, known, bootstrap, renderer)
        if config is None:
            nodes.append(why_not)
            continue
        present.append(config)
        node, rewrite, why = _node(inventory, host, known, config, bootstrap, renderer)
        nodes.append(node)
        refusals += why
        if rewrite is not None:
            rewrites[host.name] = rewrite
    compared = [node for node in nodes if node.status in ("same", "differs")]
    common = tuple(change for change in compared[0].changes if all(change in node.changes for node in compared)) if compared else ()
    settings = [config.settings for config in present]
    staying, unasked = _staying(inventory, others, facts, lost, bootstrap, renderer)
    refusals += unsafe(settings, inventory.settings, staying)
    diff = ConfigDiff(inventory.name, bool(rewrites) or bool(refusals), common, tuple(nodes), tuple(refusals), unasked)
    return Comparison(diff, rewrites, meeting(settings, inventory.settings))


def _staying(
    inventory: Inventory,
    others: Sequence[Host],
    facts: Mapping[str, HostFacts],
    lost: Mapping[str, HyperMeshError],
    bootstrap: str | None,
    renderer: Renderer,
) -> tuple[dict[str, Settings], dict[str, str]]:
    """What nodes that are left out run with, and of whom that is not known, and why. A new host has no settings to meet."""
    staying, unasked = dict[str, Settings](), dict[str, str]()
    for host in others:
        if host.name not in facts:
            unasked[host.name] = lost[host.name].message if host.name in lost else "it was not asked"
            continue
        config, why_not = _present(inventory, host, facts[host.name], bootstrap, renderer)
        if config is not None:
            staying[host.name] = config.settings
        elif why_not.status != "new":
            unasked[host.name] = why_not.error or why_not.status
    return staying, unasked


def _present(
    inventory: Inventory, host: Host, facts: HostFacts, bootstrap: str | None, renderer: Renderer
) -> tuple[AgentConfig | None, NodeDiff]:
    """What the node's file says; or why there is nothing to compare."""
    name = facts.name
    if facts.agent.config is None:
        return None, NodeDiff(name, "new", error="it has no agent yet", fix=DEPLOY)
    if (cluster := cluster_of(facts)) not in (None, inventory.id):
        return None, NodeDiff(name, "unreadable", error=f"it belongs to another cluster, {cluster}", fix="take it out of the inventory")
    try:
        return parse_agent_config(facts.agent.config, layout.CONFIG), NodeDiff(name, "same")
    except ConfigError as error:
        first = f"{error.problems[0]}{f' (and {more} more)' if (more := len(error.problems) - 1) else ''}"
        runs = "; its agent still runs with what was there before" if facts.agent.unit.running else ""
        message = f"its file was changed, and no agent would start with it{runs}: {first}"
        unlike = _in_words(inventory, host, facts, bootstrap, renderer)
        return None, NodeDiff(name, "unreadable", drift=unlike, error=message, fix=f"{DEPLOY} writes it anew")


def _in_words(inventory: Inventory, host: Host, facts: HostFacts, bootstrap: str | None, renderer: Renderer) -> tuple[str, ...]:
    """How the text of a file that cannot be understood differs from what deploy would write."""
    meant = renderer.agent_yaml(agent_config_for(inventory, host, bootstrap or ""))
    found = differences(facts.agent.config or b"", meant)
    return tuple(found if bootstrap else [line for line in found if not line.startswith("bootstrap ")])


def _node(
    inventory: Inventory, host: Host, facts: HostFacts, config: AgentConfig, bootstrap: str | None, renderer: Renderer
) -> tuple[NodeDiff, Rewrite | None, tuple[Refusal, ...]]:
    agent, meant = facts.agent, agent_config_for(inventory, host, bootstrap or config.bootstrap)
    changes = tuple(_changes(config, meant))
    # Who the node is stays as it stands in its file; and so does the port, which no setting can move.
    port = config.settings.transport.port
    settings = meant.settings.model_copy(update={"transport": meant.settings.transport.model_copy(update={"port": port})})
    wanted = config.model_copy(update={"settings": settings, "preset": meant.preset, "labels": meant.labels, "apps": meant.apps})
    by_hand = edited(agent.config or b"")
    file = renderer.agent_yaml(wanted) if changes or by_hand else agent.config or b""
    python = facts.python.executable if facts.python else PYTHON
    unit, elsewhere, refusals = agent.unit_file or b"", list(_elsewhere(config, _unmoved(config, meant))), tuple[Refusal, ...]()
    if _timeless(unit) == _timeless(renderer.unit(config, python)):
        unit = renderer.unit(wanted, python)  # initialization_timeout stands there, too
    else:
        elsewhere.append("its unit is not the one that this hmctl writes")
        if settings.initialization_timeout != config.settings.initialization_timeout:
            why = f"the unit of {host.name} bounds the start, too, and is not the one that this hmctl writes"
            refusals = (Refusal("settings.initialization_timeout", why, DEPLOY),)
    words = tuple(map(str, changes)) or (("the file as hmctl writes it",) if by_hand else ())
    if unit != agent.unit_file:
        words += (f"{layout.UNIT}: TimeoutStartSec",)
    wished = {layout.CONFIG: file, layout.UNIT_FILE: unit}
    outdated = agent.unit.running and any(agent.started.get(path) != checksum(content) for path, content in wished.items())
    rewrite = Rewrite(host, facts, file, unit, words, outdated) if words or outdated else None
    status: Literal["same", "differs"] = "differs" if rewrite is not None else "same"
    drift = tuple(_drift(facts, file))
    return NodeDiff(host.name, status, changes, drift, tuple(elsewhere), outdated, agent.unit.running), rewrite, refusals


def _timeless(unit: bytes) -> bytes:
    """A unit but for the one line that a setting decides: an apply that was cut short may have left it behind its agent.yaml."""
    return _TIMEOUT.sub(b"", unit)


def _changes(present: AgentConfig, meant: AgentConfig) -> Iterator[Change]:
    if present.preset != meant.preset:
        yield Change("preset", present.preset, meant.preset)
    for setting in catalogue():
        old, new = value_at(present.settings, setting.path), value_at(meant.settings, setting.path)
        if setting.effect == "restart" and old != new:
            yield Change(f"settings.{setting.path}", old, new)
    for key in sorted(present.labels.keys() | meant.labels.keys()):
        was, shall = present.labels.get(key), meant.labels.get(key)
        if was != shall:
            yield Change(f"labels.{key}", was, shall)
    if present.apps != meant.apps:
        yield Change("apps", present.apps, meant.apps)


def _unmoved(present: AgentConfig, meant: AgentConfig) -> AgentConfig:
    """`meant` without what follows from another settings.transport.port alone: that is refused as a whole, and no business of deploy's."""
    old, new = present.settings.transport.port, meant.settings.transport.port
    ports = {voter.name: voter.port for voter in present.voters} | {present.node: present.port}

    def port(name: str, wanted: int) -> int:
        return old if wanted == new and ports.get(name) == old else wanted

    voters = tuple(voter.model_copy(update={"port": port(voter.name, voter.port)}) for voter in meant.voters)
    return meant.model_copy(update={"port": port(meant.node, meant.port), "voters": voters})


def _elsewhere(present: AgentConfig, meant: AgentConfig) -> Iterator[str]:
    for name in ("cluster_name", "role", "address", "port", "bootstrap"):
        old, new = getattr(present, name), getattr(meant, name)
        if old != new:
            yield f"{name} {old} -> {new}"
    if set(present.voters) != set(meant.voters):
        yield f"{VOTERS}{_voters(present)} -> {_voters(meant)}"


def _voters(config: AgentConfig) -> str:
    return ",".join(sorted(f"{voter.name}({voter.address}:{voter.port})" for voter in config.voters))


def _drift(facts: HostFacts, file: bytes) -> Iterator[str]:
    agent = facts.agent
    if agent.config is not None and edited(agent.config):
        yield f"{layout.CONFIG} was edited by hand since hmctl wrote it"
    if not agent.unit.running:
        yield f"its agent does not run: it is {agent.unit.active}"
        return
    started = agent.started.get(layout.CONFIG)
    if agent.config is None or started is None or started == checksum(agent.config):
        return
    if agent.config == file and not edited(file):
        yield "its agent still runs with the settings before these: whoever wrote its file was cut short before the restart"
    else:
        what = "what the inventory says, not with what" if started == checksum(file) else "other settings than"
        yield f"its agent runs with {what} its file says: the file was changed after the agent had started"


def outside_common(node: NodeDiff, common: Iterable[Change]) -> tuple[Change, ...]:
    """The node's own differences."""
    shared = set(common)
    return tuple(change for change in node.changes if change not in shared)
