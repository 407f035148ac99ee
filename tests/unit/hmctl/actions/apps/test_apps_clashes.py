"""Ports that two apps want."""

from __future__ import annotations

import pytest

from hmcore.apps.calls import AppsReply
from hmcore.apps.records import App, Generation
from hmcore.apps.spec import AppSpec, ContainerSpec, Port, ServiceSpec, spec_digest
from hmcore.errors import PortPublished
from hmctl.actions.apps.clashes import new_claims, refuse_clashes
from hmctl.actions.apps.view import Seen

EVERYWHERE = Port(target=8080, published=80)
UDP = Port(target=8080, published=80, protocol="udp")
THERE = Port(target=8080, published=80, mode="host")
LOCALLY = Port(target=8080, published=80, mode="host", address="127.0.0.1")
ANY = Port(target=80, mode="host")


def service(*ports: Port, replicas: int = 1, network: str = "") -> ServiceSpec:
    container = ContainerSpec(image="web:1", network_mode=network)  # type: ignore[arg-type]
    return ServiceSpec(container=container, ports=ports, replicas=replicas)


def app(*ports: Port, replicas: int = 1, network: str = "") -> AppSpec:
    return AppSpec(services={"web": service(*ports, replicas=replicas, network=network)})


def seen(*, stopping: bool = False, **specs: AppSpec) -> Seen:
    made = [Generation(app=name, number=1, spec=spec, digest=spec_digest(spec)) for name, spec in specs.items()]
    return Seen(
        "node1", True, AppsReply(index=9, apps=[App(name=name, generation=1, stopping=stopping) for name in specs], generations=made)
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (app(EVERYWHERE), app(EVERYWHERE)),
        (app(EVERYWHERE), app(THERE)),
        (app(THERE), app(EVERYWHERE)),
        (app(LOCALLY), app(EVERYWHERE)),
        (app(EVERYWHERE), app(Port(target=80), network="host")),
        (app(Port(target=80), network="host"), app(EVERYWHERE)),
    ],
)
def test_a_port_that_another_app_has_is_refused(ours: AppSpec, theirs: AppSpec) -> None:
    with pytest.raises(PortPublished, match=r"^port 80/tcp of web belongs to blog/web: ") as error:
        refuse_clashes(new_claims(None, ours), seen(blog=theirs), "shop")
    assert error.value.fix == "publish another one, or take it from blog first: hmctl app ps blog"


@pytest.mark.parametrize(
    ("ours", "others"),
    [
        (app(UDP), seen(blog=app(EVERYWHERE))),
        (app(THERE), seen(blog=app(THERE))),  # on different nodes, perhaps
        (app(ANY), seen(blog=app(EVERYWHERE))),
        (app(EVERYWHERE), seen(blog=app(EVERYWHERE), stopping=True)),
        (app(EVERYWHERE), seen(blog=app(EVERYWHERE, replicas=0))),
        (app(EVERYWHERE, replicas=0), seen(blog=app(EVERYWHERE))),
        (app(EVERYWHERE), seen(shop=app(EVERYWHERE))),
        (app(EVERYWHERE), seen()),
    ],
)
def test_what_can_be_had_is_not(ours: AppSpec, others: Seen) -> None:
    refuse_clashes(new_claims(None, ours), others, "shop")


@pytest.mark.parametrize(
    ("present", "wanted", "new"),
    [
        (None, app(), False),
        (None, app(EVERYWHERE), True),
        (app(EVERYWHERE), app(EVERYWHERE, replicas=3), False),
        (app(EVERYWHERE), app(THERE), False),  # less
        (app(THERE), app(EVERYWHERE), True),  # more
        (app(EVERYWHERE, replicas=0), app(EVERYWHERE), True),
        (app(EVERYWHERE), app(EVERYWHERE, UDP), True),
        (app(EVERYWHERE), AppSpec(services={"front": service(EVERYWHERE)}), False),
    ],
)
def test_only_what_an_app_does_not_claim_already_is_looked_at(present: AppSpec | None, wanted: AppSpec, new: bool) -> None:
    assert bool(new_claims(present, wanted)) is new


def test_every_port_and_whose_it_is_are_named() -> None:
    ours = AppSpec(services={"web": service(EVERYWHERE, Port(target=1, published=443)), "dns": service(UDP)})
    with pytest.raises(PortPublished) as error:
        refuse_clashes(new_claims(None, ours), seen(blog=app(EVERYWHERE), names=app(UDP)), "shop")
    assert error.value.message.startswith("port 80/tcp of web belongs to blog/web; port 80/udp of dns belongs to names/web: ")
