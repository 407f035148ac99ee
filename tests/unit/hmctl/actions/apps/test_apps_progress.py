"""How far an app is, and when there is nothing more to wait for: from what the agents answer to words."""

from __future__ import annotations

from typing import Any

import pytest
from app_seen import FIT, ILL, LOOPING, LOST, SPEC, STUCK, WEAK, allocation, seen
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from hmcore.apps.calls import AppsReply
from hmcore.apps.records import AllocationStatus, App, Generation, Phase, Stage
from hmcore.apps.spec import AppSpec, ContainerSpec, Dependency, ServiceSpec
from hmcore.records import InstanceHealth
from hmctl.actions.apps.explaining import explanation, summary
from hmctl.actions.apps.progress import End, Ending, Goal, ended, out_of_time, progress, trouble, with_dependents
from hmctl.actions.apps.view import Seen, listing, replicas
from hmctl.cli.app.show import why_of


def web(look: Seen) -> str:
    return next(each.text for each in progress(look, "shop") if each.service == "web")


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        ([], "pulled 0/3, started 0/3, healthy 0/3"),
        ([None, None], "pulled 0/3, started 0/3, healthy 0/3"),
        ([{"phase": Phase.WAITING}, {"phase": Phase.PULLING}, {"phase": Phase.STARTING}], "pulled 1/3, started 0/3, healthy 0/3"),
        ([FIT, {"phase": Phase.RUNNING}, WEAK], "pulled 3/3, started 3/3, healthy 2/3"),
        ([{"phase": Phase.DONE, "exit_code": 0}, FIT, FIT], "pulled 3/3, started 3/3, healthy 3/3"),
        ([FIT] * 5, "pulled 3/3, started 3/3, healthy 3/3"),
        (
            [FIT, LOOPING, {"phase": Phase.FAILED, "error": "no\nroom"}],
            "pulled 2/3, started 1/3, healthy 1/3; failing: web.2 on node2: it is to be started again: it ended with 1 "
            "(started again 4 times) (and 1 more)",
        ),
        ([ILL], "pulled 1/3, started 1/3, healthy 0/3; failing: web.1 on node1: unhealthy: refused"),
        ([LOST], "pulled 0/3, started 0/3, healthy 0/3; failing: web.1 on node1: no such image"),
        (
            [FIT, STUCK],
            "pulled 1/3, started 1/3, healthy 1/3; failing: web.2 on node2: it cannot be started: no room",
        ),
    ],
)
def test_counts_and_failures_of_a_service(statuses: list[dict[str, Any] | None], said: str) -> None:
    assert web(seen(*statuses)) == said


def test_replicas_that_are_to_be_replaced_are_no_progress() -> None:
    look = seen(FIT, FIT)
    old = allocation("web", 3, "node3", "old")
    statuses = {**look.reply.statuses, old.id: AllocationStatus(id=old.id, **FIT)}
    more = AppsReply(**{**_fields(look.reply), "allocations": [*look.reply.allocations, old], "statuses": statuses})
    assert web(Seen("node1", True, more)) == "pulled 2/3, started 2/3, healthy 2/3"


def test_what_is_waited_for_is_said_in_one_line() -> None:
    assert web(seen(waits="ports: 1 of 3\n  memory: 2 of 2\n")) == (
        "pulled 0/3, started 0/3, healthy 0/3; waiting: ports: 1 of 3; memory: 2 of 2"
    )


def test_what_went_on_all_the_same_is_no_plain_success() -> None:
    look = seen(FIT, FIT, {"phase": Phase.FAILED}, stage=Stage.STEADY, failed=("shop/web.3.13",), message="1 of 3 failed")
    (found,) = [each for each in progress(look, "shop") if each.service == "web"]
    assert (found.outcome, found.text) == ("warning", "healthy 2/3; 1 of 3 failed")
    assert ended(look, Goal("shop", 4)) == End(Ending.HEALTHY)


def test_what_was_done_and_lost_a_replica_since_is_waited_for() -> None:
    assert ended(seen(FIT, FIT, FIT, stage=Stage.STEADY), Goal("shop", 4)) == End(Ending.HEALTHY)
    assert ended(seen(FIT, FIT, stage=Stage.STEADY), Goal("shop", 4)) is None
    assert ended(seen(FIT, FIT, FIT), Goal("shop", 4)) is None


def test_a_pause_is_an_end_only_for_those_who_wait_for_that_service() -> None:
    look = seen(stage=Stage.PAUSED, message="3 of 3 failed")
    end = ended(look, Goal("shop", 4))
    assert end is not None
    assert (end.ending, end.why) == (Ending.PAUSED, "shop: the rollout of generation 4 is paused: web: 3 of 3 failed")
    assert "hmctl app rollback shop" in end.fix
    assert ended(look, Goal("shop", 4, frozenset({"agent"}))) == End(Ending.HEALTHY)


def test_what_was_recorded_of_an_earlier_aim_counts_for_nothing() -> None:
    look = seen(FIT, FIT, FIT, stage=Stage.PAUSED, message="of before")
    again = AppsReply(index=9, apps=[_with(look.reply.apps[0], restarts={"web": 1})], generations=look.reply.generations)
    (found,) = [each for each in progress(Seen("node1", True, again), "shop") if each.service == "web"]
    assert (found.stage, found.message, found.placed) == ("rolling", "", 0)


def _with(app: App, **changes: Any) -> App:
    from msgspec.structs import replace

    return replace(app, **changes)


@pytest.mark.parametrize(
    ("later", "ending", "why"),
    [
        (
            [Generation(app="shop", number=5, spec=SPEC, digest="d", origin=3, note="generation 4 failed: web: why")],
            Ending.ROLLED_BACK,
            "shop: generation 4 failed: web: why; generation 5 brings back what generation 3 was",
        ),
        (
            [Generation(app="shop", number=5, spec=SPEC, digest="d", origin=3, author="bob")],
            Ending.REPLACED,
            "shop is at generation 5 by now by bob, not 4",
        ),
        (
            [Generation(app="shop", number=6, spec=SPEC, digest="d", origin=3, note="generation 5 failed")],  # 5 is forgotten
            Ending.REPLACED,
            "shop is at generation 6 by now, not 4",
        ),
        ([Generation(app="shop", number=5, spec=SPEC, digest="d")], Ending.REPLACED, "shop is at generation 5 by now, not 4"),
        ([Generation(app="shop", number=2, spec=SPEC, digest="d")], Ending.REPLACED, "shop is at generation 2 by now, not 4"),
    ],
)
def test_another_generation_is_the_clusters_own_way_back_or_somebody_elses(later: list[Generation], ending: Ending, why: str) -> None:
    app = App(name="shop", generation=later[-1].number)
    end = ended(Seen("node1", True, AppsReply(index=9, apps=[app], generations=later)), Goal("shop", 4))
    assert end is not None
    assert (end.ending, end.why) == (ending, why)


def test_a_removal_ends_when_the_app_is_gone() -> None:
    gone, going = AppsReply(index=9), AppsReply(index=9, apps=[App(name="shop", generation=4, stopping=True)])
    again = AppsReply(index=9, apps=[App(name="shop", generation=1)])
    assert ended(Seen("node1", True, gone), Goal("shop", 0)) == End(Ending.REMOVED)
    assert ended(Seen("node1", True, going), Goal("shop", 0)) is None
    for reply, goal, ending in ((again, 0, Ending.REPLACED), (gone, 4, Ending.REMOVED), (going, 4, Ending.REMOVED)):
        end = ended(Seen("node1", True, reply), Goal("shop", goal))
        assert end is not None
        assert (end.ending, bool(end.error)) == (ending, True)


def test_out_of_time_says_what_is_missing() -> None:
    end = out_of_time(seen(FIT, waits="memory: too little"), Goal("shop", 4), 30.0)
    assert end.why == (
        "shop is not there after 30 s: web: pulled 1/3, started 1/3, healthy 1/3; waiting: memory: too little; its rollout goes on"
    )
    assert "nobody told within 30 s" in out_of_time(None, Goal("shop", 4), 30.0).why


def test_dependents_are_restarted_with_what_they_depend_on() -> None:
    services = {
        "db": SPEC.services["web"],
        "web": ServiceSpec(container=ContainerSpec(image="w"), depends_on={"db": Dependency(restart=True)}),
        "job": ServiceSpec(container=ContainerSpec(image="j"), depends_on={"db": Dependency()}),
    }
    assert with_dependents(AppSpec(services=services), ["db"]) == {"db", "web"}
    assert with_dependents(AppSpec(services=services), []) == set()


def test_what_is_as_it_shall_be_is_explained_so() -> None:
    look = seen(FIT, FIT, FIT, stage=Stage.STEADY)
    document = explanation(look, look.app("shop"))
    assert [summary(each) for each in document.services] == ["as it shall be: 1 of 1 healthy", "as it shall be: 3 of 3 healthy"]


def test_what_is_stuck_is_said_to_be_so_by_every_command() -> None:
    look = seen(FIT, STUCK)
    (found,) = explanation(look, look.app("shop"), "web").services
    assert [(each.replica, each.phase, each.why) for each in found.replicas] == [("web.2", "backoff", "it cannot be started: no room")]
    listed = {each.replica: each for each in replicas(look, look.app("shop"), {}).replicas}
    assert "agent@node1" in listed
    assert (listed["web.1"].stuck, listed["web.2"].stuck) == (False, True)
    assert why_of(structs.replace(listed["web.2"], current=True)) == ["it cannot be started: no room"]


def test_an_explanation_names_replicas_that_are_silent_and_those_that_should_have_stopped() -> None:
    look = seen(FIT, None)
    old = allocation("web", 7, "node3", "old", stop=True, reason="lost: node3 is down")
    both = Seen("node1", True, AppsReply(**{**_fields(look.reply), "allocations": [*look.reply.allocations, old]}))
    (found,) = explanation(both, both.app("shop"), "web").services
    assert [(each.replica, each.why) for each in found.replicas] == [
        ("web.2", "node2 has not said anything of it yet"),
        ("web.7", "it is to stop: lost: node3 is down"),
    ]


def _fields(reply: AppsReply) -> dict[str, Any]:
    return {name: getattr(reply, name) for name in reply.__struct_fields__}


statuses_of_any_kind = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "phase": st.sampled_from(Phase),
            "health": st.sampled_from(InstanceHealth),
            "container": st.sampled_from(["", "c1"]),
            "restarts": st.integers(0, 3),
            "exit_code": st.sampled_from([None, 0, 1]),
            "error": st.sampled_from(["", "a\nb"]),
            "stuck": st.booleans(),
        }
    ),
)


@given(
    statuses=st.lists(statuses_of_any_kind, max_size=5),
    stage=st.sampled_from(Stage),
    done=st.sets(st.integers(0, 4)),
    stops=st.sets(st.integers(0, 4)),
    failed=st.sampled_from([(), ("shop/web.1.11",)]),
)
def test_each_step_comes_after_the_one_before_whatever_nodes_say(
    statuses: list[dict[str, Any] | None], stage: Stage, done: set[int], stops: set[int], failed: tuple[str, ...]
) -> None:
    from msgspec.structs import replace

    look = seen(*statuses, stage=stage, failed=failed)
    changed = [replace(each, done=number in done, stop=number in stops) for number, each in enumerate(look.reply.allocations)]
    look = Seen("node1", True, AppsReply(**{**_fields(look.reply), "allocations": changed}))
    for each in progress(look, "shop"):
        assert 0 <= each.healthy <= each.started <= each.pulled <= each.placed <= each.desired
        assert "\n" not in each.text
        if each.outcome == "ok":
            assert each.healthy + each.failed >= each.desired
    end = ended(look, Goal("shop", 4))
    assert end is None or (end.ending is Ending.HEALTHY) is (end.error is None)
    for each in changed:
        why = trouble(each, look.status(each))
        assert not why or not each.stop
    app = look.app("shop")
    assert len(replicas(look, app, {}).replicas) == len(changed)
    assert listing(look).apps[0].services
    assert all(summary(each) for each in explanation(look, app).services)


def test_a_list_says_what_is_waited_for() -> None:
    assert listing(seen(FIT, waits="published: 80/tcp belongs to p1/a")).apps[0].message == "web waits: published: 80/tcp belongs to p1/a"
    assert listing(seen(FIT, waits="role: 1 of 2\nport: 1 of 1 \n")).apps[0].message == "web waits: role: 1 of 2; port: 1 of 1"
    assert listing(seen(FIT, FIT, FIT)).apps[0].message == ""


def test_a_replica_whose_node_cannot_say_how_it_is_is_in_trouble() -> None:
    look = seen({"phase": Phase.RUNNING, "health": InstanceHealth.UNKNOWN, "error": "Docker does not answer"}, stage=Stage.STEADY)
    (allocation,) = look.allocations("shop", "web")
    assert trouble(allocation, look.status(allocation)) == "Docker does not answer"
