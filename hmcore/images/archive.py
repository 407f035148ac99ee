"""What `docker save` writes, read: which images, and where in the file each layer lies. Of the layers only the first bytes are read.

Three layouts are in use. Docker up to 24 writes manifest.json, CONFIG.json and a folder ID/layer.tar for each layer, some of them links to
others (https://github.com/moby/docker-image-spec). Docker 25 and later writes an OCI image layout (blobs/sha256/DIGEST, index.json) and a
manifest.json beside it, whose layers may be compressed. Other tools write the OCI layout alone. manifest.json is taken where there is one.

Total: any file gives images or an ArchiveError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, BinaryIO, TypeVar

import msgspec
from msgspec import Meta

from hmcore.digests import Digest, digest_of, hex_of, is_digest
from hmcore.errors import ArchiveError, UsageError
from hmcore.images import names
from hmcore.images.tar import Entry, compression, entries

T = TypeVar("T")

MOST_JSON = 4 << 20  # bytes of a configuration or manifest
MOST_IMAGES = 64
MOST_LAYERS = 512  # Docker runs none of more than 127
MOST_LINKS = 8  # from one name to the next
BLOBS = "blobs/sha256/"
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
NAMED = "io.containerd.image.name"  # the annotation in index.json that says the image's name
REFERENCE = "org.opencontainers.image.ref.name"  # the same, by others; but Docker writes the tag alone there


class _Saved(msgspec.Struct, rename="pascal"):
    """An entry of manifest.json."""

    config: str
    layers: Annotated[list[str], Meta(max_length=MOST_LAYERS)]
    repo_tags: Annotated[list[str], Meta(max_length=1000)] | None = None


class _RootFs(msgspec.Struct):
    diff_ids: Annotated[list[Digest], Meta(min_length=1, max_length=MOST_LAYERS)]


class _Config(msgspec.Struct):
    rootfs: _RootFs
    os: str = "linux"
    architecture: str = ""
    variant: str = ""


class _Platform(msgspec.Struct):
    os: str = ""
    architecture: str = ""


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: Digest
    media_type: str = ""
    platform: _Platform | None = None
    annotations: dict[str, str] | None = None


class _Index(msgspec.Struct):
    manifests: Annotated[list[_Descriptor], Meta(max_length=1000)]


class _Manifest(msgspec.Struct):
    config: _Descriptor
    layers: Annotated[list[_Descriptor], Meta(max_length=MOST_LAYERS)]


@dataclass(frozen=True, slots=True)
class SavedLayer:
    """`size` bytes at `offset` of the archive. `digest`: of these bytes, as the archive has it; None: it says nothing. `diff_id`: of the
    tar archive that they are, or hold compressed."""

    diff_id: str
    digest: str | None
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class SavedImage:
    """`id`: the digest of `config`, its configuration as it stands there. `names`: familiar ones. `layers`: the lowest first."""

    id: str
    config: bytes
    names: tuple[str, ...]
    layers: tuple[SavedLayer, ...]
    platform: str


def read(file: BinaryIO) -> tuple[SavedImage, ...]:
    """The images in an archive, at least one. `file` must be seekable. Raises ArchiveError."""
    try:
        file.seek(0)
        packed = compression(file.read(8))
    except OSError as error:
        raise ArchiveError(f"the archive cannot be read: {error.strerror or error}") from error
    if packed:
        raise ArchiveError(f"the archive is compressed with {packed}", fix=f"unpack it: {packed} -d FILE")
    archive = _Archive(file, entries(file))
    if archive.has("manifest.json"):
        saved = archive.json("manifest.json", list[_Saved])
        if len(saved) > MOST_IMAGES:
            raise ArchiveError(f"{len(saved)} images: {MOST_IMAGES} at most")
        images = [_image(archive, each.config, each.layers, each.repo_tags or []) for each in saved]
    elif archive.has("index.json"):
        images = _of_index(archive, archive.json("index.json", _Index), 0, None)
    else:
        raise ArchiveError("it holds neither manifest.json nor index.json: no archive of an image", fix="docker save IMAGE -o FILE.tar")
    if not images:
        raise ArchiveError("there is no image in the archive")
    return _merged(images)


class _Archive:
    def __init__(self, file: BinaryIO, found: dict[str, Entry]) -> None:
        self._file = file
        self._found = found

    def has(self, name: str) -> bool:
        return name in self._found

    def entry(self, name: str) -> Entry:
        """The file of this name, through links."""
        at = name.removeprefix("./")
        for _ in range(MOST_LINKS):
            entry = self._found.get(at)
            if entry is None:
                raise ArchiveError(f"the archive lacks {name[:200]!r}: it is not whole")
            if not entry.link:
                return entry
            at = entry.link
        raise ArchiveError(f"{name[:200]!r} leads through too many links")

    def content(self, entry: Entry, most: int = MOST_JSON) -> bytes:
        if entry.size > most:
            raise ArchiveError(f"a description of {entry.size} bytes: {most} at most")
        return self.start(entry, entry.size)

    def start(self, entry: Entry, size: int) -> bytes:
        try:
            self._file.seek(entry.offset)
            data = self._file.read(min(size, entry.size))
        except OSError as error:
            raise ArchiveError(f"the archive cannot be read: {error.strerror or error}") from error
        if len(data) < min(size, entry.size):
            raise ArchiveError("the archive became shorter while it was read")
        return data

    def json(self, name: str, kind: type[T]) -> T:
        return _decode(self.content(self.entry(name)), kind, name)


def _decode(data: bytes, kind: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ArchiveError(f"{name[:200]} in the archive is not as it should be: {error}") from error


def _image(archive: _Archive, config_name: str, layer_names: list[str], tags: list[str]) -> SavedImage:
    raw = archive.content(archive.entry(config_name))
    id = digest_of(raw)
    claimed = _claimed(config_name)
    if claimed is not None and claimed != id:
        raise ArchiveError(f"the configuration {config_name[:200]} is damaged: its digest is {id}")
    config = _decode(raw, _Config, config_name)
    diff_ids = config.rootfs.diff_ids
    if len(diff_ids) != len(layer_names):
        raise ArchiveError(f"the image {hex_of(id)[:12]} has {len(diff_ids)} layers, the archive lists {len(layer_names)}")
    layers = tuple(_layer(archive, name, diff_id) for name, diff_id in zip(layer_names, diff_ids, strict=True))
    platform = "/".join(part for part in (config.os, config.architecture, config.variant) if part)
    return SavedImage(id, raw, tuple(dict.fromkeys(_familiar(tag) for tag in tags)), layers, platform)


def _layer(archive: _Archive, name: str, diff_id: str) -> SavedLayer:
    entry = archive.entry(name)
    plain = compression(archive.start(entry, 8)) is None
    claimed = _claimed(name) if name.removeprefix("./").startswith(BLOBS) else None
    if plain and claimed not in (None, diff_id):
        raise ArchiveError(f"layer {name[:200]} is not the {diff_id} that the configuration names")
    return SavedLayer(diff_id, diff_id if plain else claimed, entry.offset, entry.size)


def _of_index(archive: _Archive, index: _Index, depth: int, outer: dict[str, str] | None) -> list[SavedImage]:
    if depth > 2:
        raise ArchiveError("indexes in indexes in indexes")
    found: list[SavedImage] = []
    for each in index.manifests:
        if each.platform is not None and each.platform.os == "unknown":  # an attestation
            continue
        said = each.annotations or outer or {}
        path = BLOBS + hex_of(each.digest)
        if not archive.has(path):  # of a platform that was not saved
            continue
        raw = archive.content(archive.entry(path))
        if digest_of(raw) != each.digest:
            raise ArchiveError(f"{path} is damaged")
        if each.media_type in INDEXES:
            found += _of_index(archive, _decode(raw, _Index, path), depth + 1, said)
        else:
            manifest = _decode(raw, _Manifest, path)
            name = said.get(NAMED) or said.get(REFERENCE, "")
            layers = [BLOBS + hex_of(layer.digest) for layer in manifest.layers]
            found.append(_image(archive, BLOBS + hex_of(manifest.config.digest), layers, [name] if ":" in name else []))
        if len(found) > MOST_IMAGES:
            raise ArchiveError(f"more than {MOST_IMAGES} images")
    return found


def _merged(images: list[SavedImage]) -> tuple[SavedImage, ...]:
    """One image under several names is one."""
    found: dict[str, SavedImage] = {}
    for image in images:
        known = found.get(image.id, image)
        found[image.id] = SavedImage(image.id, image.config, tuple(dict.fromkeys(known.names + image.names)), image.layers, image.platform)
    return tuple(found.values())


def _claimed(name: str) -> str | None:
    """The digest that a file's name claims: blobs/sha256/HEX, or HEX.json."""
    digest = "sha256:" + name.rpartition("/")[2].removesuffix(".json")
    return digest if is_digest(digest) else None


def _familiar(tag: str) -> str:
    try:
        return names.familiar(tag)
    except UsageError as error:
        raise ArchiveError(f"a name in the archive is none: {error.message}") from error
