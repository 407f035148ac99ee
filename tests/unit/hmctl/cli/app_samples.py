"""Documents of `hmctl app`, `image` and `secret`, with a value for every field: for test_json_doc.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hmctl.actions.apps.progress import ServiceProgress


def app_list() -> object:
    from hmctl.actions.apps.view import AppCount, AppList, ServiceCount

    service = ServiceCount(name="web", desired=2, running=1, healthy=1, stage="rolling", labels={"team": "shop"})
    app = AppCount(name="shop", generation=2, healthy_generation=1, stage="rolling", message="", services=[service])
    return AppList(told_by="node1", leader=True, index=7, apps=[app])


def app_replicas() -> object:
    from hmctl.actions.apps.ports import PortView
    from hmctl.actions.apps.view import AppReplicas, ReplicaView

    replica = ReplicaView(
        id="shop/web.1.1",
        service="web",
        replica="web.1",
        node="node1",
        generation=2,
        current=True,
        stop=False,
        phase="running",
        health="healthy",
        container="c1",
        restarts=0,
        exit_code=None,
        error="",
        stuck=False,
        reason="",
        since=1.5,
        ports=[PortView(target=80, published=30001, protocol="tcp", mode="host", address="")],
    )
    return AppReplicas(name="shop", told_by="node1", leader=True, index=7, generation=2, replicas=[replica])


def app_line() -> object:
    from hmctl.cli.app.logs import LogView

    at = {"app": "shop", "service": "web", "replica": "web.1", "node": "node1", "container": "c1"}
    return LogView(time="2026-11-22T08:00:00.000000000Z", stream="stdout", message="started", **at)


def app_explanation() -> object:
    from hmctl.actions.apps.explaining import AppExplanation, ReplicaTrouble, ServiceExplanation

    trouble = ReplicaTrouble(id="shop/web.1.1", replica="web.1", node="node1", phase=None, why="it is unhealthy")
    service = ServiceExplanation(progress=_progress(), waits=["memory: 3 of 3 nodes have too little"], replicas=[trouble])
    return AppExplanation(name="shop", generation=2, removing=False, told_by="node1", leader=True, index=7, services=[service])


def app_history() -> object:
    from hmctl.actions.apps.history import AppHistory, GenerationView

    generation = GenerationView(
        number=2,
        present=True,
        reached=True,
        origin=1,
        author="me",
        note="why",
        unix_time=1.5,
        services={"web": "nginx:1"},
        changed={"web": ["image", "replicas 3 -> 5"]},
    )
    return AppHistory(name="shop", index=7, generations=[generation])


def app_change() -> object:
    from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
    from hmctl.actions.apps.calls import AppChange
    from hmctl.compose.difference import difference, documents

    before, after = (AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image=image))}) for image in ("nginx:1", "nginx:2"))
    return AppChange(
        name="shop",
        changed=True,
        index=7,
        generation=2,
        ending="healthy",
        error=None,
        services=[_progress()],
        plan=documents(difference(before, after)),
    )


def _progress() -> ServiceProgress:
    from hmctl.actions.apps.progress import ServiceProgress

    return ServiceProgress(service="web", stage="rolling", desired=2, placed=2, pulled=1, started=1, healthy=1, failed=0)


def app_moves() -> object:
    from hmcore.apps.calls import Moved
    from hmctl.actions.apps.rebalancing import Ending, Rebalanced

    move = Moved(allocation="shop/web.1.1", source="node1", target="node2", reason="fewer replicas there")
    return Rebalanced(ending=Ending.TIMEOUT, moves=[move], left=[move], waits={"shop/web": "its rollout"}, absent={"node3": "down"})


def image_pushes() -> object:
    from hmctl.actions.images import ImagePush, ImagePushes

    sizes = {"size": 9, "sent": 5, "was_there": 4}
    pushed = ImagePush(name="web:1", id="sha256:1f", platform="linux/amd64", node="node1", changed=True, index=7, **sizes)
    return ImagePushes(images=[pushed])


def image_list() -> object:
    from hmctl.actions.images import ImageList, ImageView

    image = ImageView(
        name="web:1", id="sha256:1f", platform="linux/amd64", size=9, layers=1, holders=["node1"], apps=["shop"], author="me", pushed=1.5
    )  # fmt: skip
    return ImageList(index=7, images=[image])


def image_removals() -> object:
    from hmctl.actions.images import ImageRemoval, ImageRemovals

    return ImageRemovals(images=[ImageRemoval(name="web:1", changed=True, index=7)])


def secret_change() -> object:
    from hmctl.actions.secrets import SecretChange

    return SecretChange(kind="secret", name="password", changed=True, index=7, digest="1f", apps=["shop"])


def secret_list() -> object:
    from hmctl.actions.secrets import ListedSecret, SecretList

    secret = ListedSecret(
        kind="registry",
        name="ghcr.io",
        digest="1f",
        size=9,
        versions=1,
        lost=False,
        apps=["shop"],
        username="robot",
        set_by="me",
        set_at=1.5,
    )
    return SecretList(index=7, keepers=["node1"], secrets=[secret])


SAMPLES: dict[str, Callable[[], object]] = {
    "hmctl app ls": app_list,
    "hmctl app ps": app_replicas,
    "hmctl app logs": app_line,
    "hmctl app explain": app_explanation,
    "hmctl app history": app_history,
    "hmctl app deploy": app_change,
    "hmctl app rebalance": app_moves,
    "hmctl image push": image_pushes,
    "hmctl image ls": image_list,
    "hmctl image rm": image_removals,
    "hmctl secret set": secret_change,
    "hmctl secret ls": secret_list,
}
