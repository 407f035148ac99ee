"""Images: named and removed where the leader is, held by nodes, read from a control node, resolved for those who deploy."""

from __future__ import annotations

import pytest
from image_log import Log
from msgspec.structs import replace

from hmcore.apps.records import Image, ImageLayer
from hmcore.errors import ImageUnavailable, InvalidRequest, NoQuorum, NotLeader
from hmcore.images.calls import HoldImageRequest, ImagesRequest, NameImageRequest, Pinned, RemoveImageRequest, ResolveRequest
from hmcore.pki import Identity, Kind
from node_agent.platform.changes import Changes
from node_agent.platform.images import MOST_NAMES, Images, check_image

ANN, NODE = Identity("hm-abc123defg", Kind.OPERATOR, "ann"), Identity("hm-abc123defg", Kind.NODE, "node1")
ID, LAYER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
IMAGE = Image(name="web:1", id=ID, config_size=10, layers=(ImageLayer(digest=LAYER, diff_id=LAYER, size=100),), holders=("node1",))


async def pin(name: str, pull: str = "", had: Pinned | None = None) -> Pinned:
    if had is not None or pull:
        return Pinned(image=f"{pull} {had.image if had else ''}")
    if name == "no:1":
        raise ImageUnavailable("nobody has it", fix="hmctl image push no:1")
    return Pinned(image=name, id=ID)


def images_of(log: Log, *, worker: bool = False) -> Images:
    changes = Changes("node1", log, None if worker else log, timeout=1.0)  # type: ignore[arg-type]
    state = (lambda: None) if worker else (lambda: log.state)
    return Images("node1", changes, state=state, leader=lambda: "node2", barrier=log.barrier, pin=pin)


async def test_an_image_gets_a_name_and_loses_it() -> None:
    log = Log()
    images = images_of(log)
    request = NameImageRequest(id="request-1", image=replace(IMAGE, author="somebody", unix_time=9.0, index=77))
    assert (await images.name(request, ANN)).changed
    (found,) = (await images.list(ImagesRequest(consistent=True))).images
    assert found == replace(IMAGE, author="ann", unix_time=1.0, index=3)
    assert (await images.name(request, ANN)).index == 3  # the same request
    assert (await images.remove(RemoveImageRequest(id="request-2", name="web:1"), ANN)).changed
    assert (await images.list(ImagesRequest())).images == []
    assert not (await images.remove(RemoveImageRequest(id="request-3", name="web:1"), ANN)).changed


async def test_a_node_speaks_for_itself() -> None:
    log = Log()
    images = images_of(log)
    await images.name(NameImageRequest(id="request-1", image=replace(IMAGE, holders=())), ANN)
    await images.hold(HoldImageRequest(id="request-2", image_id=ID), NODE)
    assert log.state.images["web:1"].holders == ("node1",)
    await images.hold(HoldImageRequest(id="request-3", image_id=ID, holds=False), NODE)
    assert log.state.images["web:1"].holders == ()
    with pytest.raises(InvalidRequest, match="no image"):
        await images.hold(HoldImageRequest(id="request-4", image_id=LAYER), NODE)


async def test_names_are_resolved_all_at_once_and_one_that_means_nothing_spoils_no_other() -> None:
    images = images_of(Log())
    reply = await images.resolve(ResolveRequest(names=("web:1", "no:1", "web:1")))
    assert reply.found == {"web:1": Pinned(image="web:1", id=ID)}
    assert reply.failed == {"no:1": "nobody has it; fix: hmctl image push no:1"}
    asked = ResolveRequest(names=("a", "b"), pull="missing", had={"a": Pinned(image="a@1")})
    assert (await images.resolve(asked)).found == {"a": Pinned(image="missing a@1"), "b": Pinned(image="missing ")}
    with pytest.raises(InvalidRequest):
        await images.resolve(ResolveRequest(names=("x",) * (MOST_NAMES + 1)))


async def test_a_worker_and_one_without_a_quorum_say_so() -> None:
    log = Log()
    for asked in (images_of(log, worker=True).list(ImagesRequest()), images_of(log, worker=True).resolve(ResolveRequest(names=()))):
        with pytest.raises(NotLeader):
            await asked
    log.is_leader = False
    with pytest.raises(NoQuorum):
        await images_of(log).list(ImagesRequest(consistent=True))
    with pytest.raises(NotLeader):
        await images_of(log).name(NameImageRequest(id="request-1", image=IMAGE), ANN)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(IMAGE, name=""),
        replace(IMAGE, name="web"),
        replace(IMAGE, name="docker.io/library/web:1"),
        replace(IMAGE, name=f"web:1@{ID}"),
        replace(IMAGE, name=ID),
        replace(IMAGE, id="a" * 64),
        replace(IMAGE, config_size=0),
        replace(IMAGE, config_size=1 << 40),
        replace(IMAGE, layers=()),
        replace(IMAGE, layers=IMAGE.layers * 1000),
        replace(IMAGE, layers=(replace(IMAGE.layers[0], size=-1),)),
        replace(IMAGE, layers=(replace(IMAGE.layers[0], digest="../x"),)),
        replace(IMAGE, layers=(*IMAGE.layers, replace(IMAGE.layers[0], size=7))),
        replace(IMAGE, platform="x" * 101),
        replace(IMAGE, holders=("node1",) * 1001),
    ],
)
def test_what_no_archive_comes_to_is_refused(wrong: Image) -> None:
    check_image(IMAGE)
    with pytest.raises(InvalidRequest):
        check_image(wrong)
