"""Who is a member and in what state: what the leader proposes, from the replicated records and what it heard. Pure.

Liveness itself stays in memory; only transitions become commands: ready -> suspect -> down by silence, down at once by a good-bye, back
by any newer heartbeat (design section 7). Whatever is decided here and then applied is not decided again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from hmcore.api import Heartbeat
from hmcore.records import STOPPED, Node, NodeState
from node_agent.consensus.statemachine.commands import Command, PutNode, SetNodeState
from node_agent.orchestration.hearing import Heard, View

SETTLE = 2  # heartbeats in which a node must complain before it is called degraded: an election's hiccup is no state
_REASON_LENGTH = 500
_HELD = (NodeState.DRAINING, NodeState.DRAINED)  # an operator's wish: good health does not end it


class Timing(Protocol):
    """What hmcore.config.settings.Membership has. Seconds."""

    @property
    def heartbeat(self) -> float: ...
    @property
    def suspect(self) -> float: ...
    @property
    def down(self) -> float: ...


def decide(nodes: Mapping[str, Node], view: View, now: float, timing: Timing) -> list[Command]:
    """The commands that bring the records in line with what was heard, at most one for each node. `now` is by `Hearing.clock`."""
    commands: list[Command] = []
    for name in sorted(nodes.keys() | view.heard.keys()):
        command = _judge(name, nodes.get(name), view, now, timing)
        if command is not None:
            commands.append(command)
    return commands


def next_change(nodes: Mapping[str, Node], view: View, now: float, timing: Timing) -> float | None:
    """When `decide` may say something new though nothing new is heard. None: never."""
    times: list[float] = []
    for node in nodes.values():
        if node.state is not NodeState.DOWN:
            times += (view.last(node) + timing.suspect, view.last(node) + timing.down)
        heard = view.of(node)
        if heard is not None and heard.ill_since is not None:
            times.append(heard.ill_since + SETTLE * timing.heartbeat)
    return min((time for time in times if time > now), default=None)


def _judge(name: str, node: Node | None, view: View, now: float, timing: Timing) -> Command | None:
    heard = view.heard.get(name) if node is None else view.of(node)
    if heard is not None and heard.beat.leaving:
        return None if node is None else _transition(node, NodeState.DOWN, STOPPED, heard.beat.incarnation)
    if heard is not None and now < heard.at + timing.suspect:
        return _alive(name, node, heard, now, timing)
    if node is None or node.state is NodeState.DOWN:
        return None
    if now >= view.last(node) + timing.down:
        return _transition(node, NodeState.DOWN, f"no heartbeat for {timing.down:g} s", node.incarnation)
    if now >= view.last(node) + timing.suspect:
        return _transition(node, NodeState.SUSPECT, f"no heartbeat for {timing.suspect:g} s", node.incarnation)
    return None


def _alive(name: str, node: Node | None, heard: Heard, now: float, timing: Timing) -> Command | None:
    state, reason = _condition(node, heard, now, timing)
    wanted = _record(name, heard.beat, state, reason)
    if node is None or msgspec.structs.replace(node, state=state, state_reason=reason) != wanted:
        return PutNode(node=wanted)
    return _transition(node, state, reason, wanted.incarnation)


def _condition(node: Node | None, heard: Heard, now: float, timing: Timing) -> tuple[NodeState, str]:
    """The state of a node that was just heard, and why."""
    if node is not None and node.state in _HELD:
        return node.state, node.state_reason
    if heard.ill_since is None:
        return NodeState.READY, ""
    if now < heard.ill_since + SETTLE * timing.heartbeat:
        if node is not None and node.state is NodeState.DEGRADED:
            return NodeState.DEGRADED, node.state_reason
        return NodeState.READY, ""
    return NodeState.DEGRADED, "; ".join(heard.beat.reasons)[:_REASON_LENGTH]


def _record(name: str, beat: Heartbeat, state: NodeState, reason: str) -> Node:
    return Node(
        name=name,
        address=beat.address,
        port=beat.port,
        role=beat.role,
        release=beat.release,
        labels=beat.labels,
        state=state,
        state_reason=reason,
        incarnation=beat.incarnation,
    )


def _transition(node: Node, state: NodeState, reason: str, incarnation: int) -> Command | None:
    if (node.state, node.state_reason, node.incarnation) == (state, reason, incarnation):
        return None
    return SetNodeState(name=node.name, state=state, reason=reason, incarnation=incarnation)
