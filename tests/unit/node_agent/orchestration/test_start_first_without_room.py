"""Start-first where nothing fits beside what runs: what stops first, what stays, and what leaves a node that is to be empty."""

from __future__ import annotations

import pytest
from appbed import NAMES, Bed

from hmcore.apps.records import Stage
from hmcore.apps.spec import AppSpec, ContainerSpec, Mount, Placement, Port, Resources, ServiceSpec, Update, Volume
from hmcore.records import NodeState
from node_agent.consensus.statemachine.commands import PutApp, SetNodeState

GIB = 1 << 30
ONE = {"placement": Placement(max_per_node=1)}
HOST = {"ports": (Port(target=80, published=8080, mode="host"),)}
ROOM = {"reservations": Resources(memory=5 * GIB)}
LIMITS = [ONE, HOST, ROOM, HOST | {"mode": "global"}]


def web(image: str = "web:1", order: str = "start-first", replicas: int = 3, **more: object) -> AppSpec:
    update = more.pop("update", None) or Update(order=order)
    return AppSpec(
        services={"web": ServiceSpec(container=ContainerSpec(image=image), replicas=replicas, update=update, **more)}  # type: ignore[arg-type]
    )


def deployed(spec: AppSpec) -> Bed:
    bed = Bed()
    bed.do(PutApp(name="shop", spec=spec))
    bed.run()
    assert bed.state.apps["shop"].healthy == 1
    bed.least = len(bed.running())
    return bed


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("parallelism", [1, 2])
def test_what_has_no_place_beside_the_old_one_comes_after_it(limits, parallelism):
    update = Update(order="start-first", parallelism=parallelism)
    bed = deployed(web(**limits, update=update))
    bed.do(PutApp(name="shop", spec=web("web:2", **limits, update=update)))
    bed.run()
    app = bed.state.apps["shop"]
    assert (app.healthy, app.rollouts["web"].stage) == (2, Stage.STEADY)
    assert bed.running() == [("web", 2, name) for name in NAMES]
    assert bed.least == 3 - parallelism
    assert len(bed.stops) == 3
    assert all("replaced by generation 2; before that begins, as no node takes both" in reason for reason in bed.stops)


def test_with_a_node_to_spare_nothing_stops_first():
    bed = deployed(web(replicas=2, **ONE))
    bed.do(PutApp(name="shop", spec=web("web:2", replicas=2, **ONE)))
    bed.run()
    assert (bed.state.apps["shop"].healthy, bed.least) == (2, 2)
    assert bed.stops == ["replaced by generation 2"] * 2


@pytest.mark.parametrize("limits", LIMITS)
def test_a_version_that_fails_in_its_place_is_taken_back(limits):
    update = Update(order="start-first", failure_action="rollback")
    bed = deployed(web(**limits, update=update))
    bed.sick.add("web:2")
    bed.do(PutApp(name="shop", spec=web("web:2", **limits, update=update)))
    bed.run()
    app = bed.state.apps["shop"]
    assert (app.generation, app.healthy, bed.state.generations["shop@3"].origin) == (3, 3, 1)
    assert sorted(node for _, _, node in bed.running()) == list(NAMES)
    assert bed.least == 2


@pytest.mark.parametrize("limits", [{"reservations": Resources(memory=4 * GIB)}, {**ONE, "reservations": Resources(memory=4 * GIB)}])
def test_what_would_stop_for_nothing_goes_on(limits):
    """Another service has the room."""
    big = {"big": ServiceSpec(container=ContainerSpec(image="big"), mode="global", reservations=Resources(memory=5 * GIB))}
    small = web(reservations=Resources(memory=1 * GIB))
    bed = deployed(AppSpec(services={**small.services, **big}))
    bed.do(PutApp(name="shop", spec=AppSpec(services={**web("web:2", **limits).services, **big})))
    bed.run()
    assert bed.state.apps["shop"].rollouts["web"].stage is Stage.ROLLING
    assert (len(bed.running()), bed.stops, bed.least) == (6, [], 6)
    assert "3 of 3 nodes have" in bed.waits["web"]
    bed.do(PutApp(name="shop", spec=web("web:2", **limits)))
    bed.run()
    assert bed.state.apps["shop"].healthy == 3, "it was only late"


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
@pytest.mark.parametrize("how", ["closed", "drained"])
@pytest.mark.parametrize(
    ("limits", "replicas"),
    [
        ({"placement": Placement(constraints=("node.labels.disk == ssd",))}, 1),
        (ONE, 3),
        (HOST, 3),
        ({"mode": "global"}, 3),
        (ROOM, 3),
        ({"volume": True}, 1),
    ],
)
def test_a_node_that_is_to_be_empty_is_emptied_of_what_fits_nowhere_else(limits, replicas, how, order):
    bed = Bed()
    bed.labels = {"node2": {"disk": "ssd"}}
    spec = web(order=order, replicas=replicas, **{key: value for key, value in limits.items() if key != "volume"})
    if limits.get("volume"):
        mounts = (Mount(kind="volume", source="data", target="/data"),)
        container = ContainerSpec(image="web:1", mounts=mounts)
        update = spec.services["web"].update
        spec = AppSpec(
            services={"web": ServiceSpec(container=container, replicas=1, update=update)}, volumes={"data": Volume(name="shop_data")}
        )
        bed.volumes = {"shop_data": "node2"}
    bed.do(PutApp(name="shop", spec=spec))
    bed.run()
    others = [("web", 1, name) for name in NAMES if name != "node2" and replicas == 3]
    assert bed.running() == sorted([*others, ("web", 1, "node2")])
    if how == "closed":
        bed.closed = {"node2"}
    else:
        bed.do(SetNodeState(name="node2", state=NodeState.DRAINING))
        bed.tells.add("node2")
    bed.run()
    assert bed.running() == others
    if limits != {"mode": "global"}:
        assert bed.waits["web"]
    bed.closed = set()
    bed.do(SetNodeState(name="node2", state=NodeState.READY))
    bed.run()
    assert bed.running() == sorted([*others, ("web", 1, "node2")]), "it waited"


@pytest.mark.parametrize("how", ["closed", "drained"])
def test_what_fits_elsewhere_is_there_before_it_leaves(how):
    bed = deployed(web())
    if how == "closed":
        bed.closed = {"node2"}
    else:
        bed.do(SetNodeState(name="node2", state=NodeState.DRAINING))
        bed.tells.add("node2")
    bed.run()
    assert {node for _, _, node in bed.running()} == {"node1", "node3"}
    assert bed.least == 3


NOWHERE = [
    {"placement": Placement(constraints=("node.labels.disk == ssd",))},
    {"reservations": Resources(memory=9 * GIB)},
    {"reservations": Resources(cpus=5000)},
]


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
@pytest.mark.parametrize("limits", NOWHERE)
def test_what_no_node_can_ever_take_has_failed_before_anything_stops(limits, order):
    bed = deployed(web(order=order))
    bed.do(PutApp(name="shop", spec=web("web:2", order=order, **limits)))
    bed.run()
    rollout = bed.state.apps["shop"].rollouts["web"]
    assert (rollout.stage, bed.least, bed.stops) == (Stage.PAUSED, 3, [])
    assert rollout.message.startswith("no node can take a new replica (")
    assert "3 of 3 nodes" in rollout.message
    bed.do(PutApp(name="shop", spec=web("web:3", order=order)))
    bed.run()
    assert bed.state.apps["shop"].healthy == 3


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_it_is_taken_back_or_waited_for_as_failure_action_says(order):
    def spec(action: str, image: str, **more: object) -> AppSpec:
        return web(image, update=Update(order=order, failure_action=action), **more)  # type: ignore[arg-type]

    bed = deployed(spec("rollback", "web:1"))
    bed.do(PutApp(name="shop", spec=spec("rollback", "web:2", **NOWHERE[0])))
    bed.run()
    app = bed.state.apps["shop"]
    assert (app.generation, app.healthy, bed.state.generations["shop@3"].origin, bed.stops) == (3, 3, 1, [])
    assert "no node can take a new replica (constraint: 3 of 3 nodes" in bed.state.generations["shop@3"].note
    bed.do(PutApp(name="shop", spec=spec("continue", "web:2", **NOWHERE[0])))
    bed.run()
    assert bed.state.apps["shop"].rollouts["web"].stage is Stage.ROLLING
    assert bed.least == (3 if order == "start-first" else 2)
    bed.labels = {"node1": {"disk": "ssd"}}
    bed.run()
    assert bed.state.apps["shop"].healthy == 4


def test_what_a_node_that_is_away_can_take_has_not_failed_nor_has_what_was_never_there():
    bed = Bed()
    bed.labels = {"node2": {"disk": "ssd"}}
    bed.do(PutApp(name="shop", spec=web(**NOWHERE[1])))
    bed.run()
    assert bed.state.apps["shop"].rollouts["web"].stage is Stage.ROLLING, "it waits for its node"
    bed.do(PutApp(name="shop", spec=web()))
    bed.run()
    bed.do(SetNodeState(name="node2", state=NodeState.DOWN))
    bed.run()
    bed.do(PutApp(name="shop", spec=web("web:2", **NOWHERE[0])))
    bed.run()
    assert bed.state.apps["shop"].rollouts["web"].stage is Stage.ROLLING
    assert len(bed.running()) == 3
    bed.do(SetNodeState(name="node2", state=NodeState.READY))
    bed.run()
    assert bed.running() == [("web", 3, "node2")] * 3
