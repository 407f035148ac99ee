"""From what the cluster agreed on to what a node answers, routes and names."""

from __future__ import annotations

from hmcore.apps.records import Generation, Subnet
from hmcore.apps.spec import AppSpec, ContainerSpec, Port, ServiceSpec, spec_digest
from hmcore.records import Instance, InstanceHealth, Maintenance, Node, NodeState, Registration, Role
from node_agent.container.info import ContainerInfo
from node_agent.network.names import Directory, Found, Unknown
from node_agent.network.plan import Place
from node_agent.network.ruleset import Endpoint, Published
from node_agent.network.wanted import Known, Wanted, wanted
from node_agent.registry.registry import Catalogue

CIDR = "10.210.0.0/16"
H = InstanceHealth
PORTS = (Port(target=8080, published=80),)
WEB = ServiceSpec(container=ContainerSpec(image="web:1", networks={"front": ("www",)}), ports=PORTS)
SHOP = AppSpec(services={"web": WEB, "db": ServiceSpec(container=ContainerSpec(image="db:1"))})


def made(number: int, spec: AppSpec = SHOP, app: str = "shop") -> Generation:
    return Generation(app=app, number=number, spec=spec, digest=spec_digest(spec))


def instance(node: int, slot: int, *, service: str = "web", generation: int = 1, **given: object) -> Instance:
    fields = {
        "id": f"node{node}/{service}-{slot}",
        "service": f"shop/{service}",
        "node": f"node{node}",
        "address": f"10.210.{node}.{slot + 1}",
        "port": 1,
        "health": H.HEALTHY,
        "attributes": {"allocation": f"shop/{service}.{slot}.{slot}", "generation": str(generation)},
    }
    return Instance(**(fields | given))  # type: ignore[arg-type]


def node(number: int, state: NodeState = NodeState.READY) -> Node:
    return Node(name=f"node{number}", address=f"192.0.2.{number}", port=7443, role=Role.WORKER, release="r", state=state)


def look(
    *instances: Instance,
    generations: tuple[Generation, ...] = (made(1),),
    out: tuple[str, ...] = (),
    states: dict[int, NodeState] | None = None,
    subnets: tuple[int, ...] = (1, 2, 3),
    containers: tuple[ContainerInfo, ...] = (),
) -> Wanted:
    nodes = {f"node{number}": node(number, (states or {}).get(number, NodeState.READY)) for number in (1, 2, 3)}
    registrations = {
        name: Registration(revision=1, incarnation=1, instances=tuple(each for each in instances if each.node == name)) for name in nodes
    }
    catalogue = Catalogue()
    catalogue.update(nodes, registrations, {target: Maintenance(target=target) for target in out})
    known = Known(
        nodes,
        {f"node{number}": Subnet(node=f"node{number}", cidr=f"10.210.{number}.0/24") for number in subnets},
        {each.key: each for each in generations},
        catalogue,
        containers,
    )
    return wanted("node1", CIDR, known)


def endpoints(found: Wanted, port: int = 80) -> set[str]:
    (one,) = (each for each in found.published if each.port == port)
    return {each.address for each in one.endpoints}


def test_places_are_nodes_that_have_a_subnet():
    found = look(subnets=(1, 3))
    assert found.own == Place("node1", "192.0.2.1", "10.210.1.0/24")
    assert found.others == (Place("node3", "192.0.2.3", "10.210.3.0/24"),)
    assert look(subnets=(2,)).own is None


def test_traffic_goes_to_who_is_fit_as_the_registry_has_it():
    everybody = (instance(1, 1), instance(2, 2), instance(3, 3))
    assert endpoints(look(*everybody)) == {"10.210.1.2", "10.210.2.3", "10.210.3.4"}
    assert endpoints(look(*everybody, out=("node2/web-2",))) == {"10.210.1.2", "10.210.3.4"}
    assert endpoints(look(*everybody, out=("node3/",))) == {"10.210.1.2", "10.210.2.3"}
    assert endpoints(look(*everybody, states={1: NodeState.DOWN})) == {"10.210.2.3", "10.210.3.4"}
    assert endpoints(look(instance(1, 1, health=H.UNHEALTHY), instance(2, 2, health=H.UNKNOWN))) == set()
    assert endpoints(look(instance(1, 1, priority=1), instance(2, 2))) == {"10.210.2.3"}
    assert endpoints(look(instance(1, 1, weight=0), instance(2, 2))) == {"10.210.2.3"}


def test_weights_and_targets_come_with_the_endpoints():
    assert look(instance(1, 1, weight=7)).published == (Published("tcp", 80, (Endpoint("10.210.1.2", 8080, 7),)),)


def test_who_has_no_address_in_the_containers_network_gets_nothing():
    assert endpoints(look(instance(1, 1, address=""), instance(2, 2, address="192.0.2.2"), instance(3, 3, address="fd00::1"))) == set()


def test_who_only_calls_himself_one_is_none():
    """A label is soon written."""
    for attributes in ({}, {"allocation": "shop/other.1.1"}, {"allocation": "nonsense"}, {"allocation": "blog/web.1.1"}):
        assert endpoints(look(instance(1, 1, attributes=attributes))) == set()


def test_a_replica_of_an_old_generation_answers_where_it_listens_if_its_container_is_another():
    image = ServiceSpec(container=ContainerSpec(image="web:2"), ports=(Port(target=9090, published=80),))
    newer = made(2, AppSpec(services={"web": image}))
    found = look(instance(1, 1, generation=1), instance(2, 2, generation=2), generations=(made(1), newer))
    assert found.published == (Published("tcp", 80, (Endpoint("10.210.1.2", 8080), Endpoint("10.210.2.3", 9090))),)


def test_a_container_that_stays_as_it_is_takes_on_the_ports_of_the_new_generation():
    ports = (Port(target=8080, published=80), Port(target=8081, published=81))
    newer = made(2, AppSpec(services={"web": ServiceSpec(container=WEB.container, ports=ports)}))
    assert endpoints(look(instance(1, 1, generation=1), generations=(made(1), newer)), 81) == {"10.210.1.2"}


def test_a_service_that_is_left_out_answers_as_long_as_it_runs():
    newer = made(2, AppSpec(services={"db": SHOP.services["db"]}))
    assert endpoints(look(instance(1, 1), generations=(made(1), newer))) == {"10.210.1.2"}
    assert look(generations=(made(1), newer)).published == ()


def test_a_generation_that_is_not_known_any_more_is_taken_for_the_current_one():
    assert endpoints(look(instance(1, 1, generation=1), generations=(made(5),))) == {"10.210.1.2"}


def test_names_are_of_services_in_their_networks_and_of_replicas():
    found = look(instance(1, 1), instance(2, 2, priority=9), instance(3, 3, health=H.UNHEALTHY), instance(1, 9, service="db"))
    names = Directory(CIDR, found.services, {"10.210.1.77": ("shop", "web")})

    def ask(name: str) -> object:
        return names.resolve("10.210.1.77", name, 1, 0)

    assert ask("web") == ask("www.shop") == Found(("10.210.1.2",))
    assert ask("2.web") == ask("shop-web-2") == Found(("10.210.2.3",))  # it is well, and only another's turn
    assert ask("3.web") != Found(("10.210.3.4",))
    assert ask("db") == Unknown()  # in another network


def test_containers_of_this_node_may_ask_before_the_registry_knows_them():
    labels = {"hypermesh.app": "shop", "hypermesh.service": "shop/web", "hypermesh.allocation": "shop/web.4.4"}
    fresh = ContainerInfo("a" * 64, "shop-web-4-4", "shop/web", address="10.210.1.9", labels=labels)
    ended = ContainerInfo("b" * 64, "x", "shop/web", address="10.210.1.10", labels=labels, state="exited")
    by_hand = ContainerInfo("c" * 64, "y", "shop/web", address="10.210.1.11", labels={"hypermesh.service": "shop/web"})
    assert look(containers=(fresh, ended, by_hand)).askers == {"10.210.1.9": ("shop", "web")}
