"""The commands about apps, their replicas and their images (see commands.py)."""

from __future__ import annotations

import msgspec

from hmcore.apps.records import Allocation, AllocationStatus, Image, Machine, Rollout, Subnet
from hmcore.apps.spec import AppSpec


class PutApp(msgspec.Struct, frozen=True, kw_only=True, tag="put-app"):
    """The next generation of an app, unless it is the same as the one before. `expect`: the generation that its caller saw, 0: none; None:
    whatever there is. `origin`: which generation it brings back; 0: it is a new one."""

    name: str
    spec: AppSpec
    expect: int | None = None
    origin: int = 0
    note: str = ""


class ScaleApp(msgspec.Struct, frozen=True, kw_only=True, tag="scale-app"):
    """Another generation, that differs in the numbers of replicas only. By service."""

    name: str
    replicas: dict[str, int]


class RestartApp(msgspec.Struct, frozen=True, kw_only=True, tag="restart-app"):
    """New containers for all replicas of the `services`, all of the app's if there are none."""

    name: str
    services: tuple[str, ...] = ()


class StopApp(msgspec.Struct, frozen=True, kw_only=True, tag="stop-app"):
    """Once nothing of it is left, it is forgotten."""

    name: str


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """`key`: of the allocation in its table."""

    key: str
    reason: str


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An event that comes of a plan."""

    kind: str
    subject: str
    message: str


class PlanApp(msgspec.Struct, frozen=True, kw_only=True, tag="plan-app"):
    """What the leader makes of an app's replicas (docs/adr/0093). Refused if the app was changed after the log index `basis`: then it is
    planned again. It changes the app's index whatever it does, so that of two plans from one view the second is refused.

    `done`, `forgets`: keys of allocations that ended well, and of those that are stopped and gone. `back_to`: make what that generation was
    the next one, for the reason in `note`. `gone`: the app itself is forgotten, with all that is kept of it.
    """

    app: str
    basis: int
    rollouts: dict[str, Rollout]
    healthy: int
    starts: tuple[Allocation, ...] = ()
    stops: tuple[Stop, ...] = ()
    done: tuple[str, ...] = ()
    forgets: tuple[str, ...] = ()
    back_to: int = 0
    note: str = ""
    events: tuple[Told, ...] = ()
    gone: bool = False


class PutStatuses(msgspec.Struct, frozen=True, kw_only=True, tag="put-statuses"):
    """How all allocations on a node fare, by its own word, and what it has (None: as it was). Refused if we know of a later start of its
    agent."""

    node: str
    incarnation: int
    allocations: tuple[AllocationStatus, ...]
    machine: Machine | None = None


class PutSubnet(msgspec.Struct, frozen=True, kw_only=True, tag="put-subnet"):
    """A node's subnet, once and for all."""

    subnet: Subnet


class PutImage(msgspec.Struct, frozen=True, kw_only=True, tag="put-image"):
    """Let the image's name mean it. Who asked, the log index and the time in it are filled in; its holders are added to those known."""

    image: Image


class RemoveImage(msgspec.Struct, frozen=True, kw_only=True, tag="remove-image"):
    """The name means nothing any more. What apps may come back to is kept without one."""

    name: str


class HoldImage(msgspec.Struct, frozen=True, kw_only=True, tag="hold-image"):
    """A node has all of the image, or (`holds` False) has it no more."""

    image_id: str
    node: str
    holds: bool = True


class AdmitNode(msgspec.Struct, frozen=True, kw_only=True, tag="admit-node"):
    """A node may run exclusive replicas again. It changes the index of every app that has replicas there: whatever was planned for these
    before, when the node was thought to be fenced, is refused from here on (docs/adr/0083). And that of the node's statuses, which it
    follows."""

    node: str
