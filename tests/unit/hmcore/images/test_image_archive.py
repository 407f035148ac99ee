"""What `docker save` writes, read and written again: both layouts, and hostile ones."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable

import pytest
from docker_archives import BLOBS, ImageStore, Made, Refused, digest, layer, legacy, oci, tar
from hypothesis import given, settings
from hypothesis import strategies as st

from hmcore.apps.records import Image, ImageLayer
from hmcore.errors import ArchiveError, BlobCorrupt
from hmcore.images.archive import SavedImage, read
from hmcore.images.loading import archive, lacking
from hmcore.images.names import loaded_name

A, B, C = (layer(name) for name in "abc")
IMAGE = Made((A, B))
LAYOUTS: dict[str, Callable[..., bytes]] = {
    "legacy": legacy,
    "oci": oci,
    "oci alone": lambda *images: oci(*images, docker=False),
    "oci in an index": lambda *images: oci(*images, docker=False, platforms=True),
}


def opened(data: bytes) -> tuple[SavedImage, ...]:
    return read(io.BytesIO(data))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_is_read_from_every_layout(layout: str) -> None:
    data = LAYOUTS[layout](IMAGE)
    (image,) = opened(data)
    assert (image.id, image.config, image.names, image.platform) == (IMAGE.id, IMAGE.config, ("web:1",), "linux/amd64")
    assert [each.diff_id for each in image.layers] == IMAGE.diff_ids
    assert [each.digest for each in image.layers] == IMAGE.diff_ids
    assert [data[each.offset : each.offset + each.size] for each in image.layers] == [A, B]


def test_compressed_layers_are_told_by_what_they_are() -> None:
    (image,) = opened(oci(IMAGE, compressed=True))
    packed = gzip.compress(A, mtime=0)
    assert (image.layers[0].digest, image.layers[0].diff_id, image.layers[0].size) == (digest(packed), digest(A), len(packed))


def test_compressed_layers_in_the_old_layout_do_not_say_what_they_are() -> None:
    packed = gzip.compress(A)
    made = Made((A,))
    data = tar(
        {"a.json": made.config, "x.tar.gz": packed, "manifest.json": json.dumps([{"Config": "a.json", "Layers": ["x.tar.gz"]}]).encode()}
    )
    (image,) = opened(data)
    assert (image.layers[0].digest, image.layers[0].diff_id, image.names) == (None, digest(A), ())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_several_images_and_equal_layers(layout: str) -> None:
    other = Made((A, C, A), ("db:2", "db:latest"), "arm64")
    images = {image.id: image for image in opened(LAYOUTS[layout](IMAGE, other))}
    assert set(images) == {IMAGE.id, other.id}
    assert set(images[other.id].names) == {"db:2", "db:latest"}
    assert images[other.id].platform == "linux/arm64"
    first, _, third = images[other.id].layers
    assert (first.offset, first.digest) == (third.offset, third.digest)


def test_an_image_saved_by_its_id_has_no_name() -> None:
    for layout in LAYOUTS.values():
        assert opened(layout(Made((A,), ())))[0].names == ()


def broken(**changes: object) -> bytes:
    """The old layout, with something else in it."""
    entry = {"Config": f"{IMAGE.id[7:]}.json", "RepoTags": ["web:1"], "Layers": ["a.tar", "b.tar"]} | changes.pop("entry", {})  # type: ignore[operator]
    files = {f"{IMAGE.id[7:]}.json": IMAGE.config, "a.tar": A, "b.tar": B, "manifest.json": json.dumps([entry]).encode()}
    return tar(files | changes)  # type: ignore[operator]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive at all" * 100,
        gzip.compress(legacy(IMAGE)),
        tar({}),
        tar({"a": b"b"}),
        tar({"manifest.json": b"[]"}),
        tar({"manifest.json": b"{}"}),
        tar({"manifest.json": b"[" * 100_000}),
        tar({"manifest.json": b"\xff"}),
        tar({"manifest.json": "manifest.json"}),
        tar({"index.json": b'{"manifests":[]}'}),
        tar({"index.json": b'{"manifests":[{"digest":"sha256:../../x"}]}'}),
        broken(entry={"Config": "nothing"}),
        broken(entry={"Config": "../../etc/passwd"}),
        broken(entry={"Layers": ["a.tar"]}),
        broken(entry={"Layers": ["a.tar", "nothing"]}),
        broken(entry={"Layers": ["a.tar"] * 1000}),
        broken(entry={"RepoTags": ["Not A Name"]}),
        broken(entry={"RepoTags": ["--output"]}),
        broken(**{f"{IMAGE.id[7:]}.json": b"{}"}),
        broken(**{f"{IMAGE.id[7:]}.json": IMAGE.config + b" "}),
        broken(**{"a.tar": "b.tar", "b.tar": "a.tar"}),
        tar({"c.json": b'{"rootfs":{"diff_ids":[]}}', "manifest.json": b'[{"Config":"c.json","Layers":[]}]'}),
        tar({"c.json": b'{"rootfs":{"diff_ids":["sha256:1"]}}', "a": A, "manifest.json": b'[{"Config":"c.json","Layers":["a"]}]'}),
        legacy(IMAGE)[:2000],
    ],
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        opened(data)


def test_blobs_that_are_not_what_their_names_say_are_refused() -> None:
    good = tar({BLOBS + digest(A)[7:]: A})
    assert good  # (how it is written below)
    config = Made((A,))
    manifest = [{"Config": BLOBS + config.id[7:], "Layers": [BLOBS + digest(B)[7:]]}]
    with pytest.raises(ArchiveError, match="is not the"):
        opened(tar({BLOBS + config.id[7:]: config.config, BLOBS + digest(B)[7:]: B, "manifest.json": json.dumps(manifest).encode()}))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(LAYOUTS)), st.data())
def test_any_change_gives_images_or_an_error(layout: str, draw: st.DataObject) -> None:
    data = bytearray(LAYOUTS[layout](IMAGE))
    for _ in range(draw.draw(st.integers(1, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        images = opened(bytes(data))
    except ArchiveError:
        return
    for image in images:
        assert digest(image.config) == image.id


# writing


def record(made: Made, *, compressed: bool = False) -> tuple[Image, dict[str, bytes]]:
    blobs = {digest(content): content for content in (gzip.compress(each, mtime=0) if compressed else each for each in made.layers)}
    layers = tuple(
        ImageLayer(digest=name, diff_id=diff_id, size=len(content))
        for (name, content), diff_id in zip(blobs.items(), made.diff_ids, strict=True)
    )
    return Image(name=made.names[0], id=made.id, config_size=len(made.config), layers=layers), blobs


@pytest.mark.parametrize("containerd", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_docker_loads_what_we_write(containerd: bool, compressed: bool) -> None:
    image, blobs = record(IMAGE, compressed=compressed)
    docker = ImageStore(containerd)
    docker.load(archive(image, IMAGE.config, image.layers, lambda layer: [blobs[layer.digest]]))
    assert docker.images[docker.names[loaded_name(image.id)]] == tuple(IMAGE.diff_ids)


def test_layers_that_docker_has_are_left_out_and_no_others() -> None:
    image, blobs = record(Made((A, B, C)))
    docker = ImageStore()
    below, _ = record(Made((A,)))
    docker.load(archive(below, Made((A,)).config, below.layers, lambda layer: [blobs[layer.digest]]))
    needed = lacking(image.layers, docker.images.values())
    assert [layer.diff_id for layer in needed] == [digest(B), digest(C)]
    written = list(archive(image, Made((A, B, C)).config, needed, lambda layer: [blobs[layer.digest]]))
    assert A not in written
    docker.load(written)
    with pytest.raises(Refused):
        ImageStore(containerd=True).load(written)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), st.lists(st.lists(st.sampled_from("abcd"), max_size=6), max_size=4))
def test_lacking_is_what_docker_would_open(wanted: list[str], known: list[list[str]]) -> None:
    layers = [ImageLayer(digest=name, diff_id=name, size=1) for name in wanted]
    docker = ImageStore(images={str(at): tuple(each) for at, each in enumerate(known)})
    opened = [layer for at, layer in enumerate(layers) if not docker.knows([each.diff_id for each in layers[: at + 1]])]
    assert list(lacking(layers, known)) == opened


def test_a_layer_that_is_shorter_than_was_said_is_not_passed_off_as_whole() -> None:
    image, _ = record(IMAGE)
    with pytest.raises(BlobCorrupt, match="bytes"):
        list(archive(image, IMAGE.config, image.layers, lambda layer: [b"short"]))
