"""What is simulated, by name: ordinary clusters, and some on which one kind of trouble is concentrated."""

from __future__ import annotations

from raft_sim_network import Habits
from raft_sim_world import Plan

from node_agent.consensus.limits import Limits
from node_agent.consensus.statemachine import levels

# One command an entry, two or three entries an append, many batches on their way: the most chances for overlapping appends. A snapshot
# takes several ticks.
TINY = Limits(compact_entries=12, journal_slack=2000, chunk=300, batch=1, append=250, in_flight=50, portion=400)

PLANS = {
    "three": Plan(),
    "five": Plan(voters=5),
    "one": Plan(voters=1),
    "late": Plan(late=True),
    "five-late": Plan(late=True, voters=5),
    "tiny": Plan(limits=TINY),
    "rough": Plan(limits=TINY, faults=5.0),
    "crashy": Plan(limits=TINY, crash_in_write=0.006),
    "earlier": Plan(level=levels.BASE),
    "members": Plan(spares=3),
    "members-five": Plan(voters=5, spares=2, faults=3.0),
    "members-rough": Plan(spares=2, limits=TINY, faults=5.0),
    "members-calm": Plan(voters=1, spares=4, faults=0.5, limits=TINY),
    "slow-disks": Plan(slow_disks=(0.02, 0.2, 1.0), crash_in_write=0.002),
    "disorder": Plan(habits=Habits(disorder=True)),
}
