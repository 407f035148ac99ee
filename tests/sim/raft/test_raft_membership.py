"""Voters that change, judged as test_raft_protections.py does: with a rule switched off the simulation must find a broken promise.

Not here, because chance shows them too rarely for every check: one_change_at_a_time, own_term_first, learners_first; and a snapshot that
holds the latest configuration instead of its own (about 1 run in 50 of `members-rough` gets stuck). Each has its exchange in
tests/unit/node_agent/consensus/test_membership_changes.py, and what they are for is a property in test_reconfiguration.py.
"""

from __future__ import annotations

import dataclasses

import pytest
from raft_sim_plans import PLANS
from test_raft_protections import STUCK, UNSAFE, broken

from node_agent.consensus import member
from node_agent.consensus.log.journal import Anchor, Journal
from node_agent.consensus.rules import ALL

HARM = UNSAFE | STUCK | {"no progress after healing: nothing is acknowledged", "committed without a majority of the voters"}


class ForgetsConfigurations(Journal):
    """Counts by the list that it was formed with, or by its snapshot's, until the next change: pysyncobj's own restart."""

    def open(self, anchor: Anchor | None) -> None:
        super().open(anchor)
        self._configurations._entries.clear()
        self._configurations._decide()
        self._told = self._configurations.latest


@pytest.mark.long
def test_where_everybody_counts_one_leads_that_is_no_voter():
    anybody = dataclasses.replace(ALL, members_only=False)
    assert broken(dataclasses.replace(PLANS["members-calm"], protections=anybody), range(50)) == "one that is no voter leads"


@pytest.mark.long
def test_a_restart_that_forgets_the_configuration_breaks_a_promise(monkeypatch):
    monkeypatch.setattr(member, "Journal", ForgetsConfigurations)
    assert broken(PLANS["members-rough"], range(100)) in HARM
