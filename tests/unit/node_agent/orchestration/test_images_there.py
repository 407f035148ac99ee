"""Among nodes that are as good as each other a replica begins where its image is: from what a registry and Docker say to its place."""

from __future__ import annotations

import pytest
from appbed import NAMES, Bed

from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
from hmcore.images.calls import Pull
from hmcore.images.pinning import open_names, pinned
from node_agent.consensus.statemachine.commands import PutApp, PutStatuses
from node_agent.container.local_images import LocalImage
from node_agent.container.machine import machine_of
from node_agent.container.pinning import Pinning
from node_agent.orchestration.appplan import Cluster, steps
from node_agent.orchestration.candidates import candidates
from node_agent.orchestration.rollout import Observed, Terms

CONFIG, MANIFEST = f"sha256:{'c' * 64}", f"sha256:{'d' * 64}"
PULLED = {"Id": CONFIG, "RepoTags": None, "RepoDigests": [f"example.org/web@{MANIFEST}"]}
INFO = {"NCPU": 4, "MemTotal": 8 << 30, "OSType": "linux", "Architecture": "x86_64"}


class Docker:
    """The leader's: the registry answers it, and it has the image itself, too."""

    def __init__(self, manifest: str) -> None:
        self._manifest = manifest

    def find(self, name: str) -> LocalImage | None:
        return LocalImage(CONFIG)

    def manifest(self, repository: str, tag: str, credentials: object) -> str:
        return self._manifest


async def placed(image: str, has_it: str, pull: Pull) -> str:
    """The node of one replica, where `has_it` alone has pulled its image."""
    docker = Docker(MANIFEST)
    pinning = Pinning(record=lambda name: None, docker=lambda: docker)
    spec = AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image=image))})
    spec = pinned(spec, {name: await pinning.pin(name, pull) for name in open_names(spec)})
    bed = Bed()
    bed.do(PutApp(name="shop", spec=spec))
    for name in NAMES:
        told = machine_of(name, INFO, [PULLED] if name == has_it else [], None)
        bed.do(PutStatuses(node=name, incarnation=0, allocations=(), machine=told))
    step = steps(bed.state, ["shop"], Cluster(candidates(bed.state)), {"shop": Observed()}, 0.0, Terms(fence_after=10.0))["shop"]
    assert step.command is not None
    (start,) = step.command.starts
    return start.node


@pytest.mark.parametrize("node", NAMES)
@pytest.mark.parametrize(
    ("image", "pull"),
    [("example.org/web:1", ""), ("example.org/web", "always"), (f"example.org/web:1@{MANIFEST}", ""), ("example.org/web:1", "never")],
)
async def test_a_replica_begins_where_its_image_is(node: str, image: str, pull: Pull) -> None:
    assert await placed(image, node, pull) == node
