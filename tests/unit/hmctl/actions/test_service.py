"""What `hmctl service` says of a registry: counts, choices with reasons, and what maintenance would leave."""

from __future__ import annotations

import msgspec
import pytest

from hmcore.api import RegistryReply, StateReply
from hmcore.errors import UsageError
from hmcore.pool import Locality
from hmcore.records import Instance, InstanceHealth, Maintenance
from hmcore.selection import Filter, Strategy
from hmctl.actions.service import Seen, as_target, concerned, kept_out, left_alone, listing, node_labels, resolution, source

H = InstanceHealth


def one(id: str, service: str = "shop/web", health: H = H.HEALTHY, **given: object) -> Instance:
    return Instance(id=id, service=service, node=id.partition("/")[0], address="10.0.0.1", health=health, **given)  # type: ignore[arg-type]


def seen(*instances: Instance, out: str = "") -> Seen:
    maintenance = [Maintenance(target=out, reason="new disk", author="ann")] if out else []
    reply = RegistryReply(
        index=7, instances=list(instances), maintenance=maintenance, latency_ms={"node1/web": 1.5}, failures={"node2/web": 2}
    )
    return Seen(told_by="node1", leader=True, reply=reply)


WEBS = (one("node1/web", version="v1"), one("node2/web", health=H.UNHEALTHY, reason="it is exited", version="v2"), one("node3/web"))
DB = one("node1/db", "shop/db")


def test_a_service_is_counted_and_placed():
    document = listing(seen(*WEBS, DB, out="node3/"))
    db, web = document.services
    assert (db.name, db.fit, db.total) == ("shop/db", 1, 1)
    assert (web.fit, web.total, web.maintenance, web.versions, web.nodes) == (1, 3, 1, ["v1", "v2"], ["node1", "node2", "node3"])
    assert web.health == {"healthy": 2, "degraded": 0, "unhealthy": 1, "unknown": 0}
    assert [view.id for view in document.instances] == ["node1/db", "node1/web", "node2/web", "node3/web"]
    assert [view.maintenance for view in document.instances] == [None, None, None, "new disk"]
    assert document.instances[1].latency_ms == 1.5
    assert [view.failures for view in document.instances] == [0, 0, 2, 0]


def test_maintenance_of_what_has_gone_is_listed_and_can_be_ended():
    found = seen(*WEBS, out="node2/old")
    (orphan,) = listing(found).orphans
    assert (orphan.target, orphan.reason, orphan.author) == ("node2/old", "new disk", "ann")
    assert concerned(found, "node2/old") == []
    assert listing(found, node="node1").orphans == []
    assert len(listing(found, node="node2").orphans) == 1
    assert listing(found, service="shop/web").orphans == []
    assert listing(seen(*WEBS, out="node2/web")).orphans == listing(seen(*WEBS, out="node2/")).orphans == []


def test_listings_are_narrowed():
    found = seen(*WEBS, DB)
    assert [view.id for view in listing(found, service="shop/db").instances] == ["node1/db"]
    assert [view.id for view in listing(found, node="node1").instances] == ["node1/db", "node1/web"]
    assert [view.id for view in listing(found, health=H.UNHEALTHY).instances] == ["node2/web"]
    with pytest.raises(UsageError, match="no service is called shop/wed") as caught:
        listing(found, service="shop/wed")
    assert caught.value.fix == "did you mean shop/web or shop/db? A container that has just started is known within a second"
    with pytest.raises(UsageError) as caught:
        listing(found, service="zzz")
    assert caught.value.fix == "hmctl service ls; a container that has just started is known within a second"


def test_a_choice_comes_with_reasons_for_everybody_else():
    document = resolution(seen(*WEBS, out="node3/"), "shop/web", Filter(), Strategy.WEIGHTED, times=3, chance=lambda: 0.5)
    assert document.chosen == ["node1/web"] * 3
    assert {each.instance.id: each.why_not for each in document.candidates} == {
        "node1/web": None,
        "node2/web": "unhealthy: it is exited",
        "node3/web": "in maintenance: new disk",
    }
    assert resolution(seen(WEBS[1]), "shop/web", Filter(), Strategy.WEIGHTED).chosen == []


def test_strategies_do_as_the_agents_do():
    found = seen(WEBS[0], WEBS[2])
    assert resolution(found, "shop/web", Filter(), Strategy.ROUND_ROBIN, times=3).chosen == ["node1/web", "node3/web", "node1/web"]
    assert resolution(found, "shop/web", Filter(), Strategy.LEAST_LATENCY).chosen == ["node3/web"]  # never asked
    assert len(set(resolution(found, "shop/web", Filter(), Strategy.CONSISTENT_HASH, key="ann", times=5).chosen)) == 1
    with pytest.raises(UsageError, match="of a key"):
        resolution(found, "shop/web", Filter(), Strategy.CONSISTENT_HASH)


def test_where_an_instance_is_narrows_the_choice_and_who_asks_decides_among_equals():
    found = msgspec.structs.replace(seen(WEBS[0], WEBS[2]), labels={"node1": {"zone": "a"}, "node3": {"zone": "b"}})
    document = resolution(found, "shop/web", Filter(labels=node_labels(["zone=b"])), Strategy.WEIGHTED)
    assert {each.instance.id: each.why_not for each in document.candidates} == {
        "node1/web": "its node's zone is a",
        "node3/web": None,
    }
    document = resolution(found, "shop/web", Filter(), Strategy.ROUND_ROBIN, times=3, locality=Locality(node="node3"))
    assert document.chosen == ["node3/web"] * 3
    assert [each.why_not for each in document.candidates] == [None, "another is nearer"]
    document = resolution(found, "shop/web", Filter(), Strategy.ROUND_ROBIN, times=2, locality=Locality(node="node2"))
    assert document.chosen == ["node1/web", "node3/web"], "it has none of its own"
    with pytest.raises(UsageError, match="not KEY=VALUE"):
        node_labels(["zone"])


def test_maintenance_concerns_an_instance_or_a_node_and_says_what_is_left():
    found = seen(*WEBS, DB)
    assert as_target("node1") == "node1/"
    assert as_target("node1/web") == "node1/web"
    assert [each.instance.id for each in concerned(found, "node1/")] == ["node1/web", "node1/db"]
    assert [each.instance.id for each in concerned(found, "node1/web")] == ["node1/web"]
    assert left_alone(found, "node1/") == ["shop/db"]
    assert left_alone(found, "node1/web") == []
    assert left_alone(seen(WEBS[0], WEBS[2], out="node3/"), "node1/") == ["shop/web"]
    assert concerned(seen(DB, out="node9/"), "node9/") == []  # given back after it has gone


@pytest.mark.parametrize(
    ("target", "message", "fix"),
    [
        ("node9/", "no node is called node9", "hmctl node ls; an instance is NODE/NAME: hmctl service ls --all"),
        ("node9/web", "no node is called node9", "hmctl node ls; an instance is NODE/NAME: hmctl service ls --all"),
        ("node1/nix", "no instance is called node1/nix", "hmctl service ls --all --node node1"),
        ("node1/weg", "no instance is called node1/weg", "did you mean node1/web?"),
        ("node2/dbs", "no instance is called node2/dbs", "hmctl service ls --all --node node2"),  # the db is on node1
    ],
)
def test_a_mistyped_target_suggests_no_node(target: str, message: str, fix: str):
    with pytest.raises(UsageError) as caught:
        concerned(seen(*WEBS, DB), target)
    assert (caught.value.message, caught.value.fix) == (message, fix)


def test_a_member_without_instances_is_a_node():
    found = msgspec.structs.replace(seen(DB), labels={"node1": {}, "node4": {}})
    assert concerned(found, "node4/") == []


def test_the_leaders_own_word_counts_most_and_else_the_newest():
    def state(leader: str | None, term: int, index: int) -> StateReply:
        return StateReply(index=index, leader=leader, term=term, nodes=[])

    assert source({"a": state("b", 2, 9), "b": state("b", 2, 8), "c": state("c", 1, 99)}) == "b"
    assert source({"a": state(None, 3, 5), "b": state(None, 3, 7)}) == "b"
    assert source({"a": state("c", 3, 5), "b": state(None, 2, 7)}) == "a"  # the leader itself did not answer


def test_what_stays_out_of_traffic_when_maintenance_ends():
    both = [Maintenance(target="node1/"), Maintenance(target="node1/db")]
    found = Seen(told_by="node1", leader=True, reply=RegistryReply(index=7, instances=[*WEBS, DB], maintenance=both))
    assert kept_out(found, "node1/") == ["node1/db"]
    assert kept_out(found, "node1/web") == kept_out(found, "node1/db") == ["node1/"]
    assert kept_out(found, "node2/") == kept_out(found, "node2/web") == []
