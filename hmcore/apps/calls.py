"""Calls about apps. A change goes to the leader (others answer NotLeader and name it) and carries an id: asked again under the same id, it
is carried out once. What is read comes from any control node, as of a log index."""

from __future__ import annotations

import msgspec

from hmcore.api import ChangeReply, InstancesReply, Method
from hmcore.apps.records import Allocation, AllocationStatus, App, Generation, Machine
from hmcore.apps.spec import AppSpec, Resources


class DeployRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`expect`: the generation that the caller saw, 0: there was no such app; None: whatever there is. The answer's revision is the
    generation."""

    id: str
    name: str
    spec: AppSpec
    expect: int | None = None
    note: str = ""


class RollbackRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Make what generation `to` was the next one; 0: the last one before the present that was healthy."""

    id: str
    name: str
    to: int = 0


class ScaleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas by service."""

    id: str
    name: str
    replicas: dict[str, int]


class RestartRequest(msgspec.Struct, frozen=True, kw_only=True):
    """New containers for `services`, all of the app's if there are none."""

    id: str
    name: str
    services: tuple[str, ...] = ()


class RemoveRequest(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str


class RebalanceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Move some replicas, where that makes things more even; of all apps, or of the one called `name`. Each time a few, as gently as an
    update: to be asked again until nothing is left to do. `dry`: only say which."""

    id: str
    name: str = ""
    dry: bool = False


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """A replica (its allocation's id) that goes from one node to another, and why."""

    allocation: str
    source: str
    target: str
    reason: str


class RebalanceReply(msgspec.Struct, frozen=True, kw_only=True):
    """`moves`: those that were begun now, or would be; `later`: those that are left; `waits`: by `app/service`, what has to come first;
    `absent`: nodes that would have a share and get none now, with why not, in a word or two."""

    index: int
    moves: list[Moved] = []
    later: list[Moved] = []
    waits: dict[str, str] = {}
    absent: dict[str, str] = {}


class AppsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`name` empty: all apps, without their generations' specs. `consistent`: linearizable, at the cost of a round between the control
    nodes. `capacity`: also what nodes have."""

    name: str = ""
    consistent: bool = False
    capacity: bool = False


class AppsReply(msgspec.Struct, frozen=True, kw_only=True):
    """As of log index `index`. `generations`: of the app that was asked for, the oldest first; of all apps only the present ones.
    `statuses`: by allocation. `waits`: by `app/service`, what the leader says is waited for; empty from any other node. `capacity`: by node
    on which replicas may be placed, all that it has; empty if that was not asked for, or by an earlier release."""

    index: int
    apps: list[App] = []
    generations: list[Generation] = []
    allocations: list[Allocation] = []
    statuses: dict[str, AllocationStatus] = {}
    waits: dict[str, str] = {}
    capacity: dict[str, Resources] = {}


class TellRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A node's word on all allocations that are on it, by the start `incarnation` of its agent. None: as it told before; `machine`: what it
    has; `instances`: what the registry shall know of it, which heartbeats would bring later."""

    incarnation: int
    allocations: tuple[AllocationStatus, ...]
    machine: Machine | None = None
    instances: InstancesReply | None = None


class LeaseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A node asks to be allowed to run exclusive replicas (docs/adr/0083). `anew`: it has no lease any more, or its agent has just started:
    then what was planned before, thinking it fenced, must come to nothing."""

    anew: bool = False


class LeaseReply(msgspec.Struct, frozen=True, kw_only=True):
    """Granted, for `seconds` from when the node sent its question. Asked anew, it starts nothing under it before it knows the state as of
    log index `index`."""

    index: int
    seconds: float


DEPLOY: Method[DeployRequest, ChangeReply] = Method("apps.deploy", DeployRequest, ChangeReply)
ROLLBACK: Method[RollbackRequest, ChangeReply] = Method("apps.rollback", RollbackRequest, ChangeReply)
SCALE: Method[ScaleRequest, ChangeReply] = Method("apps.scale", ScaleRequest, ChangeReply)
RESTART: Method[RestartRequest, ChangeReply] = Method("apps.restart", RestartRequest, ChangeReply)
REMOVE: Method[RemoveRequest, ChangeReply] = Method("apps.remove", RemoveRequest, ChangeReply)
REBALANCE: Method[RebalanceRequest, RebalanceReply] = Method("apps.rebalance", RebalanceRequest, RebalanceReply)
APPS: Method[AppsRequest, AppsReply] = Method("apps.list", AppsRequest, AppsReply)
TELL: Method[TellRequest, ChangeReply] = Method("apps.tell", TellRequest, ChangeReply)
LEASE: Method[LeaseRequest, LeaseReply] = Method("apps.lease", LeaseRequest, LeaseReply)
