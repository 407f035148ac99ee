"""What no node could ever take, were all of them there and empty."""

from __future__ import annotations

import pytest
from placing import GIB, candidate, nodes, service

from hmcore.apps.spec import Volume
from hmcore.records import NodeState
from node_agent.orchestration.scheduling.explaining import nowhere
from node_agent.orchestration.scheduling.fleet import Fleet
from node_agent.orchestration.scheduling.needs import needs_of

DATA, SHARED = Volume(name="shop_data"), Volume(name="shared", external=True)


def why(fleet, spec, *volumes, homes=None):
    found = nowhere(Fleet(fleet), needs_of(spec, volumes), homes or {})
    return "" if found is None else found.text


@pytest.mark.parametrize(
    ("spec", "volumes", "said"),
    [
        (service(constraints=["node.hostname == moon"]), (), "constraint: 3 of 3 nodes do not satisfy node.hostname == moon"),
        (service(memory=9 * GIB), (), "memory: 3 of 3 nodes have less than 9 GiB free; the most is 8 GiB on node1"),
        (service(cpus=5000), (), "cpus: 3 of 3 nodes have less than 5 processors free; the most is 4 on node1"),
        (service(), (SHARED,), "volume: 3 of 3 nodes do not have shared, which is external"),
        (
            service(constraints=["node.hostname != node2"]),
            (DATA,),
            "constraint: 1 of 3 nodes does not satisfy node.hostname != node2\n"
            "volume: 2 of 2 nodes do not have shop_data, which lives on node2",
        ),
        (service(), (), ""),
        (service(most=1, memory=8 * GIB, cpus=4000), (DATA,), ""),
    ],
)
def test_it_is_said_with_figures(spec, volumes, said):
    assert why(nodes(3), spec, *volumes, homes={"shop_data": "node2"}) == said


def test_who_is_away_could_and_who_runs_no_apps_could_not():
    spec = service(constraints=["node.hostname == node1"])
    for state in (NodeState.DOWN, NodeState.SUSPECT, NodeState.DRAINED):
        assert why([candidate("node1", state=state), candidate("node2")], spec) == ""
    assert why([candidate("node1", engine=False), candidate("node2")], spec) == ""
    assert "role: 1 of 2 nodes runs no apps" in why([candidate("node1", apps=False), candidate("node2")], spec)


def test_a_node_that_has_not_told_what_it_has_may_be_what_is_wanted():
    silent = candidate("node3", cpus=0, memory=0, engine=False)
    assert why([*nodes(2), silent], service(memory=9 * GIB)) == ""
