"""How the log stands on this voter, for an operator who looks closely."""

from __future__ import annotations

from hmcore.voters import FollowerStatus, RaftStatus
from node_agent.consensus.member import Member
from node_agent.consensus.statemachine.levels import TRUSTED
from node_agent.consensus.statemachine.state import state_hash


def inspect(member: Member, now: float) -> RaftStatus:
    """`now` by the member's clock."""
    said, state, journal = member.outlook.report(), member.replica.state, member.journal
    configuration = journal.configuration
    return RaftStatus(
        name=member.name,
        role=said.role,
        index=state.index,
        term=said.term,
        leader=said.leader,
        level=0 if state.cluster is None else state.level,
        knows=said.knows,
        voters=said.voters,
        learners=said.learners,
        configured=configuration.index,
        committed=configuration.index <= max(said.commit_index, state.index),
        commit_index=said.commit_index,
        first_index=journal[0].index if len(journal) else 0,
        last_index=journal[-1].index if len(journal) else 0,
        hash=state_hash(state) if state.level >= TRUSTED else "",
        removed=member.enrolment.removed,
        trouble=member.outlook.trouble or "",
        followers=_followers(member, now),
    )


def _followers(member: Member, now: float) -> list[FollowerStatus]:
    engine, transport, configuration = member.engine, member.transport, member.journal.configuration
    if engine is None or not member.is_leader:
        return []
    return [
        FollowerStatus(
            name=name,
            match=engine.match(name),
            answered=None if (heard := transport.heard.get(name)) is None else round(max(0.0, now - heard), 3),
            connected=name in transport.connected,
        )
        for name in sorted({*configuration.voters, *configuration.learners} - {member.name})
    ]
