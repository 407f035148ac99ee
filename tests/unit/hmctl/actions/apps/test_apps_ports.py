"""Published ports of replicas, as `hmctl app ps` shows them."""

from __future__ import annotations

from app_seen import FIT, SPEC, seen
from msgspec.structs import replace

from hmcore.apps.records import Generation, GivenPort
from hmcore.apps.spec import AppSpec, Port
from hmctl.actions.apps.ports import PortView, port_words
from hmctl.actions.apps.view import ReplicaView, Seen, replicas

PORTS = (
    Port(target=80, published=8080),
    Port(target=53, protocol="udp", mode="host", address="192.0.2.1"),
    Port(target=81, mode="host"),
)
GIVEN = (
    GivenPort(target=53, published=30001, protocol="udp", address="192.0.2.1"),
    GivenPort(target=81, published=30002),
)


def with_ports(*ports: Port) -> AppSpec:
    return replace(SPEC, services={**SPEC.services, "web": replace(SPEC.services["web"], ports=ports)})


def shown(found: Seen, *, current: bool = True) -> ReplicaView:
    (generation,) = found.reply.generations
    newer = replace(generation, number=5, spec=with_ports(Port(target=80, published=9090)))
    app = replace(found.app("shop"), generation=4 if current else 5)
    generations: list[Generation] = [replace(generation, spec=with_ports(*PORTS)), newer]
    revisions = {"web": found.allocations("shop", "web")[0].revision if current else "another"}
    known = Seen(found.told_by, found.leader, replace(found.reply, generations=generations))
    return replicas(known, app, revisions, "web").replicas[0]


def test_those_that_the_node_gave_out_are_filled_in() -> None:
    view = shown(seen({**FIT, "ports": GIVEN}))
    assert view.ports == [
        PortView(target=80, published=8080, protocol="tcp", mode="ingress", address=""),
        PortView(target=53, published=30001, protocol="udp", mode="host", address="192.0.2.1"),
        PortView(target=81, published=30002, protocol="tcp", mode="host", address=""),
    ]
    assert port_words(view.ports) == "8080:80, 192.0.2.1:30001:53/udp, 30002:81"


def test_before_its_node_says_so_any_will_do() -> None:
    for view in (shown(seen(FIT)), shown(seen(None))):
        assert [port.published for port in view.ports] == [8080, None, None]
        assert port_words(view.ports) == "8080:80, 192.0.2.1:any:53/udp, any:81"


def test_an_old_replica_has_those_of_its_own_generation() -> None:
    assert shown(seen(FIT), current=False).ports[0].published == 8080


def test_many_are_cut_short_in_a_table() -> None:
    many = [PortView(target=n, published=n, protocol="tcp", mode="ingress", address="") for n in range(1, 8)]
    assert port_words(many) == "1:1, 2:2, 3:3, and 4 more"
    assert port_words([]) == "-"
