"""What shall run on this node: of the tables of allocations the part that begins with its name. A control node has them whole; a worker
follows its part apart from what all nodes follow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from hmcore.apps.records import Allocation, NodeStatuses, statuses_key
from hmcore.errors import HyperMeshError, InvalidRequest
from node_agent.consensus.following.follower import OWN, Follower, Tables, Watch

HELD = 5.0  # seconds for which an answer may be held back
IMPATIENCE = 1.0  # seconds, while something is wrong
EARLIER = 30.0  # seconds until control nodes of an earlier release are asked again: they may have been upgraded

log = logging.getLogger(__name__)


class OwnAllocations:
    """Out of all, looked for anew only when that is another table."""

    def __init__(self, me: str) -> None:
        self._prefix = statuses_key(me)
        self._table: object = None
        self._found: Mapping[str, Allocation] = {}

    def of(self, table: Mapping[str, Allocation]) -> Mapping[str, Allocation]:
        """By id."""
        if table is not self._table:
            self._table = table
            self._found = {each.id: each for key, each in table.items() if key.startswith(self._prefix)}
        return self._found


class OwnRecords:
    """`allocations`: by id; None until they are known. `index`: the log index as of which they are."""

    def __init__(
        self,
        me: str,
        *,
        control_nodes: Callable[[], Sequence[str]],
        watch: Watch,
        tables: Tables,
        on_change: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """`control_nodes`: those that can be asked now."""
        self._me = me
        self._control_nodes = control_nodes
        self._on_change = on_change
        self._follower = Follower(watch, tables, clock=clock, followed=OWN, prefix=statuses_key(me))
        self._shown: Mapping[str, Allocation] | None = None
        self.trouble: str | None = None
        self.index = 0

    @property
    def allocations(self) -> Mapping[str, Allocation] | None:
        return self._shown

    @property
    def statuses(self) -> NodeStatuses | None:
        """As this node told them last, perhaps before its agent started; None: never."""
        copy = self._follower.copy
        found: NodeStatuses | None = None if copy is None else copy.tables["statuses"].get(statuses_key(self._me))
        return found

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            pause = await self._look()
            await asyncio.sleep(pause)

    async def _look(self) -> float:
        """Seconds until the next look."""
        names = self._control_nodes()
        if not names:
            return IMPATIENCE  # whoever follows the rest says so
        before = self._follower.copy
        index = 0 if before is None else before.index
        try:
            told = await self._follower.look(names, wait=HELD, least=index)
        except InvalidRequest as error:
            log.info("the control nodes know of no apps yet: %s", error)
            return EARLIER
        except HyperMeshError as error:
            self._complain(f"no control node tells what shall run here: {error}")
            return IMPATIENCE
        copy = self._follower.copy
        if told is None or copy is None:
            return IMPATIENCE
        self.trouble = None
        if told.news or self._shown is None:
            self._shown = {each.id: each for each in copy.tables["allocations"].values()}
        self.index = copy.index
        if told.news or index < self.index:
            self._on_change()
        return 0.0 if told.held else HELD

    def _complain(self, trouble: str) -> None:
        if self.trouble is None:
            log.info("%s", trouble)
        self.trouble = trouble
