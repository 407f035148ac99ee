"""Which ports a node answers on, and who gets what comes there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.apps.records import GivenPort
from hmcore.apps.spec import ContainerSpec, Port, ServiceSpec
from node_agent.network.publishing import FIRST, LAST, Offer, Replica, answers, given_out
from node_agent.network.ruleset import Endpoint, Published


def spec(*ports: Port, network_mode: str = "") -> ServiceSpec:
    return ServiceSpec(container=ContainerSpec(image="x", network_mode=network_mode), ports=ports)  # type: ignore[arg-type]


def replica(number: int, made_of: ServiceSpec, **given: object) -> Replica:
    fields = {"node": f"node{number}", "slot": number, "serial": number, "address": f"10.210.{number}.2", "spec": made_of} | given
    return Replica(**fields)  # type: ignore[arg-type]


WEB = spec(Port(target=8080, published=80))
NEWER = spec(Port(target=9090, published=80), Port(target=9091, published=81))
HERE = spec(Port(target=8080, published=80, mode="host"))
ANYWHERE = spec(Port(target=8080, mode="host"))


def published(node, offers):
    found = answers(node, offers)
    return found.published, found.problems


def test_a_published_port_leads_to_all_fit_replicas_by_weight_from_every_node():
    offer = Offer("shop/web", WEB, (replica(1, WEB, weight=50), replica(2, WEB), replica(3, WEB, fit=False)))
    for node in ("node1", "node9"):
        found, problems = published(node, [offer])
        assert found == (Published("tcp", 80, (Endpoint("10.210.1.2", 8080, 50), Endpoint("10.210.2.2", 8080, 100))),)
        assert problems == ()


def test_a_port_without_a_fit_replica_is_answered_all_the_same():
    assert published("node1", [Offer("shop/web", WEB)]) == ((Published("tcp", 80),), ())
    assert published("node1", [Offer("shop/web", WEB, (replica(1, WEB, fit=False),))]) == ((Published("tcp", 80),), ())


def test_while_a_generation_takes_the_place_of_another_each_replica_is_found_where_it_listens():
    found, _ = published("node1", [Offer("shop/web", NEWER, (replica(1, WEB), replica(2, NEWER)))])
    assert found == (
        Published("tcp", 80, (Endpoint("10.210.1.2", 8080), Endpoint("10.210.2.2", 9090))),
        Published("tcp", 81, (Endpoint("10.210.2.2", 9091),)),
    )


def test_a_port_that_is_not_wanted_any_more_answers_as_long_as_a_replica_does():
    found, _ = published("node1", [Offer("shop/web", None, (replica(1, WEB),))])
    assert found == (Published("tcp", 80, (Endpoint("10.210.1.2", 8080),)),)
    assert published("node1", [Offer("shop/web", None)]) == ((), ())


def test_a_port_of_the_node_is_answered_where_the_replica_is_and_nowhere_else():
    offer = Offer("shop/web", HERE, (replica(1, HERE, weight=0, fit=False), replica(2, HERE)))
    assert published("node1", [offer])[0] == (Published("tcp", 80, (Endpoint("10.210.1.2", 8080),)),)
    assert published("node3", [offer])[0] == ()
    ill = Offer("shop/web", HERE, (replica(1, HERE, fit=False, well=False),))
    assert published("node1", [ill])[0] == (Published("tcp", 80),)


@pytest.mark.parametrize(("address", "found"), [("0.0.0.0", ""), ("::", ""), ("127.0.0.1", "127.0.0.1")])
def test_a_port_of_the_node_may_be_had_on_one_address(address, found):
    made_of = spec(Port(target=8080, published=80, mode="host", address=address))
    assert published("node1", [Offer("shop/web", made_of, (replica(1, made_of),))])[0][0].address == found


def test_an_address_that_cannot_be_had_is_told_and_the_rest_goes_on():
    made_of = spec(Port(target=8080, published=80, mode="host", address="::1"), Port(target=8080, published=81, mode="host"))
    found, problems = published("node1", [Offer("shop/web", made_of, (replica(1, made_of),))])
    assert [each.port for each in found] == [81]
    assert problems == ("shop/web cannot have port 80 on ::1: only IPv4 addresses can be had",)


@pytest.mark.parametrize("mode", ["host", "none"])
def test_who_has_no_network_of_the_clusters_publishes_nothing(mode):
    ports = (Port(target=80, published=80), Port(target=80, published=81, mode="host"), Port(target=82, mode="host"))
    made_of = spec(*ports, network_mode=mode)
    assert published("node1", [Offer("shop/web", made_of, (replica(1, made_of),))]) == ((), ())


def test_of_two_that_publish_the_same_port_one_has_it_and_the_other_is_told():
    other = Offer("blog/web", WEB, (replica(2, WEB),))
    found, problems = published("node1", [Offer("shop/web", WEB, (replica(1, WEB),)), other])
    assert found == (Published("tcp", 80, (Endpoint("10.210.2.2", 8080),)),)
    assert problems == ("tcp port 80 is published by blog/web, which has it, and by shop/web",)
    waits = Offer("blog/web", WEB)  # the scheduler lets it wait: nobody has to be told on every node
    assert published("node1", [Offer("shop/web", WEB, (replica(1, WEB),)), waits]) == (
        (Published("tcp", 80, (Endpoint("10.210.1.2", 8080),)),),
        (),
    )


def test_where_any_port_will_do_a_replica_keeps_its_own():
    both = [Offer("shop/web", ANYWHERE, (replica(1, ANYWHERE), replica(1, ANYWHERE, serial=7, slot=2, address="10.210.1.7")))]
    (one, two), _ = published("node1", both)
    assert one.port != two.port
    assert all(FIRST <= each.port <= LAST for each in (one, two))
    assert {each.endpoints for each in (one, two)} == {(Endpoint("10.210.1.2", 8080),), (Endpoint("10.210.1.7", 8080),)}
    (alone,), _ = published("node1", [Offer("shop/web", ANYWHERE, both[0].replicas[1:])])
    assert alone in (one, two)
    assert published("node2", both) == ((), ())


def test_which_port_was_given_out_is_told_of_each_replica():
    made_of = spec(Port(target=8080, mode="host"), Port(target=53, protocol="udp", mode="host", address="192.0.2.1"), *HERE.ports)
    both = [Offer("shop/web", made_of, (replica(1, made_of), replica(2, made_of))), Offer("shop/b", HERE, (replica(1, HERE, well=False),))]
    found = answers("node1", both)
    (tcp, udp) = found.given["shop/web.1.1"]
    assert (tcp, udp) == (
        GivenPort(target=8080, published=tcp.published),
        GivenPort(target=53, published=udp.published, protocol="udp", address="192.0.2.1"),
    )
    assert {(each.protocol, each.port, each.address) for each in found.published} == {
        ("tcp", tcp.published, ""),
        ("udp", udp.published, "192.0.2.1"),
        ("tcp", 80, ""),
    }
    assert found.given.keys() == {"shop/web.1.1"}


@given(st.binary(max_size=8), st.sets(st.integers(FIRST, LAST), max_size=50))
def test_a_port_that_is_given_out_is_nobodys(seed, taken):
    found = given_out(seed, taken)
    assert FIRST <= found <= LAST
    assert found not in taken
    if given_out(seed, set()) not in taken:
        assert found == given_out(seed, set())


def test_when_all_are_taken_there_is_none():
    assert given_out(b"x", set(range(FIRST, LAST + 1))) == 0
