"""Feature levels: what all members of a cluster understand, whatever releases they run (docs/adr/0068). Pure.

The level in force is part of the replicated state and governs commands, their encoding, the state's hash and what is written to disk. A
release works at every level up to its LATEST, and at the one in force it neither proposes, carries out, sends nor writes what belongs to
a higher one: so an older release beside it reads all, and comes to the same state.
"""

from __future__ import annotations

from hmcore.records import FEATURE_LEVEL
from node_agent.consensus.statemachine.appcommands import (
    AdmitNode,
    HoldImage,
    PlanApp,
    PutApp,
    PutImage,
    PutStatuses,
    PutSubnet,
    RemoveImage,
    RestartApp,
    ScaleApp,
    StopApp,
)
from node_agent.consensus.statemachine.commands import (
    AcquireLock,
    ChangeVoters,
    Command,
    DeleteKey,
    ExpireLock,
    NoteDivergence,
    PutKey,
    RaiseFeatureLevel,
    ReleaseLock,
)
from node_agent.consensus.statemachine.secretcommands import PutKeeper, PutSecret, RemoveSecret, TurnKey

BASE = 1  # members, instances, maintenance, mutes
TRUSTED = 2  # keys, locks, sessions, state hashes, voters that change, reads that are confirmed
APPS = 3  # apps, their replicas, subnets, secrets
LATEST = FEATURE_LEVEL

_SINCE: dict[type[Command], int] = {
    ChangeVoters: TRUSTED,
    PutKey: TRUSTED,
    DeleteKey: TRUSTED,
    AcquireLock: TRUSTED,
    ReleaseLock: TRUSTED,
    ExpireLock: TRUSTED,
    NoteDivergence: TRUSTED,
    PutApp: APPS,
    ScaleApp: APPS,
    RestartApp: APPS,
    StopApp: APPS,
    PlanApp: APPS,
    PutStatuses: APPS,
    PutSubnet: APPS,
    PutImage: APPS,
    RemoveImage: APPS,
    HoldImage: APPS,
    PutKeeper: APPS,
    TurnKey: APPS,
    PutSecret: APPS,
    RemoveSecret: APPS,
    AdmitNode: APPS,
    RaiseFeatureLevel: BASE,  # it is what leads upwards; a release that does not know it refuses it, whatever the level
}


def needed(command: Command) -> int:
    """The level at which `command` may be carried out."""
    return _SINCE.get(type(command), BASE)
