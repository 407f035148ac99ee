"""The configurations that are simulated, by name."""

from __future__ import annotations

from raft_sim_network import Habits
from raft_sim_world import Plan

from node_agent.consensus.member import Limits

PLANS = {
    "three": Plan(),
    "five": Plan(voters=5),
    "one": Plan(voters=1),
    "late": Plan(late=True),
    "five-late": Plan(late=True, voters=5),
    "small": Plan(limits=Limits(compact_entries=12, journal_slack=2000, chunk=300, batch=200, append=600)),
    "disorder": Plan(habits=Habits(disorder=True)),
}
