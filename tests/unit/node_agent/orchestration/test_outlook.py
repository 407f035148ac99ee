"""What finds no place beside those that it replaces: who is in the way."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from placing import GIB, candidate, nodes, placed, request, service

from hmcore.apps.spec import Port, Volume
from node_agent.orchestration.scheduler import plan
from node_agent.orchestration.scheduling.model import Outlook, Pending

PORT = Port(target=80, published=8080, mode="host")


def outlook(fleet, there, *asked):
    return [each.outlook if isinstance(each, Pending) else each.node for each in plan(fleet, there, asked, {})]


def beside(each, spec=None, **kwargs):
    """A request for what replaces it."""
    return request(spec or each.spec, each.allocation.slot, instead_of=(each.allocation.id,), **kwargs)


@pytest.mark.parametrize("spec", [service(most=1), service(ports=[PORT]), service(memory=5 * GIB), service(cpus=3000)])
def test_where_only_the_old_one_is_in_the_way_it_is_said(spec):
    there = [placed(f"node{slot}", spec, slot) for slot in (1, 2, 3)]
    assert outlook(nodes(3), there, *map(beside, there)) == [Outlook.INSTEAD] * 3
    assert outlook(nodes(3), there, request(spec, 4)) == [Outlook.NONE], "it replaces nobody"
    assert outlook(nodes(4), there, beside(there[0])) == ["node4"]


def test_of_a_global_service_too():
    spec = service(ports=[PORT], mode="global")
    there = [placed(f"node{number}", spec, 0, number) for number in (1, 2)]
    assert outlook(nodes(2), there, *(beside(each, node=each.allocation.node) for each in there)) == [Outlook.INSTEAD] * 2
    assert outlook(nodes(3), there, beside(there[0], node="node3")) == ["node3"]


@pytest.mark.parametrize(
    "spec",
    [
        service(most=1, constraints=["node.hostname == moon"]),
        service(memory=9 * GIB),  # more than a node has
        service(memory=3 * GIB),  # another app's are in the way
        service(ports=[PORT], constraints=["node.hostname == node2"]),
    ],
)
def test_where_it_would_go_for_nothing_it_is_not_said(spec):
    old = placed("node1", service(most=1, memory=1 * GIB, ports=[PORT]))
    others = [placed(f"node{number}", service(memory=6 * GIB, ports=[PORT]), number, number, app="other") for number in (1, 2, 3)]
    assert outlook(nodes(3), [old, *others[1:], placed("node1", service(memory=6 * GIB), app="other")], beside(old, spec)) == [Outlook.NONE]


def test_a_node_where_nothing_new_goes_is_no_place_however_empty_it_gets():
    old = placed("node1", service(most=1))
    for fleet in ([candidate("node1", apps=False)], [candidate("node1", engine=False)]):
        assert outlook(fleet, [old], beside(old)) == [Outlook.NONE]


def test_it_stays_on_its_volumes_node():
    spec, volumes = service(mounts=["data"], most=1), (Volume(name="shop_data"),)
    there = [placed("node1", spec, 1, volumes=volumes)]
    assert outlook(nodes(2), there, beside(there[0], volumes=volumes)) == [Outlook.INSTEAD]
    assert outlook([candidate("node1", apps=False), *nodes(2)[1:]], there, beside(there[0], volumes=volumes)) == [Outlook.NONE]


def test_what_was_stopped_and_is_still_there_is_waited_for():
    spec = service(most=1)
    old = placed("node1", spec, 1)
    followed = [placed("node2", spec, 2, 5, stop=True), placed("node3", spec, 2, 6)]
    assert outlook(nodes(3), [old, *followed], beside(old)) == [Outlook.SOON]
    coming = [placed("node2", spec, 2, 5, stop=True), placed("node3", spec, 3, 6)]
    assert outlook(nodes(3), [old, *coming], beside(old, service(most=1))) == [Outlook.SOON], "one is wanted: nothing follows slot 2"


def test_the_place_of_a_slot_that_another_replica_is_yet_to_come_to_is_not_counted_on():
    spec = replace(service(most=1), replicas=3)
    there = [placed("node1", spec, 1), placed("node2", spec, 2, 5, stop=True), placed("node3", spec, 3, 6)]
    assert outlook(nodes(3), there, beside(there[0])) == [Outlook.INSTEAD]


def test_two_do_not_count_on_the_same_place():
    old = [placed("node1", service(memory=3 * GIB), slot, slot) for slot in (1, 2)]
    new = service(memory=5 * GIB)
    assert outlook(nodes(1), old, *(beside(each, new) for each in old)) == [Outlook.INSTEAD, Outlook.NONE]
    leaving = placed("node2", service(memory=8 * GIB), app="other", stop=True)
    found = outlook(nodes(2), [*old, leaving], *(beside(each, new) for each in old))
    assert found == [Outlook.SOON, Outlook.INSTEAD]


def test_what_goes_on_is_still_there_for_the_next():
    old = [placed("node1", service(memory=3 * GIB), slot, slot) for slot in (1, 2)]
    assert outlook(nodes(1), old, *(beside(each, service(memory=6 * GIB)) for each in old)) == [Outlook.NONE] * 2


def test_what_has_just_found_its_place_is_there():
    old = placed("node1", service(memory=3 * GIB))
    first = request(service(memory=5 * GIB), app="first")
    assert outlook(nodes(1), [old], first, beside(old, service(memory=5 * GIB))) == ["node1", Outlook.NONE]


def test_one_gives_way_once():
    old = placed("node1", service(most=1, ports=[PORT]))
    assert outlook(nodes(1), [old], beside(old), request(old.spec, 2, instead_of=(old.allocation.id,))) == [Outlook.INSTEAD, Outlook.NONE]
