"""What `docker load` reads, written from blobs: no layer that Docker has already.

Docker's own image store looks a layer up by its chain id (its diff id and those of all below it) before it opens the layer's file, and
leaves the file alone if it knows it (moby, image/tarexport/load.go); so the file need not be there. containerd's image store wants them all
(containerd, core/images/archive/importer.go).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence

from hmcore.apps.records import Image, ImageLayer
from hmcore.digests import hex_of
from hmcore.errors import BlobCorrupt
from hmcore.images.archive import BLOBS
from hmcore.images.names import loaded_name
from hmcore.images.tar import BLOCK

Open = Callable[[ImageLayer], Iterable[bytes]]


def lacking(layers: Sequence[ImageLayer], known: Iterable[Sequence[str]]) -> tuple[ImageLayer, ...]:
    """Those of `layers` that Docker does not have, when it has images of these diff ids: all above the longest beginning that they share
    with one of them. A layer with the same content above other ones is another layer to it."""
    shared = 0
    for diff_ids in known:
        same = 0
        for layer, diff_id in zip(layers, diff_ids, strict=False):
            if layer.diff_id != diff_id:
                break
            same += 1
        shared = max(shared, same)
    return tuple(layers[shared:])


def archive(image: Image, config: bytes, layers: Iterable[ImageLayer], open_layer: Open) -> Iterator[bytes]:
    """The archive, piece by piece: `config`, and of the image's layers those in `layers`. Docker will know it by `loaded_name`."""
    yield from _file(BLOBS + hex_of(image.id), len(config), [config])
    there: set[str] = set()
    for layer in layers:
        if layer.digest not in there:
            there.add(layer.digest)
            yield from _file(BLOBS + hex_of(layer.digest), layer.size, open_layer(layer))
    manifest = [
        {
            "Config": BLOBS + hex_of(image.id),
            "RepoTags": [loaded_name(image.id)],
            "Layers": [BLOBS + hex_of(layer.digest) for layer in image.layers],
        }
    ]
    content = json.dumps(manifest).encode()
    yield from _file("manifest.json", len(content), [content])
    yield bytes(2 * BLOCK)


def _file(name: str, size: int, content: Iterable[bytes]) -> Iterator[bytes]:
    """Raises BlobCorrupt when there is not as much of the content as was said: the archive would mean something else."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    yield info.tobuf(tarfile.GNU_FORMAT)
    written = 0
    for piece in content:
        written += len(piece)
        yield piece
    if written != size:
        raise BlobCorrupt(f"{name} has {written} bytes, not {size}")
    if rest := size % BLOCK:
        yield bytes(BLOCK - rest)
