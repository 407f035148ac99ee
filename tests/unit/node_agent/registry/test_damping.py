"""Instances that come and go."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hmcore.records import ALLOCATION, Instance, InstanceHealth
from node_agent.registry.damping import HALF_LIFE, MOST, REASON, Track, damp

WEB = Instance(id="n1/web", service="shop/web", node="n1", address="10.0.0.1", health=InstanceHealth.HEALTHY)
DB = replace(WEB, id="n1/db", service="shop/db")
BAD = replace(WEB, health=InstanceHealth.UNHEALTHY, reason="its health check fails")
LONGEST = HALF_LIFE * 2.6  # log2(MOST / REUSE) of them, and a little


def flapped(times: int, gap: float = 1.0) -> tuple[Mapping[str, Track], float]:
    """The past of an instance that fell so many times, ending unfit."""
    tracks: Mapping[str, Track] = {}
    now = 0.0
    for _ in range(times):
        for instance in (WEB, BAD):
            tracks = damp(tracks, [instance], now).tracks
            now += gap
    return tracks, now


def test_bad_news_is_told_as_it_comes_and_a_single_fall_is_forgiven_at_once():
    tracks, now = flapped(1)
    assert damp(tracks, [BAD], now).instances == (BAD,)
    assert damp(tracks, [WEB], now).instances == (WEB,)


def test_one_that_flaps_is_unhealthy_until_it_has_been_well_for_a_while():
    tracks, now = flapped(4)
    held = damp(tracks, [WEB, DB], now)
    assert held.instances == (replace(WEB, health=InstanceHealth.UNHEALTHY, reason=REASON), DB), "the other does not wait for it"
    assert held.again_at is not None
    assert HALF_LIFE < held.again_at - now < LONGEST
    assert damp(held.tracks, [WEB, DB], held.again_at - 1.0).instances != (WEB, DB)
    again = damp(held.tracks, [WEB, DB], held.again_at)
    assert again.instances == (WEB, DB)
    assert again.again_at is None


def test_a_container_that_crashes_in_a_loop_stays_listed_as_unhealthy_and_goes_when_it_stays_away():
    tracks: Mapping[str, Track] = {}
    now = 0.0
    for number in range(10):
        now = float(number)
        tracks = damp(tracks, [WEB] if number % 2 == 0 else [], now).tracks
    gone = damp(tracks, [], now)
    assert [(one.id, one.health) for one in gone.instances] == [("n1/web", InstanceHealth.UNHEALTHY)]
    assert gone.again_at is not None
    assert damp(gone.tracks, [], gone.again_at).instances == ()


def test_a_replica_that_is_deployed_anew_bears_no_past_and_one_that_is_restarted_does():
    def replica(container: str) -> Instance:
        return replace(WEB, attributes={"container": container, ALLOCATION: "shop/web.1.1"})

    tracks: Mapping[str, Track] = {}
    for number in range(8):  # removed and deployed again, under the same name
        for found in ([replica(f"c{number}")], []):
            told = damp(tracks, found, float(number))
            assert told.instances == tuple(found)
            tracks = told.tracks
    for number in range(8):
        for found in ([replica("same")], []):
            tracks = damp(tracks, found, 10.0 + number).tracks
    assert damp(tracks, [replica("same")], 20.0).instances[0].reason == REASON


def test_what_is_forgotten_takes_no_room():
    tracks, now = flapped(2)
    assert damp(tracks, [], now + 100 * HALF_LIFE).tracks == {}


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.sampled_from(["well", "ill", "away"])), max_size=60))
def test_whatever_happens_the_list_settles_and_tells_the_truth_in_the_end(happenings):
    tracks: Mapping[str, Track] = {}
    now, lists = 0.0, []
    for gap, how in happenings:
        now += gap
        found = {"well": [WEB], "ill": [BAD], "away": []}[how]
        damped = damp(tracks, found, now)
        tracks = damped.tracks
        lists.append(damped.instances)
        assert all(0.0 <= track.penalty <= MOST for track in tracks.values())
        if found == [BAD]:
            assert damped.instances[0].health is InstanceHealth.UNHEALTHY, "nothing unfit is ever told as fit"
    assert damp(tracks, [WEB], now + LONGEST).instances == (WEB,)
    assert damp(tracks, [], now + LONGEST).instances == ()


@given(st.integers(20, 600))
def test_flapping_for_ever_changes_the_list_only_a_few_times(seconds):
    tracks: Mapping[str, Track] = {}
    changes, last = 0, None
    for second in range(seconds):
        damped = damp(tracks, [WEB] if second % 2 else [], float(second))
        tracks = damped.tracks
        told = [(one.id, one.health) for one in damped.instances]
        changes += told != last
        last = told
    assert changes <= 9
