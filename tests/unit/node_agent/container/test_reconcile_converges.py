"""Whatever was before and whatever fails in between, a node comes to what is wanted, and never touches what is not its own."""

from __future__ import annotations

import pytest
from docker_model import CLUSTER, IMAGE, Docker, Made, labels_of, stopped, wanted
from hypothesis import given
from hypothesis import strategies as st
from node_model import Node

from hmcore.apps.records import Phase
from hmcore.apps.spec import Restart
from node_agent.container import info
from node_agent.container.actions import Action

IDS = ["shop/web.1.1", "shop/web.2.2", "a-b/c.1.1", "a/b-c.1.1"]  # the last two want the same name
FOREIGN = [{}, {info.CLUSTER: CLUSTER}, {info.ALLOCATION: IDS[0]}, labels_of(IDS[0]) | {info.CLUSTER: "hm-another"}]
STATES = ["running", "exited", "created", "dead"]

ours = st.builds(labels_of, st.sampled_from([*IDS, "gone/x.1.9"]), st.sampled_from(["r1", "r1", "r0"]))
found = st.tuples(
    st.sampled_from(["shop-web-1-1", "shop-web-2-2", "a-b-c-1-1", "x", "y", "z"]),
    ours | st.sampled_from(FOREIGN),
    st.sampled_from(STATES),
    st.booleans(),
)
policies = st.builds(
    Restart, condition=st.sampled_from(["none", "on-failure", "any"]), attempts=st.integers(0, 2), delay=st.sampled_from([0.0, 1.0, 90.0])
)
wants = st.dictionaries(st.sampled_from(IDS), st.tuples(policies, st.booleans(), st.booleans()))
CODES = st.sampled_from([0, 143, 137, 1])  # of what a stop signal ended, by its program's leave or not, and SIGKILL
faults = st.sampled_from(["", "", "", "before", "after", "half"])


steps_taken = st.sampled_from(["round", "round", "round", "late", "hang", "end", "agent", "docker", "prune", "time", "known"])


def begin(containers: list[tuple[str, dict[str, str], str, bool]], wants: dict[str, tuple[Restart, bool, bool]], **policy: Restart) -> Node:
    docker = Docker()
    for name, labels, state, deaf in {row[0]: row for row in containers}.values():  # names are unique
        docker.put(name, labels, state, exit_code=1 if state == "exited" else None, deaf=deaf)
    made = {
        id: wanted(id, restart=policy.get("restart", restart), image_id=IMAGE if known else "") for id, (restart, _, known) in wants.items()
    }
    return Node(docker, {id: stopped(want) if wants[id][1] else want for id, want in made.items()})


def others(node: Node) -> dict[str, tuple[object, ...]]:
    return {id: (*vars(made).values(),) for id, made in node.docker.containers.items() if not is_ours(made)}


def is_ours(made: Made) -> bool:
    return made.labels.get(info.CLUSTER) == CLUSTER and bool(made.labels.get(info.ALLOCATION))


def chaos(node: Node, data: st.DataObject, steps: int) -> None:
    """Faults between any two actions, answers that come late, looks from before, ends, and agents and Dockers that restart."""

    def fault(action: Action) -> str:
        return data.draw(faults, label=f"fault of {action}")

    for _ in range(steps):
        stale = node.look()
        match data.draw(steps_taken, label="step"):
            case "round":
                node.round(room=data.draw(st.integers(1, 4)), fault=fault)
            case "late":
                while node.under_way:
                    node.answer(data.draw(faults))
                node.round(looked=stale, fault=fault)
            case "hang":
                node.round(hang=lambda action: True)
            case "end":
                alive = [id for id, made in node.docker.containers.items() if made.state == "running" and is_ours(made)]
                if alive:
                    node.docker.end(data.draw(st.sampled_from(alive)), data.draw(st.sampled_from([0, 1, 137])))
            case "known":
                node.fit = data.draw(st.none() | st.sets(st.sampled_from(IDS)))
            case "agent":
                node.restart_agent(told=data.draw(st.booleans()))
            case "docker":
                theirs = {id: dict(vars(made)) for id, made in node.docker.containers.items() if not is_ours(made)}
                node.docker.restart(data.draw(CODES), crashed=data.draw(st.booleans()))
                for id, was in theirs.items():  # whoever started them has them started again
                    vars(node.docker.containers[id]).update(was)
            case "prune":
                node.docker.images.clear()
            case "time":
                node.now += data.draw(st.sampled_from([0.1, 5.0, 61.0]))


@pytest.mark.long
@given(st.data(), st.lists(found, max_size=6), wants, st.integers(0, 12))
def test_it_comes_to_exactly_what_is_wanted(data: st.DataObject, containers, wants, steps) -> None:
    node = begin(containers, wants, restart=Restart(delay=1.0))
    before = others(node)
    chaos(node, data, steps)
    node.settle(60)
    run = {id for id, want in node.wanted.items() if not want.allocation.stop}
    mine = [made for made in node.docker.containers.values() if is_ours(made)]
    assert sorted(made.labels[info.ALLOCATION] for made in mine) == sorted(run)
    assert all(made.state == "running" and made.labels[info.REVISION] == "r1" for made in mine)
    assert {id for id, status in node.statuses.items() if status.phase is Phase.RUNNING} == run
    assert {id for id, status in node.statuses.items() if status.phase is Phase.DONE} == node.wanted.keys() - run
    assert others(node) == before
    assert not node.memory.stops


@pytest.mark.long
@given(st.data(), st.lists(found, max_size=6), wants, st.integers(0, 12))
def test_with_any_policy_each_runs_or_is_over_and_nothing_else_is_left(data: st.DataObject, containers, wants, steps) -> None:
    node = begin(containers, wants)
    before = others(node)
    chaos(node, data, steps)
    node.settle(60)
    for made in node.docker.containers.values():
        if is_ours(made):
            assert not node.wanted[made.labels[info.ALLOCATION]].allocation.stop
            phase = node.statuses[made.labels[info.ALLOCATION]].phase
            assert (phase is Phase.RUNNING) if made.state == "running" else phase in (Phase.DONE, Phase.FAILED)
    assert others(node) == before


@pytest.mark.long
@given(st.data(), st.lists(found, max_size=6), wants, st.integers(0, 8), st.booleans())
def test_an_agents_restart_changes_nothing_that_runs(data: st.DataObject, containers, wants, steps, told) -> None:
    node = begin(containers, wants)
    chaos(node, data, steps)
    node.settle(60)
    before = {id: made.starts for id, made in node.docker.containers.items() if made.state == "running"}
    node.restart_agent(told=told)
    node.settle(60)
    assert {id: node.docker.containers[id].starts for id in before} == before
    if told:
        node.restart_agent(told=True)
        calls = len(node.docker.calls)
        node.settle(60)
        assert node.docker.calls[calls:] == []


@pytest.mark.long
@given(st.lists(found, max_size=6), wants)
def test_what_is_settled_stays_so(containers, wants) -> None:
    node = begin(containers, wants)
    node.settle(60)
    told = dict(node.statuses)
    for _ in range(3):
        node.now += 1000
        assert node.round().actions == ()
    assert dict(node.statuses) == told


@pytest.mark.long
@given(st.data(), wants, st.integers(1, 8))
def test_that_docker_went_away_is_no_end_whatever_the_policy_and_the_exit_code(data: st.DataObject, wants, steps) -> None:
    node = begin([], wants)
    node.settle(60)
    run = {id for id, want in node.wanted.items() if not want.allocation.stop}
    for _ in range(steps):
        match data.draw(st.sampled_from(["docker", "docker", "agent", "round", "time"]), label="step"):
            case "docker":
                node.docker.restart(data.draw(CODES), crashed=data.draw(st.booleans()))
            case "agent":
                node.restart_agent(told=True)
            case "round":
                node.round(fault=lambda action: data.draw(faults, label=f"fault of {action}"))
            case "time":
                node.now += data.draw(st.sampled_from([0.1, 61.0]))
        assert all(node.statuses[id].phase not in (Phase.DONE, Phase.FAILED) for id in run)
    node.settle(60)
    assert {id: (node.statuses[id].phase, node.statuses[id].restarts) for id in run} == dict.fromkeys(run, (Phase.RUNNING, 0))
