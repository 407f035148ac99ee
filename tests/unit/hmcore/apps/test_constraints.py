"""Constraints as people write them for Swarm, and what no node could answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.apps.constraints import Attribute, Constraint, Key, Platform, parse, parse_key
from hmcore.errors import UsageError
from hmcore.records import Node, Role

NODE = Node(
    name="node1",
    address="10.0.0.1",
    port=7443,
    role=Role.CONTROL,
    release="r1",
    labels={"zone": "A", "disk": "ssd", "example.org/rack": "7"},
)
LINUX = Platform(os="linux", arch="x86_64")


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("node.labels.zone==a", True),
        ("node.labels.zone == A", True),
        ("  node.labels.zone!=b  ", True),
        ("node.labels.zone==b", False),
        ("node.labels.Zone==a", False),  # a label's name is as it was written
        ("node.labels.example.org/rack==7", True),
        ("node.labels.missing==a", False),
        ("node.labels.missing!=a", True),
        ("node.role==manager", True),
        ("node.role==control", True),
        ("node.role != worker", True),
        ("NODE.ROLE==Manager", True),
        ("node.hostname==NODE1", True),
        ("node.name!=node1", False),
        ("node.platform.os==linux", True),
        ("node.platform.arch==amd64", True),
        ("node.platform.arch!=x86_64", False),
        ("node.platform.arch==arm64", False),
    ],
)
def test_a_node_answers(text, holds):
    assert parse(text).holds(NODE, LINUX) is holds


def test_what_is_not_known_yet_equals_nothing():
    assert not parse("node.platform.arch==x86_64").holds(NODE, Platform())


@pytest.mark.parametrize(
    ("text", "says", "fix"),
    [
        ("", "is no placement constraint", "=="),
        ("node.role", "is no placement constraint", "=="),
        ("node.role=worker", "is no placement constraint", "=="),
        ("node.labels.a==", "is no placement constraint", "=="),
        ("node.labels.a==b c", "is no placement constraint", "=="),
        ("node.labels.a=='b'", "is no value", "without quotes"),
        ("node.labels.a==b==c", "is no value", "letters"),
        ("node.labels.==b", "is no label", "letters"),
        ("node.labels==b", "is nothing that nodes are asked for", "node.labels.NAME"),
        ("node.role==master", "is no role", "manager"),
        ("node.id==2ivku8v2gvtg4", "is not supported", "node.hostname"),
        ("engine.labels.operatingsystem==ubuntu", "is not supported", "node.labels.NAME"),
        ("node.colour==red", "is nothing that nodes are asked for", "node.role"),
        ("node.labels.ä==b", "is no label", "letters"),
    ],
)
def test_a_mistake_says_what_is_allowed(text, says, fix):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert says in caught.value.message
    assert fix in caught.value.fix


def test_what_replicas_are_spread_over():
    assert parse_key("node.labels.zone") == Key(Attribute.LABEL, "zone")
    with pytest.raises(UsageError):
        parse_key("engine.labels.zone")
    with pytest.raises(UsageError):
        parse_key("zone")


_PIECES = st.sampled_from(
    ["node", ".", "labels", "role", "engine", "hostname", "==", "!=", "=", "!", " ", "\n", "a", "ä", "/", "-", "\0", "'"]
)


@given(st.one_of(st.text(), st.lists(_PIECES).map("".join)))
def test_any_text_is_a_constraint_or_a_usage_error(text):
    try:
        found = parse(text)
    except UsageError:
        return
    assert isinstance(found, Constraint)
    assert found.holds(NODE, LINUX) in (True, False)
    assert parse(f" {text} ") == found


@given(st.sampled_from(["node.labels.zone", "node.hostname", "node.role", "node.platform.arch"]), st.sampled_from(["worker", "control"]))
def test_one_of_equal_and_unequal_holds(key, value):
    assert parse(f"{key}=={value}").holds(NODE, LINUX) is not parse(f"{key}!={value}").holds(NODE, LINUX)
