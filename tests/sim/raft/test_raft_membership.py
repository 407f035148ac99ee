"""Voters that change, judged as test_raft_protections.py does: with a rule switched off the simulation must find a broken promise.

Not here, because chance shows them too rarely for every check: one_change_at_a_time, own_term_first, learners_first. Each has its exchange
in tests/unit/node_agent/consensus/test_membership_changes.py, and what they are for is a property in test_reconfiguration.py.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from raft_sim_plans import PLANS
from test_raft_protections import STUCK, UNSAFE, broken

from hmcore.records import Configuration
from node_agent.consensus import member
from node_agent.consensus.journal import Anchor, Journal
from node_agent.consensus.rules import ALL
from node_agent.consensus.snapshots import SnapshotStore

HARM = UNSAFE | STUCK | {"no progress after healing: nothing is acknowledged", "committed without a majority of the voters"}


class ForgetsConfigurations(Journal):
    """Counts by the list that it was formed with, or by its snapshot's, until the next change: pysyncobj's own restart."""

    def open(self, anchor: Anchor | None) -> None:
        super().open(anchor)
        self._configurations._entries.clear()
        self._configurations._decide()
        self._told = self._configurations.latest


class DumpsTheLatest(SnapshotStore):
    """Stores the latest configuration of the log with a state that is older, as pysyncobj's own dump does: it may never be committed."""

    def serialize(self, data: Any, covers: int) -> None:
        history, latest = self._configurations, self._configurations.configuration_at(1 << 60)

        class Latest:
            def configuration_at(self, index: int) -> Configuration:
                return latest

            def base_on(self, configuration: Configuration) -> None:
                history.base_on(configuration)

        self._configurations = Latest()
        try:
            super().serialize(data, covers)
        finally:
            self._configurations = history


def test_where_everybody_counts_one_leads_that_is_no_voter():
    anybody = dataclasses.replace(ALL, members_only=False)
    assert broken(dataclasses.replace(PLANS["members-calm"], protections=anybody), range(50)) == "one that is no voter leads"


def test_a_restart_that_forgets_the_configuration_breaks_a_promise(monkeypatch):
    monkeypatch.setattr(member, "Journal", ForgetsConfigurations)
    assert broken(PLANS["members-rough"], range(100)) in HARM


def test_a_snapshot_with_an_uncommitted_configuration_breaks_a_promise(monkeypatch):
    monkeypatch.setattr(member, "SnapshotStore", DumpsTheLatest)
    assert broken(PLANS["members-rough"], range(150)) in HARM
