"""What voters say to each other, and its translation to and from pysyncobj's dictionaries. Decoding is total: a message or BadMessage.

Each message travels in an envelope with the sender's term and a place in the sender's sequence (sequence.py).
"""

from __future__ import annotations

from typing import Any

import msgspec

from hmcore.records import Configuration
from node_agent.consensus import codec
from node_agent.consensus.log import entries
from node_agent.consensus.log.entries import Entry
from node_agent.consensus.protocol.append_guard import Append

VERSION = 1


class SnapshotChunk(msgspec.Struct, frozen=True, array_like=True, tag="snapshot"):
    """A part of a snapshot. `data` is None when there is none to send at the moment: only a sign of life."""

    term: int
    commit_index: int
    data: bytes | None
    first: bool = False
    last: bool = False


class NextIndex(msgspec.Struct, frozen=True, array_like=True, tag="next"):
    """A follower's answer: what it wants next. It counts only in the term of its envelope."""

    next: int
    reset: bool
    success: bool


class RequestVote(msgspec.Struct, frozen=True, array_like=True, tag="request-vote"):
    """`transfer`: the leader itself asked the candidate to stand, so that a living leader is no reason to ignore it."""

    term: int
    last_index: int
    last_term: int
    transfer: bool = False


class Vote(msgspec.Struct, frozen=True, array_like=True, tag="vote"):
    term: int


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag="timeout-now"):
    term: int


class PreVote(msgspec.Struct, frozen=True, array_like=True, tag="pre-vote"):
    """Would you vote for me in `term`? Binds nobody."""

    term: int
    last_index: int
    last_term: int


class PreVoteGranted(msgspec.Struct, frozen=True, array_like=True, tag="pre-vote-granted"):
    term: int


class StaleTerm(msgspec.Struct, frozen=True, array_like=True, tag="stale-term"):
    """You are behind: the term is `term` by now."""

    term: int


class Confirm(msgspec.Struct, frozen=True, array_like=True, tag="confirm"):
    """Are you still in `term`, in which I lead? Sent only at the feature level from which all voters know it."""

    term: int
    number: int


class Confirmed(msgspec.Struct, frozen=True, array_like=True, tag="confirmed"):
    """When question `number` came, I was in `term`: nobody had been elected in a later one with my vote."""

    term: int
    number: int


class AskStanding(msgspec.Struct, frozen=True, array_like=True, tag="ask-standing"):
    """Asked by a node whose disk is empty, or which may have missed that it was removed; and of one that behaves like a voter, though the
    asker's log does not know it."""


class TellStanding(msgspec.Struct, frozen=True, array_like=True, tag="tell-standing"):
    """`member`: the sender votes, and has a memory. `formed`: it knows that the cluster was formed.

    `voters`, `learners`: the configuration that is committed as far as it knows, made by the entry at log index `configured`. `latest`: the
    one that its log ends with, if that is another one: it may yet be committed. `commit_index`: as far as it knows. `bootstrap`: of the
    formation that it takes part in.
    """

    term: int
    member: bool
    formed: bool
    voters: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()
    configured: int = 0
    latest: Configuration | None = None
    commit_index: int = 0
    bootstrap: str = ""

    @property
    def committed(self) -> Configuration:
        return Configuration(voters=self.voters, learners=self.learners, index=self.configured)


Message = (
    Append
    | SnapshotChunk
    | NextIndex
    | RequestVote
    | Vote
    | TimeoutNow
    | PreVote
    | PreVoteGranted
    | StaleTerm
    | Confirm
    | Confirmed
    | AskStanding
    | TellStanding
)


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """`incarnation` is the sender process, `epoch` counts its connections to us, `number` the messages on this one."""

    version: int
    incarnation: int
    epoch: int
    number: int
    term: int
    message: Message


class BadMessage(Exception):
    """Bytes that no voter of our release would send."""


_envelopes: msgspec.msgpack.Decoder[Envelope] = msgspec.msgpack.Decoder(Envelope)


def encode(envelope: Envelope) -> bytes:
    return msgspec.msgpack.encode(envelope)


def decode(payload: bytes) -> Envelope:
    """Raises BadMessage."""
    try:
        envelope = codec.read(_envelopes, payload)
    except msgspec.DecodeError as error:
        raise BadMessage(str(error)) from error
    if envelope.version != VERSION:
        raise BadMessage(f"message format {envelope.version}, ours is {VERSION}")
    if isinstance(envelope.message, Append):
        _check(envelope.message)
    return envelope


def _check(append: Append) -> None:
    if append.prev_index is None or append.prev_term is None:
        if append.entries or append.prev_index is not append.prev_term:
            raise BadMessage("entries that follow nothing")
        return
    index, term = append.prev_index, append.prev_term
    for entry in append.entries:
        if entry.index != index + 1 or not term <= entry.term <= append.term:
            raise BadMessage(f"entry {entry.index} of term {entry.term} behind entry {index} of term {term}")
        if not entries.is_command(entry.command):
            raise BadMessage(f"entry {entry.index} is no command")
        index, term = entry.index, entry.term


def from_pysyncobj(message: dict[str, Any]) -> Message | None:
    """pysyncobj's message as ours; None for those that we never send (it would forward commands to the leader)."""
    match message:
        case {"type": "append_entries", "serialized": chunk}:
            data, first, last = chunk or (None, False, False)
            return SnapshotChunk(message["term"], message["commit_index"], data, first, last)
        case {"type": "append_entries", "entries": entries}:
            previous = message["prevLogIdx"], message["prevLogTerm"]
            return Append(message["term"], message["commit_index"], *previous, tuple(entries))
        case {"type": "next_node_idx"}:
            return NextIndex(message["next_node_idx"], message["reset"], message["success"])
        case {"type": "request_vote"}:
            return RequestVote(message["term"], message["last_log_index"], message["last_log_term"])
        case {"type": "response_vote"}:
            return Vote(message["term"])
        case {"type": "timeout_now"}:
            return TimeoutNow(message["term"])
        case {"type": "apply_command" | "apply_command_response"}:
            return None
        case _:  # a 'transmission' among them: an entry of appendEntriesBatchSizeBytes, which we never propose
            raise ValueError(f"pysyncobj sends what we do not know: {sorted(message)}")


def append_entries(append: Append) -> dict[str, Any]:
    return {
        "type": "append_entries",
        "term": append.term,
        "commit_index": append.commit_index,
        "entries": [Entry(*entry) for entry in append.entries],
        "prevLogIdx": append.prev_index,
        "prevLogTerm": append.prev_term,
    }


def install_snapshot(term: int, whole: bytes | None, commit_index: int = 0) -> dict[str, Any]:
    """With None, only a sign of life. The commit index is 0 whatever the leader says: pysyncobj would commit our own divergent tail."""
    serialized = None if whole is None else (whole, True, True)
    return {"type": "append_entries", "term": term, "commit_index": commit_index, "serialized": serialized}


def next_node_idx(answer: NextIndex) -> dict[str, Any]:
    return {"type": "next_node_idx", "next_node_idx": answer.next, "reset": answer.reset, "success": answer.success}


def request_vote(request: RequestVote) -> dict[str, Any]:
    last = {"last_log_index": request.last_index, "last_log_term": request.last_term}
    return {"type": "request_vote", "term": request.term, **last}


def step_down(term: int) -> dict[str, Any]:
    """A vote request that cannot be granted: all that it does is to move pysyncobj to `term`, as a follower."""
    return request_vote(RequestVote(term, last_index=-1, last_term=-1))
