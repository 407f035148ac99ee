"""The last step of an upgrade: raise the feature level once every node runs a release that knows it (docs/adr/0068).

Until then the release before can be deployed again; from then on it cannot, so nothing but a healthy, complete cluster is raised.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hmcore.api import Formation, RaiseReply, RaiseRequest
from hmcore.errors import HyperMeshError, LevelTooLow
from hmcore.records import FEATURE_LEVEL
from hmctl.phases.agents import Agents
from hmctl.phases.base import Step
from hmctl.phases.healthy import PATIENCE, Verdict

if TYPE_CHECKING:
    from hmcore.config.inventory import Host

TITLE = "Raise feature level"
TRIES = 5  # at intervals of PAUSE: a node that was restarted last may not have been heard by the leader yet
PAUSE = 0.5  # seconds


def in_force(answers: Mapping[str, Formation | HyperMeshError]) -> int | None:
    """The level that control nodes tell; None if none does. Pure. Agents of the first release tell none: theirs is 1."""
    told = [max(said.level, 1) for said in answers.values() if isinstance(said, Formation) and said.formed]
    return max(told, default=None)


def plan(level: int | None) -> list[Step]:
    """What there is to do at `level`, if that is known. Pure."""
    if level is None or level >= FEATURE_LEVEL:
        return []
    return [Step(None, TITLE, f"raise the feature level to {FEATURE_LEVEL}: every node runs a release that knows it")]


async def raise_level(hosts: Sequence[Host], verdict: Verdict, agents: Agents) -> RaiseReply:
    """Asks the leader, for as long as that takes to hear everybody. Raises HyperMeshError, LevelTooLow if a node holds the others back."""
    leader = next((host for host in hosts if host.name == verdict.leader), None)
    if verdict.waiting or leader is None:
        waited = ", ".join(verdict.waiting) or verdict.leader
        raise LevelTooLow(f"the feature level stays as it is until {waited} is well", fix="hmctl deploy")
    request = RaiseRequest(id=uuid.uuid4().hex)
    tries = TRIES
    while True:
        answer = await agents.raise_level(leader, request, timeout=PATIENCE)
        tries -= 1
        if isinstance(answer, RaiseReply):
            return answer
        if tries == 0 or not isinstance(answer, LevelTooLow):
            raise answer
        await asyncio.sleep(PAUSE)
