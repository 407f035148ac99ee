"""Which settings can be rolled through a running cluster: old and new nodes meet for a while."""

from __future__ import annotations

import pytest

from hmcore.config.conflicts import conflicts
from hmcore.config.mixtures import unrollable
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
