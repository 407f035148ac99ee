"""What holds of every two files that are merged, whatever is in them."""

import pytest
from compose_services import SERVICE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hmcore.config import yaml12, yaml_writing
from hmctl.compose.forms import shaped
from hmctl.compose.merge import merge
from hmctl.compose.project import Place
from hmctl.compose.sources import scalar
from hmctl.compose.tree import OVERRIDE, RESET, Node, harvested, planted, settled
from hmctl.compose.trouble import Trouble

BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be
PLACE = Place("x.yaml", 1)


def tree(text, file="x.yaml"):
    trouble = Trouble()
    root = shaped(planted(yaml12.parse(text, file, tags={RESET, OVERRIDE}, scalar=scalar)), trouble)
    assert not trouble.serious, trouble.all()
    return root


def service_tree(service):
    return tree(yaml_writing.dump({"services": {"s": {"image": "i", **service}}}))


def over(below, *above):
    """Each over those before it, as files are."""
    trouble, whole = Trouble(), settled(below)
    for one in above:
        whole = settled(merge(whole, one, trouble))
    assert not trouble.serious, trouble.all()
    return whole


def plain(root):
    return harvested(root).value


@BUSY
@given(SERVICE)
def test_nothing_below_nothing_above_and_twice_the_same(service):
    root = service_tree(service)
    itself = plain(over(tree("{}"), root))
    assert plain(over(root, tree("{}"))) == plain(root)
    assert plain(over(root, tree("services: {}"))) == plain(root)
    once = over(tree("{}"), root)
    assert plain(over(once, root)) == itself


@pytest.mark.long
@BUSY
@given(SERVICE, SERVICE, SERVICE)
def test_it_is_the_same_whether_the_first_two_or_the_last_two_are_merged_first(first, second, third):
    """Else what a file means would depend on how it was cut in pieces. Only of `logging` it does: options that name no driver are those of
    whichever is below, and another driver's are dropped."""
    one, two, three = (service_tree({key: part for key, part in one.items() if key != "logging"}) for one in (first, second, third))
    trouble = Trouble()
    left = merge(settled(merge(settled(merge(None, one, trouble)), two, trouble)), three, trouble)
    right = merge(settled(merge(None, one, trouble)), merge(two, three, trouble), trouble)
    assert plain(left) == plain(right)


@pytest.mark.long
@BUSY
@given(SERVICE, SERVICE)
def test_what_is_above_counts_and_what_is_only_below_stays(first, second):
    merged = plain(over(service_tree(first), service_tree(second)))["services"]["s"]
    below, above = plain(service_tree(first))["services"]["s"], plain(service_tree(second))["services"]["s"]
    assert set(merged) == {*below, *above}
    for key in set(below) - set(above) - {"ports", "volumes", "secrets"}:  # of these, what is given twice is left out
        assert merged[key] == below[key]
    for key in ("environment", "labels", "annotations", "sysctls"):
        if key in merged:
            assert merged[key] == {**below.get(key, {}), **above.get(key, {})}
    for key in ("command", "entrypoint", "restart", "init", "stop_grace_period"):
        if key in above:
            assert merged[key] == above[key]


def nodes(depth):
    keys = st.sampled_from(["services", "s", "ports", "environment", "volumes", "ipam", "config", "subnet", "logging", "driver", "ulimits"])
    values = st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from(["a", "80:80", "a:/b", "", "::/", "[", "\ud800"]))
    if depth:
        inner = nodes(depth - 1)
        values = values | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner, max_size=4)
    return st.builds(Node, values, st.just(PLACE), st.sampled_from(["", "", "", RESET, OVERRIDE]))


@BUSY
@given(nodes(4), nodes(4), st.sampled_from([(), ("services",), ("services", "s"), ("networks", "n"), ("services", "s", "ports")]))
def test_any_two_trees_are_merged_or_told_where_not(below, above, where):
    trouble = Trouble()
    merged = settled(merge(settled(below), above, trouble, where))
    assert all(problem.file == "x.yaml" and problem.line == 1 for problem in trouble.all())
    assert all(node.tag == "" for node in every(merged))


def every(node):
    yield node
    for _, child in node.children():
        yield from every(child)


DATA = {"type": "bind", "source": "/b", "target": "/data"}
WEB = {"target": 80, "published": "80"}
STARTED = {"condition": "service_started", "required": True}


@pytest.mark.parametrize(
    ("below", "above", "merged"),
    [
        ("volumes: [a:/data]", "volumes: [b:/data/]", {"volumes": ["b:/data/"]}),  # Compose tells these apart, and then refuses both
        ("volumes: [a:/data, x:/x]", f"volumes: [{DATA}]", {"volumes": [DATA, "x:/x"]}),
        ("ports: ['80:80']", f"ports: [{WEB}]", {"ports": [WEB]}),
        ("ports: ['80:80']", "ports: ['80:80/udp']", {"ports": ["80:80", "80:80/udp"]}),
        ("command: a", "command: ", {"command": None}),  # what the image has
        ("command: a", "command: !reset null", {}),
        ("ports: ['80:80']", "ports: !override ['81:80']", {"ports": ["81:80"]}),
        ("ports: ['80:80']", "ports: !reset []", {}),
        ("environment: {A: 1, B: 2}", "environment: {A: !reset null, C: 3}", {"environment": {"B": 2, "C": 3}}),
        ("environment: [A=1]", "environment: {A: }", {"environment": {"A": None}}),
        ("logging: {driver: a, options: {x: 1}}", "logging: {options: {y: 2}}", {"logging": {"driver": "a", "options": {"x": 1, "y": 2}}}),
        ("logging: {driver: a, options: {x: 1}}", "logging: {driver: b}", {"logging": {"driver": "b"}}),
        ("healthcheck: {test: [a], retries: 3}", "healthcheck: {test: [b]}", {"healthcheck": {"test": ["b"], "retries": 3}}),
        ("dns: 1.1.1.1", "dns: [8.8.8.8, 1.1.1.1]", {"dns": ["1.1.1.1", "8.8.8.8"]}),
        ("depends_on: [a]", "depends_on: {b: {condition: c}}", {"depends_on": {"a": STARTED, "b": {"condition": "c"}}}),
        ("deploy: {labels: [a=1]}", "deploy: {labels: {b: 2}}", {"deploy": {"labels": {"a": "1", "b": 2}}}),
    ],
)
def test_parts_of_a_service(below, above, merged):
    found = over(tree(f"services: {{s: {{{below}}}}}"), tree(f"services: {{s: {{{above}}}}}"))
    assert plain(found)["services"]["s"] == merged
