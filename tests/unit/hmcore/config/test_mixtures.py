"""Which settings can be rolled through a running cluster: old and new nodes meet for a while."""

from __future__ import annotations

import pytest

from hmcore.config.conflicts import conflicts
from hmcore.config.mixtures import meeting, unrollable
from hmcore.config.presets import PRESETS, settings_for

INTERVALS = (("raft", "heartbeat"), ("membership", "heartbeat"), ("registry", "refresh"))


def paths(present: list[str], wanted: str) -> list[str]:
    return [
        ".".join(map(str, mistake.path)) for mistake in unrollable([PRESETS[name].settings for name in present], PRESETS[wanted].settings)
    ]


@pytest.mark.parametrize("present", PRESETS)
@pytest.mark.parametrize("wanted", PRESETS)
def test_the_presets_can_be_changed_for_each_other_but_for_the_two_extremes(present: str, wanted: str) -> None:
    found = paths([present], wanted)
    if (present, wanted) == ("high-reliability", "high-performance"):
        assert found == ["raft.election_min", "membership.suspect", "registry.ttl"]
    elif (present, wanted) == ("high-performance", "high-reliability"):
        assert found == ["raft.heartbeat", "membership.heartbeat", "registry.refresh"]
    elif {present, wanted} == {"high-reliability", "development"}:
        assert found in (["registry.ttl"], ["registry.refresh"])
    else:
        assert found == []


@pytest.mark.parametrize("present", PRESETS)
@pytest.mark.parametrize("wanted", PRESETS)
def test_the_way_that_a_refusal_names_works(present: str, wanted: str) -> None:
    """Two steps, of which neither is refused, and between them settings that work together."""
    old, new = PRESETS[present].settings, PRESETS[wanted].settings
    found = unrollable([old], new)
    alone = all("alone first" in (mistake.hint or "") for mistake in found)
    between, values = (old, new) if alone else (new, old)
    for mistake in found:
        group, name = next((group, name) for group, name in INTERVALS if f"{group}.{name}" in (mistake.hint or ""))
        value = {name: getattr(getattr(values, group), name)}
        between = between.model_copy(update={group: getattr(between, group).model_copy(update=value)})
    assert not found or conflicts(between) == []
    assert unrollable([old], between) == []
    assert unrollable([between], new) == []


def test_what_meets_already_is_no_reason_to_refuse_what_mends_it() -> None:
    quick = settings_for("balanced", {"membership": {"heartbeat": 0.1, "suspect": 0.4, "down": 1}})
    balanced = PRESETS["balanced"].settings
    slow = settings_for("balanced", {"membership": {"heartbeat": 0.5, "suspect": 10, "down": 20}})
    assert [mistake.path for mistake in unrollable([quick, slow], balanced)] == [("membership", "heartbeat")]
    assert unrollable([slow, balanced], balanced) == []


def test_a_port_cannot_be_moved() -> None:
    moved = settings_for("balanced", {"transport": {"port": 7500}})
    (mistake,) = unrollable([PRESETS["balanced"].settings], moved)
    assert mistake.path == ("transport", "port")
    assert "7443" in (mistake.hint or "")


def test_without_nodes_anything_goes() -> None:
    assert unrollable([], PRESETS["high-performance"].settings) == []


# Nodes that a change leaves out

BALANCED = PRESETS["balanced"].settings  # membership: 0.5 s, suspect after 2 s
HASTY = settings_for("balanced", {"membership": {"heartbeat": 0.1, "suspect": 0.5, "down": 1}})
LEISURELY = settings_for("balanced", {"membership": {"heartbeat": 1, "suspect": 4, "down": 8}})


def test_nodes_that_stay_as_they_are_are_met_for_longer() -> None:
    frequent = settings_for("balanced", {"membership": {"heartbeat": 0.1}})  # the first of the two steps to hasty
    assert unrollable([frequent], HASTY) == []
    assert unrollable([frequent], HASTY, {"node2": frequent}) == []
    (mistake,) = unrollable([frequent], HASTY, {"node2": frequent, "node3": BALANCED})
    assert mistake.path == ("membership", "suspect")
    assert "node3 would stay as it is, and nodes whose membership.heartbeat is 0.5 s" in mistake.message
    assert mistake.hint == "apply membership.heartbeat: 0.1 alone first, to node3, too, and the rest afterwards"


def test_what_would_lose_patience_with_the_changed_ones_is_seen_too() -> None:
    patient = settings_for("balanced", {"membership": {"suspect": 4, "down": 8}})
    seldom = settings_for("balanced", {"membership": {"heartbeat": 1.5, "suspect": 4, "down": 8}})
    others = {f"node{number}": BALANCED for number in range(2, 10)}
    (mistake,) = unrollable([patient], seldom, others)
    assert mistake.path == ("membership", "heartbeat")
    assert "node2, node3, node4, node5, node6 and 3 more would stay as they are" in mistake.message
    assert (mistake.hint or "").startswith("apply the rest first, to node2,")


def test_a_change_that_meets_nothing_of_theirs_does_not_ask_what_they_run_with() -> None:
    other = settings_for("balanced", {"metrics": {"interval": 7}})
    assert not meeting([BALANCED], other)
    assert meeting([BALANCED, HASTY], BALANCED)
    assert unrollable([BALANCED], other, {"node2": HASTY, "node3": LEISURELY}) == [], "how the cluster runs already"
    registry = settings_for("balanced", {"registry": {"refresh": 2}})
    assert unrollable([BALANCED], registry, {"node2": HASTY}) == [], "nor by way of another pair"


def test_leases_are_never_granted_by_one_that_another_does_not_wait_for() -> None:
    short, long = settings_for("balanced"), settings_for("balanced", {"fencing": {"lease": 20.0, "after": 30.0}})
    (down,), (up,) = unrollable([long], short), unrollable([short], long)
    assert (down.path, up.path) == (("fencing", "after"), ("fencing", "lease"))
    assert "two replicas of an exclusive service could run" in down.message
    between = settings_for("balanced", {"fencing": {"lease": 6.5, "after": 30.0}})
    for old, new in ((long, between), (between, short), (short, between), (between, long)):
        assert unrollable([old], new) == []
