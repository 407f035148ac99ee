"""Which requests were carried out already, and what came of them, so that a retry is not carried out again. Pure.

Of a session (commands.session_of) the latest request is kept, whatever the number of requests since; of requests without one, the latest
MAX_RECEIPTS at least. Both are forgotten by generations: the younger one becomes the older when it is full. Below level TRUSTED there are
no sessions, and the latest MAX_RECEIPTS requests are kept in one table that every log entry copies.
"""

from __future__ import annotations

from rpds import HashTrieMap

from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.commands import Receipt, Refused, encode_result, session_of
from node_agent.consensus.statemachine.state import NOTHING, Draft, Session, State

MAX_RECEIPTS = 4096
GENERATION = 16_384  # sessions


class Receipts:
    """Of one log entry's draft."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._kept: dict[str, Receipt] | None = None  # copied at the first change

    def known(self, request: str, index: int) -> Receipt | None:
        """What came of the request, if it was carried out; or that it cannot be, as its session has gone on."""
        kept = None if self._kept is None else self._kept.get(request)
        return kept or _known(self._draft.state, request, index)

    def keep(self, request: str, receipt: Receipt) -> None:
        if self._draft.state.level < levels.TRUSTED:
            if self._kept is None:
                self._kept = dict(self._draft.state.receipts)
            self._kept[request] = receipt
        elif (session := session_of(request)) is None:
            self._keep_request(request, receipt)
        else:
            self._keep_session(*session, receipt)

    def _keep_session(self, name: str, number: int, receipt: Receipt) -> None:
        sessions = self._draft.state.sessions
        assert isinstance(sessions, HashTrieMap)
        if len(sessions) >= GENERATION and name not in sessions:
            self._draft.replace(older_sessions=sessions)
            sessions = NOTHING
        self._draft.replace(sessions=sessions.insert(name, Session(number, receipt)))

    def _keep_request(self, request: str, receipt: Receipt) -> None:
        requests = self._draft.state.requests
        assert isinstance(requests, HashTrieMap)
        if len(requests) >= MAX_RECEIPTS:
            self._draft.replace(older_requests=requests, receipts={})  # of what was kept below the level, all would be forgotten by now
            requests = NOTHING
        self._draft.replace(requests=requests.insert(request, receipt))

    def finish(self) -> None:
        if self._kept is None:
            return
        for forgotten in list(self._kept)[: max(0, len(self._kept) - MAX_RECEIPTS)]:
            del self._kept[forgotten]
        self._draft.replace(receipts=self._kept)


def find(state: State, request: str) -> Receipt | None:
    """What came of a request, if it is still known."""
    return _known(state, request, state.index)


def _known(state: State, request: str, index: int) -> Receipt | None:
    if state.level >= levels.TRUSTED:
        if (session := session_of(request)) is not None:
            return _of_session(state, *session, index) or state.receipts.get(request)
        if (receipt := state.requests.get(request) or state.older_requests.get(request)) is not None:
            return receipt
    return state.receipts.get(request)


def _of_session(state: State, name: str, number: int, index: int) -> Receipt | None:
    latest = state.sessions.get(name) or state.older_sessions.get(name)
    if latest is None or number > latest.number:
        return None
    if number == latest.number:
        return latest.receipt
    return Receipt(
        index, encode_result(Refused(f"this session has gone on to request {latest.number}: what came of {number} is forgotten"))
    )
