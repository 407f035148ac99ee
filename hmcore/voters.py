"""Calls about who votes (docs/adr/0069): how the log stands on a node, and one voter more or less. Beside hmcore/api.py.

A change goes to the leader (others answer NotLeader and name it). It is a wish, harmless to repeat: asked again, here or at the next
leader, it goes on from where it is.
"""

from __future__ import annotations

import msgspec

from hmcore.api import ChangeReply, Empty, Method

LONGEST_WAIT = 60.0  # seconds of one call for a change


class ConfigureRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`add` a voter, or `remove` one. `wait`: seconds for it to be done, LONGEST_WAIT at most: an addition until the node votes, which it
    does once it has caught up. ChangeUnfinished after that: it goes on, and asking again waits on. `id`: of the request."""

    id: str
    add: str = ""
    remove: str = ""
    wait: float = 10.0


class FollowerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A voter or learner as the leader knows it. `match`: up to which log index it holds the leader's log. `answered`: seconds since it
    said anything; None: nothing since the leader's agent started."""

    name: str
    match: int
    answered: float | None
    connected: bool


class RaftStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the log stands on the node `name`. `role` as in RaftReport; `removed`: it was a voter, and is none by now.

    `index`: of the latest entry that is carried out, and `hash` of the state as of it; empty below the feature level that keeps it.
    `configured`: log index of the entry that made `voters` and `learners`, 0 as they were formed; `committed`: whether that entry is.
    `followers` only on the leader. `trouble`: why it does not take part fully; empty if it does.
    """

    name: str
    role: str
    index: int
    term: int
    leader: str | None
    level: int
    knows: int
    voters: list[str]
    learners: list[str]
    configured: int = 0
    committed: bool = True
    commit_index: int = 0
    first_index: int = 0
    last_index: int = 0
    hash: str = ""
    removed: bool = False
    trouble: str = ""
    followers: list[FollowerStatus] = []


CONFIGURE: Method[ConfigureRequest, ChangeReply] = Method("cluster.configure", ConfigureRequest, ChangeReply)
RAFT: Method[Empty, RaftStatus] = Method("cluster.raft", Empty, RaftStatus)


def may_fail(voters: int) -> int:
    """How many of so many voters may fail, and the others still decide."""
    return max(0, voters - 1) // 2
