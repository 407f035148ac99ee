"""What must hold after every step (Ongaro & Ousterhout 2014, figure 3), and what must hold in the end."""

from __future__ import annotations

from node_agent.consensus import codec
from node_agent.consensus.log import entries
from node_agent.consensus.log.entries import Entry
from node_agent.consensus.member import Member
from node_agent.consensus.statemachine import machine, receipts
from node_agent.consensus.statemachine.machine import Receipt, State


class Violation(Exception):
    """A promise was broken."""


class Checks:
    def __init__(self) -> None:
        self._entries: dict[tuple[int, int], tuple[bytes, int | None]] = {}  # (index, term) -> command, term of the one before
        self._committed: dict[int, Entry] = {}
        self._leaders: dict[int, tuple[str, int]] = {}
        self._seen: dict[tuple[str, int], dict[int, Entry]] = {}  # entries already looked at, by member and incarnation
        self._known_commit: dict[tuple[str, int], int] = {}
        self._states: dict[int, State] = {0: State()}  # of the model, after each committed batch
        self._latest = 0  # index of the model's last
        self._modelled = 0  # the model has looked at the committed entries up to here
        self.acknowledged: dict[str, Receipt] = {}

    @property
    def leaders(self) -> int:
        return len(self._leaders)

    def after_step(self, name: str, incarnation: int, member: Member) -> None:
        if member.failure is not None:
            raise Violation(f"a member stopped: {type(member.failure).__name__}") from member.failure
        engine = member.engine
        if engine is None:
            return
        who = (name, incarnation)
        log = member.journal.entries
        if not log:
            raise Violation("log left empty")
        self._log_matching(who, log)
        if engine.leads and self._leaders.setdefault(engine.term, who) != who:
            raise Violation("two leaders in a term")
        self._commits(who, log, engine.commit_index)
        self._applied(member.replica.state)

    def last_words(self, name: str, incarnation: int, member: Member) -> None:
        """A crash came in the middle of a step: what it already believed committed counts all the same."""
        if member.engine is not None and member.journal.entries:
            self._log_matching((name, incarnation), member.journal.entries)
            self._commits((name, incarnation), member.journal.entries, member.engine.commit_index)

    def _log_matching(self, who: tuple[str, int], log: list[Entry]) -> None:
        seen = self._seen.setdefault(who, {})
        for position in range(len(log) - 1, -1, -1):
            entry = log[position]
            if seen.get(entry.index) is entry:
                break
            seen[entry.index] = entry
            before = log[position - 1] if position else None
            if before is not None and before.index != entry.index - 1:
                raise Violation("log not contiguous")
            told = (entry.command, None if before is None else before.term)
            known = self._entries.setdefault((entry.index, entry.term), told)
            if known[0] != told[0] or (None not in (known[1], told[1]) and known[1] != told[1]):
                raise Violation("log matching")
            if known[1] is None:
                self._entries[entry.index, entry.term] = told
        else:  # nothing of what we saw is left: a snapshot took its place
            for index in [index for index in seen if index < log[0].index]:
                del seen[index]

    def _commits(self, who: tuple[str, int], log: list[Entry], commit_index: int) -> None:
        seen = self._seen[who]
        for index in range(self._known_commit.get(who, 1) + 1, min(commit_index, log[-1].index) + 1):
            entry = seen.get(index)  # none if a snapshot took its place
            if entry is not None and self._committed.setdefault(index, entry) != entry:
                raise Violation("commit of a different entry")
        self._known_commit[who] = max(self._known_commit.get(who, 1), commit_index)

    def _applied(self, state: State) -> None:
        """Every state that a member shows is the one that the committed entries lead to."""
        while self._latest < state.index:
            self._modelled += 1
            if self._modelled == 1:
                continue  # every log begins with a no-op
            entry = self._committed.get(self._modelled)
            if entry is None:
                raise Violation("an entry was applied that nobody knows to be committed")
            if entry.command[:1] == codec.REGULAR:
                method, (batch,) = codec.loads(entry.command[1:])
                before, configures = self._states[self._latest], method == entries.RECONFIGURE
                self._states[entry.index] = machine.apply_batch(before, batch, entry.index, configures=configures).state
                self._latest = entry.index
        known = self._states.get(state.index)
        if known is not state and known != state:
            raise Violation("states differ at equal index")
        self._states[state.index] = state  # the very object: quickly recognised next time

    def acknowledge(self, request: str, receipt: Receipt) -> None:
        known = self.acknowledged.setdefault(request, receipt)
        if known != receipt:
            raise Violation("one request was acknowledged twice, differently")

    def in_the_end(self, states: list[State]) -> None:
        if len({machine.state_hash(state) for state in states}) != 1:
            raise Violation("state hashes differ")
        if any(receipts.find(states[0], request) != receipt for request, receipt in self.acknowledged.items()):
            raise Violation("acknowledged command lost")
