"""Who asks for what, and what it is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import UsageError
from node_agent.network.message import AAAA, PTR, A
from node_agent.network.names import Called, Directory, Elsewhere, Empty, Found, NotYet, Replica, Service, Unknown

CIDR = "10.210.0.0/16"
WEB = Service(
    "shop",
    "web",
    {"front": ("www",), "back": ()},
    (Replica(1, "10.210.0.2"), Replica(2, "10.210.1.2"), Replica(3, "10.210.2.2", fit=False)),
)
DB = Service("shop", "db", {"back": ("postgres",)}, (Replica(1, "10.210.0.3"),))
PROXY = Service("shop", "proxy", {"front": ()}, (Replica(1, "10.210.0.4"),))
BLOG = Service("blog", "web", {}, (Replica(1, "10.210.0.5"),))
IDLE = Service("shop", "idle", {"front": (), "back": ()}, ())
DIRECTORY = Directory(CIDR, [WEB, DB, PROXY, BLOG, IDLE], {"10.210.0.9": ("shop", "proxy")})
PROXY_ADDRESS, DB_ADDRESS, BLOG_ADDRESS, FRESH, STRANGER = "10.210.0.4", "10.210.0.3", "10.210.0.5", "10.210.0.9", "10.210.0.77"


def ask(asker, name, kind=A, turn=0):
    return DIRECTORY.resolve(asker, name, kind, turn)


def test_a_service_is_all_its_fit_replicas():
    assert ask(PROXY_ADDRESS, "web") == Found(("10.210.0.2", "10.210.1.2"))


@pytest.mark.parametrize("name", ["web", "www", "web.shop", "www.shop"])
def test_a_service_has_aliases_and_may_be_called_with_its_app(name):
    assert ask(PROXY_ADDRESS, name) == Found(("10.210.0.2", "10.210.1.2"))


@pytest.mark.parametrize("name", ["shop_web", "tasks.web", "tasks.www", "tasks.shop_web", "tasks.web.shop"])
def test_a_service_answers_to_what_swarm_calls_it(name):
    assert ask(PROXY_ADDRESS, name) == Found(("10.210.0.2", "10.210.1.2"))
    assert ask(FRESH, name) == Found(("10.210.0.2", "10.210.1.2"))
    assert ask(PROXY_ADDRESS, name, AAAA) == Empty()


def test_what_is_really_called_as_swarm_would_call_another_goes_before():
    services = [
        Service("shop", "web", {}, (Replica(1, "10.210.0.2"),)),
        Service("shop", "tasks.web", {"default": (), "back": ()}, (Replica(1, "10.210.0.3"),)),
        Service("shop", "db", {"back": ("shop_web",)}, (Replica(1, "10.210.0.4"),)),
        Service("shop", "both", {"default": (), "back": ()}, (Replica(1, "10.210.0.5"),)),
    ]
    directory = Directory(CIDR, services, {})
    assert directory.resolve("10.210.0.2", "tasks.web", A, 0) == Found(("10.210.0.3",))
    assert directory.resolve("10.210.0.2", "tasks.tasks.web", A, 0) == Found(("10.210.0.3",))
    assert directory.resolve("10.210.0.2", "shop_web", A, 0) == Found(("10.210.0.2",))  # the alias is in another network
    assert directory.resolve("10.210.0.5", "shop_web", A, 0) == Found(("10.210.0.4",))


@pytest.mark.parametrize(("name", "address"), [("shop-web-1", "10.210.0.2"), ("2.web", "10.210.1.2")])
def test_a_replica_has_names_of_its_own(name, address):
    assert ask(PROXY_ADDRESS, name) == Found((address,))


def test_a_replica_that_is_not_fit_has_a_name_and_no_address():
    assert ask(PROXY_ADDRESS, "3.web") == Empty()
    assert ask(PROXY_ADDRESS, "idle") == Empty()


@pytest.mark.parametrize(
    ("asker", "name"),
    [
        (PROXY_ADDRESS, "db"),  # in another network of the app
        (PROXY_ADDRESS, "db.shop"),
        (PROXY_ADDRESS, "shop-db-1"),
        (DB_ADDRESS, "www"),  # an alias in the other network
        (DB_ADDRESS, "proxy"),
        (BLOG_ADDRESS, "db"),  # another app
        (PROXY_ADDRESS, "9.web"),
        (PROXY_ADDRESS, "nobody"),
        (PROXY_ADDRESS, "shop_db"),
        (PROXY_ADDRESS, "shop_www"),  # Swarm calls services so, not their aliases
        (BLOG_ADDRESS, "shop_web"),
        (PROXY_ADDRESS, "tasks.db.shop"),
        (PROXY_ADDRESS, "nobody.shop"),
        (PROXY_ADDRESS, "a.b.shop"),
    ],
)
def test_what_the_asker_has_no_network_with_is_unknown(asker, name):
    assert ask(asker, name) == Unknown()


def test_the_same_name_in_two_apps_is_two_services():
    assert ask(BLOG_ADDRESS, "web") == Found(("10.210.0.5",))
    assert ask(DB_ADDRESS, "web") == Found(("10.210.0.2", "10.210.1.2"))


@pytest.mark.parametrize(
    "name", ["example.org", "web.blog", "1.example", "www.example.com", "2.pool.ntp.org", "tasks.db", "tasks.org", "tasks.1.web", ""]
)
def test_what_others_know_they_are_asked(name):
    assert ask(PROXY_ADDRESS, name) == Elsewhere()


@pytest.mark.parametrize("kind", [AAAA, 15, 16, 33, 65])
def test_what_we_have_no_records_of_is_empty_and_not_unknown(kind):
    """An unknown name would end the search of a client that asks for both kinds of address at once."""
    assert ask(PROXY_ADDRESS, "web", kind) == Empty()
    assert ask(PROXY_ADDRESS, "nobody", kind) == Unknown()


def test_a_container_may_ask_before_it_is_known_to_others():
    assert ask(FRESH, "web") == Found(("10.210.0.2", "10.210.1.2"))


def test_who_is_not_known_yet_is_to_ask_again():
    assert ask(STRANGER, "web") == NotYet()
    assert ask(STRANGER, "tasks.web") == NotYet()
    assert ask(STRANGER, "tasks.example.org") == Elsewhere()
    assert ask(STRANGER, "example.org") == Elsewhere()


def test_each_turn_begins_with_another():
    assert [ask(PROXY_ADDRESS, "web", turn=turn).addresses[0] for turn in range(4)] == ["10.210.0.2", "10.210.1.2"] * 2


def test_addresses_have_names_for_those_who_may_know_them():
    assert ask(DB_ADDRESS, "2.1.210.10.in-addr.arpa", PTR) == Called("shop-web-2")
    assert ask(BLOG_ADDRESS, "2.1.210.10.in-addr.arpa", PTR) == Unknown()
    assert ask(STRANGER, "2.1.210.10.in-addr.arpa", PTR) == Unknown()
    assert ask(DB_ADDRESS, "99.1.210.10.in-addr.arpa", PTR) == Unknown()
    assert ask(DB_ADDRESS, "2.1.210.10.in-addr.arpa", A) == Empty()
    assert ask(DB_ADDRESS, "8.8.8.8.in-addr.arpa", PTR) == Elsewhere()
    assert ask(DB_ADDRESS, "999.1.210.10.in-addr.arpa", PTR) == Elsewhere()


def test_names_are_compared_in_lower_case():
    directory = Directory(CIDR, [Service("Shop", "Web", {}, (Replica(1, "10.210.0.2"),))], {})
    for name in ("web", "web.shop", "shop-web-1", "1.web"):
        assert directory.resolve("10.210.0.2", name, A, 0) == Found(("10.210.0.2",))


def test_a_service_name_with_dots_is_one_name():
    directory = Directory(CIDR, [Service("shop", "a.b", {}, (Replica(1, "10.210.0.2"),))], {})
    assert directory.resolve("10.210.0.2", "a.b", A, 0) == Found(("10.210.0.2",))


def test_a_network_that_is_none_is_refused():
    with pytest.raises(UsageError):
        Directory("x", [], {})


@st.composite
def worlds(draw):
    services = []
    for app in ("a", "b"):
        for name in draw(st.sets(st.sampled_from(["x", "y", "z"]))):
            networks = draw(st.dictionaries(st.sampled_from(["m", "n"]), st.just(()), max_size=2))
            addresses = draw(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=3))
            number = len(services)
            replicas = tuple(Replica(slot, f"10.210.{number}.{index + 2}", fit) for index, (slot, fit) in enumerate(addresses))
            services.append(Service(app, name, networks, replicas))
    return services


names = st.one_of(
    st.sampled_from(["x", "y", "z", "x.a", "1.x", "2.y", "a-x-1", "b-z-2", "x.b", "a_x", "tasks.y", "tasks.b_z", "example.org"]),
    st.text(alphabet="abxyz123.-_", max_size=12),
)


@given(worlds(), names, st.sampled_from([A, AAAA, PTR]), st.integers(0, 5), st.integers(0, 8))
def test_nobody_is_told_of_a_replica_that_is_unfit_or_in_no_network_of_theirs(services, name, kind, turn, who):
    directory = Directory(CIDR, services, {})
    everybody = [(service, replica) for service in services for replica in service.replicas]
    asker, own = (everybody[who % len(everybody)][1].address, everybody[who % len(everybody)][0]) if everybody else (STRANGER, None)
    reply = directory.resolve(asker, name, kind, turn)
    if isinstance(reply, Found):
        assert kind == A
        allowed = {
            replica.address
            for service, replica in everybody
            if replica.fit and service.app == own.app and set(service.networks or {"default"}) & set(own.networks or {"default"})
        }
        assert set(reply.addresses) <= allowed
        assert len(set(reply.addresses)) == len(reply.addresses)
        assert set(directory.resolve(asker, name, kind, turn + 1).addresses) == set(reply.addresses)
