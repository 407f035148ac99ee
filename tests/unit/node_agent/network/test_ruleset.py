"""The packet filter's text: what is asked for stands in it, nothing else can get in, and updates lose nobody."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.config.settings import Network
from hmcore.errors import UsageError
from node_agent.network import ruleset
from node_agent.network.loaded import Loaded, loaded_of, moved, update
from node_agent.network.plan import Desired, Place
from node_agent.network.ruleset import Base, Endpoint, Published, Service, service, version, whole

BASE = Base("10.210.0.0/16", "10.210.0.0/24", "10.210.0.1", ("eth0", "hmvx"), ("192.0.2.2",), 4789)


def carried_out(transactions, loaded):
    """What nft makes of it, by its words; and that no step leads to a chain that is not there."""
    loaded = loaded or Loaded("", {}, frozenset())
    name, answers, chains = loaded.version, dict(loaded.answers), set(loaded.chains)
    rules, nodes = dict(loaded.rules), set(loaded.nodes)
    for transaction in transactions:
        for line in transaction.splitlines():
            match line.split(" ", 4):
                case ["delete", "table", *_]:
                    name, answers, chains, rules, nodes = "", {}, set(), {}, set()
                case ["add", "chain", "ip", "hm_net", rest] if rest.startswith("base_"):
                    name = rest
                case ["add", "chain", "ip", "hm_net", rest] if rest.startswith("to_"):
                    assert rest not in chains
                    chains.add(rest)
                case ["add", "rule", "ip", "hm_net", rest]:
                    chain = rest.split()[0]
                    assert not chain.startswith("to_") or chain in chains
                    rules[chain] = rules.get(chain, 0) + 1
                case ["delete", "chain", "ip", "hm_net", chain] if chain.startswith("base_"):
                    assert chain == name
                    name = ""
                case ["delete", "chain", "ip", "hm_net", chain]:
                    assert chain not in answers.values(), "the kernel refuses it"
                    chains.remove(chain)
                    rules.pop(chain)
                case ["flush", "chain", "ip", "hm_net", chain]:
                    rules.pop(chain, None)
                case [verb, "element", "ip", "hm_net", rest] if rest.startswith("nodes "):
                    named = set(rest.removeprefix("nodes ").strip("{} ").split(", "))
                    assert (named <= nodes) is (verb == "delete"), "the kernel refuses it"
                    nodes = nodes - named if verb == "delete" else nodes | named
                case [verb, "element", "ip", "hm_net", rest]:
                    kind, _, elements = rest.partition(" ")
                    assert {element.count(" . ") for element in elements.split(", ")} == {2 if kind.endswith("_at") else 1}
                    for element in elements.strip("{} ").split(", "):
                        key, _, chain = element.partition(" : goto ")
                        if verb == "delete":
                            assert (answers.pop(key) != "") is kind.startswith("published")
                        else:
                            assert key not in answers
                            assert not chain or chain in chains
                            answers[key] = chain
        assert all(chain in chains for chain in answers.values() if chain)
    return Loaded(name, answers, frozenset(chains), rules, frozenset(nodes))


endpoints = st.builds(
    Endpoint, st.integers(2, 250).map(lambda number: f"10.210.{number % 3}.{number}"), st.integers(1, 65_535), st.integers(0, 1_000_000)
)
ports = st.lists(
    st.builds(
        Published,
        st.sampled_from(["tcp", "udp"]),
        st.integers(1, 9),
        st.lists(endpoints, max_size=4).map(tuple),
        st.sampled_from(["", "", "127.0.0.1", "192.0.2.1"]),
    ),
    max_size=6,
    unique_by=lambda each: (each.protocol, each.port, each.address),
)


@pytest.mark.long
@given(st.lists(ports, min_size=1, max_size=5), st.integers(0, 3))
def test_from_anything_to_anything_even_when_an_update_was_broken_off(rounds, broken):
    loaded = None
    for published in rounds[:-1]:
        loaded = carried_out(update(BASE, [service(BASE, each) for each in published], loaded)[:broken], loaded)
        loaded = loaded if loaded.version else None
    services = [service(BASE, each) for each in rounds[-1]]
    after = carried_out(update(BASE, services, loaded), loaded)
    assert after.answers == {each.element: each.chain for each in services}
    assert after.chains == {each.chain for each in services if each.chain}
    assert update(BASE, services, after) == ()


@given(ports, ports)
def test_an_update_touches_only_what_changed(before, after):
    old, new = ([service(BASE, each) for each in each_round] for each_round in (before, after))
    text = "".join(update(BASE, new, carried_out((whole(BASE, old),), None)))
    for each in set(old) & set(new):
        assert not re.search(rf"[{{,] {re.escape(each.element)}[ ,]", text)
        assert not each.chain or each.chain not in text


def test_a_change_of_one_port_is_three_transactions_in_the_order_that_loses_nobody():
    old = service(BASE, Published("tcp", 80, (Endpoint("10.210.0.5", 8080),)))
    new = service(BASE, Published("tcp", 80, (Endpoint("10.210.1.5", 8080),)))
    made, turned, dropped = update(BASE, [new], carried_out((whole(BASE, [old]),), None))
    assert made.splitlines() == [
        f"add chain ip hm_net {new.chain}",
        f"add rule ip hm_net {new.chain} meta l4proto tcp dnat ip to 10.210.1.5:8080",
    ]
    assert turned.splitlines() == [
        "delete element ip hm_net published { tcp . 80 }",
        f"add element ip hm_net published {{ tcp . 80 : goto {new.chain} }}",
    ]
    assert dropped.splitlines() == [f"delete chain ip hm_net {old.chain}"]


def test_shares_are_weights():
    found = service(
        BASE, Published("tcp", 80, (Endpoint("10.210.0.5", 80, 50), Endpoint("10.210.1.6", 81, 100), Endpoint("10.210.1.7", 82, 0)))
    )
    assert found.rule == "meta l4proto tcp dnat ip to numgen random mod 3 map { 0 : 10.210.0.5 . 80, 1-2 : 10.210.1.6 . 81 }"


@given(st.lists(endpoints, min_size=2, max_size=8, unique_by=lambda each: each.address))
def test_every_number_that_is_drawn_leads_to_somebody_by_weight(chosen):
    found = service(BASE, Published("tcp", 80, tuple(chosen)))
    weighed = {each.address: each.weight for each in chosen if each.weight}
    if len(weighed) < 2:
        return
    modulus = int(re.search(r"mod (\d+)", found.rule)[1])
    spans = [(int(low), int(high or low), address) for low, high, address in re.findall(r"(\d+)(?:-(\d+))? : ([\d.]+) \.", found.rule)]
    assert [low for low, _, _ in spans] == [0, *(high + 1 for _, high, _ in spans[:-1])]
    assert spans[-1][1] == modulus - 1
    for low, high, address in spans:
        assert (high - low + 1) * sum(weighed.values()) == weighed[address] * modulus


def test_the_same_endpoints_in_another_order_are_the_same_chain():
    one, two = Endpoint("10.210.0.5", 80), Endpoint("10.210.1.6", 80)
    assert service(BASE, Published("tcp", 80, (one, two))) == service(BASE, Published("tcp", 80, (two, one, two)))


def test_the_same_endpoints_on_one_address_and_on_all_are_two_chains():
    """Or there would be one with two rules."""
    both = [service(BASE, Published("tcp", 80, (Endpoint("10.210.0.5", 80),), address)) for address in ("", "127.0.0.1")]
    assert len({each.chain for each in both}) == 2
    assert update(BASE, both, carried_out((whole(BASE, both),), None)) == ()


def test_udp_ports_that_lead_elsewhere_are_told_with_who_answers_there():
    def published(port: int, *addresses: str, protocol: str = "udp", at: str = "") -> Service:
        return service(BASE, Published(protocol, port, tuple(Endpoint(address, 53) for address in addresses), at))

    before = [published(53, "10.210.0.5", "10.210.0.6"), published(54, "10.210.0.5"), published(55, "10.210.0.5")]
    loaded = carried_out((whole(BASE, before),), None)
    assert moved(before, loaded) == ()
    after = [published(53, "10.210.0.6"), published(54, "10.210.0.5"), published(80, "10.210.0.5", protocol="tcp")]
    assert moved(after, loaded) == ((53, frozenset({"10.210.0.6"})), (55, frozenset()))
    beside = [*before, published(53, "10.210.0.9", at="127.0.0.1")]
    assert moved(beside, loaded) == ((53, frozenset({"10.210.0.5", "10.210.0.6", "10.210.0.9"})),)
    assert moved(before[:1], None) == ((53, frozenset({"10.210.0.5", "10.210.0.6"})),)


def test_nobody_fit_is_refused_and_not_forwarded():
    for nobody in ((), (Endpoint("10.210.0.5", 80, 0),)):
        found = service(BASE, Published("udp", 53, nobody))
        assert found == Service("udp . 53")
        assert "add element ip hm_net refused { udp . 53 }" in whole(BASE, [found])


@pytest.mark.parametrize(
    "wrong",
    [
        Published("icmp", 80),
        Published("tcp", 0),
        Published("tcp", 65_536),
        Published("tcp", True),
        Published("tcp", 80, address="127.0.0.1 . tcp"),
        Published("tcp", 80, address="::1"),
        Published("tcp", 80, (Endpoint("192.0.2.7", 80),)),  # not in the containers' network
        Published("tcp", 80, (Endpoint("10.210.0.5; flush ruleset", 80),)),
        Published("tcp", 80, (Endpoint("10.210.0.5", 0),)),
        Published("tcp", 80, (Endpoint("10.210.0.5", 80, -1),)),
        Published("tcp", 80, (Endpoint("10.210.0.5", "80 }"),)),
    ],
)
def test_what_could_say_something_else_to_nft_is_refused(wrong):
    with pytest.raises(UsageError):
        service(BASE, wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cidr": "10.210.0.0/16 accept"},
        {"subnet": "x"},
        {"gateway": "10.210.9.1"},
        {"carriers": ('eth0" accept',)},
        {"carriers": ("eth0\n",)},
        {"nodes": ("192.0.2.2, 0.0.0.0/0",)},
        {"vxlan_port": 70_000},
    ],
)
def test_a_base_that_could_is_refused_too(wrong):
    fields = {name: getattr(BASE, name) for name in ("cidr", "subnet", "gateway", "carriers", "nodes", "vxlan_port")} | wrong
    with pytest.raises(UsageError):
        whole(Base(**fields), [])


@given(ports)
def test_every_line_is_about_our_table(published):
    text = whole(BASE, [service(BASE, each) for each in published])
    assert all(re.match(r"(add|delete|flush) (table|chain|map|set|element|rule) ip hm_net\b", line) for line in text.splitlines())


OTHERS = [
    replace(BASE, nodes=()),
    replace(BASE, nodes=("192.0.2.3", "192.0.2.4")),
    replace(BASE, nodes=("192.0.2.2", "192.0.2.4")),
    replace(BASE, carriers=("eth0", "eth1")),
    replace(BASE, subnet="10.210.7.0/24", gateway="10.210.7.1", nodes=("192.0.2.9",)),
    replace(BASE, vxlan_port=4790),
]


@pytest.mark.parametrize("other", OTHERS)
def test_another_base_exchanges_rules_and_nodes_and_leaves_maps_and_chains_where_they_are(other):
    """While a table is made anew, a connection that begins may be led nowhere: nodes come and go."""
    services = [service(BASE, Published("tcp", 80, (Endpoint("10.210.0.5", 80),)))]
    loaded = carried_out((whole(BASE, services),), None)
    assert loaded.version == version(BASE)
    assert update(BASE, services, loaded) == ()
    steps = update(other, services, loaded)
    assert len(steps) == 1
    assert "table" not in steps[0].split()
    assert "delete map" not in steps[0]
    assert ("flush chain" in steps[0]) is (replace(other, nodes=BASE.nodes) != BASE)
    after = carried_out(steps, loaded)
    assert after == carried_out((whole(other, services),), None)
    assert update(other, services, after) == ()


def test_a_table_of_another_kind_is_made_anew():
    loaded = carried_out((whole(BASE, []),), None)
    assert update(BASE, [], replace(loaded, version="base_0123_4567")) == (whole(BASE, []),)
    assert update(BASE, [], replace(loaded, version="")) == (whole(BASE, []),)


def test_who_may_send_tunnels_are_the_other_nodes_with_addresses_of_the_kind():
    own = Place("node1", "192.0.2.1", "10.210.0.0/24")
    others = [own, Place("node2", "192.0.2.3", "10.210.1.0/24"), Place("node3", "2001:db8::3", "10.210.2.0/24")]
    found = ruleset.base(Network(cidr="10.210.0.0/16"), own, others, Desired(carriers=("eth0",), unreachable={"node3": "no IPv4 address"}))
    assert found == Base("10.210.0.0/16", "10.210.0.0/24", "10.210.0.1", ("eth0",), ("192.0.2.3",), 4789)


LISTING = {
    "nftables": [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "ip", "name": "hm_net", "handle": 1}},
        {"map": {"name": "published", "elem": [[{"concat": ["tcp", 80]}, {"goto": {"target": "to_tcp_80_aa"}}]], "map": "verdict"}},
        {"set": {"name": "refused", "elem": [{"concat": ["udp", 53]}]}},
        {"chain": {"name": "leaving", "type": "nat"}},
        {"chain": {"name": "to_tcp_80_aa"}},
        {"chain": {"name": "to_tcp_81_bb"}},
        {"chain": {"name": "base_cc"}},
        {"map": {"name": "published_at", "elem": [[{"concat": ["127.0.0.1", "tcp", 81]}, {"goto": {"target": "to_tcp_81_bb"}}]]}},
        {"set": {"name": "refused_at", "elem": [{"concat": ["127.0.0.1", "tcp", 82]}]}},
        {"set": {"name": "nodes", "elem": ["192.0.2.2"]}},
        {"rule": {"chain": "leaving", "expr": []}},
        {"rule": {"chain": "leaving", "expr": []}},
        {"rule": {"chain": "to_tcp_80_aa", "expr": []}},
    ]
}


def test_what_is_loaded_is_read_from_nfts_own_listing():
    assert loaded_of(LISTING) == Loaded(
        "base_cc",
        {"tcp . 80": "to_tcp_80_aa", "udp . 53": "", "127.0.0.1 . tcp . 81": "to_tcp_81_bb", "127.0.0.1 . tcp . 82": ""},
        frozenset({"to_tcp_80_aa", "to_tcp_81_bb"}),
        {"leaving": 2, "to_tcp_80_aa": 1},
        frozenset({"192.0.2.2"}),
    )


@pytest.mark.parametrize("chain", ["strangers", "entering", "refuse"])
@pytest.mark.parametrize("more", [-1, 1])
def test_rules_that_somebody_took_away_or_added_are_put_right_in_their_place(chain, more):
    """`nft flush chain` and `flush table` leave all names as they were."""
    services = [service(BASE, Published("tcp", 80, (Endpoint("10.210.0.5", 80),)))]
    loaded = carried_out((whole(BASE, services),), None)
    spoilt = replace(loaded, rules={**loaded.rules, chain: loaded.rules[chain] + more})
    steps = update(BASE, services, spoilt)
    assert "table" not in "".join(steps).split()
    assert carried_out(steps, spoilt) == loaded
    without = replace(loaded, rules={name: count for name, count in loaded.rules.items() if name != chain})  # the chain itself is gone
    assert carried_out(update(BASE, services, without), without) == loaded
    alone = replace(loaded, nodes=frozenset())
    assert carried_out(update(BASE, services, alone), alone) == loaded


@pytest.mark.parametrize("counts", [{"to_tcp_80_": 0}, {"to_tcp_80_": 2}, {"theirs": 1}])
def test_rules_in_places_that_are_none_make_it_load_anew(counts):
    services = [service(BASE, Published("tcp", 80, (Endpoint("10.210.0.5", 80),)))]
    loaded = carried_out((whole(BASE, services),), None)
    rules = dict(loaded.rules)
    for chain, count in counts.items():
        name = next((each for each in rules if each.startswith(chain)), chain)
        rules |= {name: count} if count else {}
        if not count:
            del rules[name]
    assert update(BASE, services, replace(loaded, rules=rules)) == (whole(BASE, services),)


json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["published", "refused", "nodes", "rule", "base_x", "to_y", "tcp"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["nftables", "map", "set", "chain", "rule", "name", "elem", "concat", "goto", "target"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(json)
def test_any_listing_is_read(listing):
    found = loaded_of(listing)
    assert found is None or isinstance(found, Loaded)
    found = loaded_of({"nftables": [listing]})
    assert isinstance(found, Loaded)
