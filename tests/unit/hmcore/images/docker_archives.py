"""Archives of images as Docker writes them, of either layout; and Docker's side of `docker load`: what it wants to be there."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

BLOBS = "blobs/sha256/"


def digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def layer(name: str, content: bytes = b"") -> bytes:
    """A layer with one file."""
    return tar({name: content or name.encode()})


def tar(files: Mapping[str, bytes | str]) -> bytes:
    """Values that are text are symbolic links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as out:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                out.addfile(info)
            else:
                info.size = len(content)
                out.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@dataclass(frozen=True)
class Made:
    """An image, before it is saved."""

    layers: tuple[bytes, ...]
    names: tuple[str, ...] = ("web:1",)
    architecture: str = "amd64"
    extra: str = ""

    @property
    def diff_ids(self) -> list[str]:
        return [digest(layer) for layer in self.layers]

    @property
    def config(self) -> bytes:
        root = {"type": "layers", "diff_ids": self.diff_ids}
        return json.dumps({"architecture": self.architecture, "os": "linux", "config": {"Env": [self.extra]}, "rootfs": root}).encode()

    @property
    def id(self) -> str:
        return digest(self.config)


def legacy(*images: Made) -> bytes:
    """As Docker up to 24 writes it: equal layers are links, and manifest.json comes last."""
    files: dict[str, bytes | str] = {}
    manifest = []
    for image in images:
        paths = []
        for at, content in enumerate(image.layers):
            folder = sha256(image.config + str(at).encode()).hexdigest()
            same = next((name for name, there in files.items() if there == content), None)
            files |= {f"{folder}/VERSION": b"1.0", f"{folder}/json": b"{}"}
            files[f"{folder}/layer.tar"] = f"../{same}" if same else content
            paths.append(f"{folder}/layer.tar")
        files[f"{image.id[7:]}.json"] = image.config
        manifest.append({"Config": f"{image.id[7:]}.json", "RepoTags": list(image.names) or None, "Layers": paths})
    return tar(files | {"manifest.json": json.dumps(manifest).encode(), "repositories": b"{}"})


def oci(*images: Made, compressed: bool = False, docker: bool = True, platforms: bool = False) -> bytes:
    """As Docker 25 and later writes it; `compressed` with containerd's image store; not `docker`: without manifest.json, as others do."""
    files: dict[str, bytes | str] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    saved, index = [], []
    for image in images:
        layers = [gzip.compress(content, mtime=0) if compressed else content for content in image.layers]
        paths = [BLOBS + digest(content)[7:] for content in layers]
        files |= {**dict(zip(paths, layers, strict=True)), BLOBS + image.id[7:]: image.config}
        described = [{"mediaType": "x", "digest": digest(content), "size": len(content)} for content in layers]
        manifest = json.dumps({"schemaVersion": 2, "config": {"digest": image.id}, "layers": described}).encode()
        files[BLOBS + digest(manifest)[7:]] = manifest
        entry: dict[str, object] = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(manifest)}
        if platforms:
            entry["platform"] = {"os": "linux", "architecture": image.architecture}
        for name in image.names or ("",):
            index.append(entry | {"annotations": {"io.containerd.image.name": f"docker.io/library/{name}"} if name else {}})
        saved.append({"Config": BLOBS + image.id[7:], "RepoTags": list(image.names), "Layers": paths})
    if platforms:  # an index within, beside an attestation and a platform that was not saved
        index.append({"digest": "sha256:" + "0" * 64, "platform": {"os": "linux", "architecture": "s390x"}})
        index.append({"digest": "sha256:" + "1" * 64, "platform": {"os": "unknown", "architecture": "unknown"}})
        inner = json.dumps({"manifests": index}).encode()
        files[BLOBS + digest(inner)[7:]] = inner
        index = [{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest(inner)}]
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": index}).encode()
    if docker:
        files["manifest.json"] = json.dumps(saved).encode()
    return tar(files)


class Refused(Exception):
    pass


@dataclass
class ImageStore:
    """What Docker keeps of images, and what it asks of an archive: with its own store only layers that it does not have."""

    containerd: bool = False
    images: dict[str, tuple[str, ...]] = field(default_factory=dict)  # diff ids by id
    names: dict[str, str] = field(default_factory=dict)

    def load(self, archive: Iterable[bytes]) -> None:
        files: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as read:
            for member in read:
                files[member.name] = read.extractfile(member).read()  # type: ignore[union-attr]
        for saved in json.loads(files["manifest.json"]):
            config = files[saved["Config"]]
            diff_ids = tuple(json.loads(config)["rootfs"]["diff_ids"])
            if len(diff_ids) != len(saved["Layers"]):
                raise Refused("layers length mismatch")
            for at, (diff_id, path) in enumerate(zip(diff_ids, saved["Layers"], strict=True)):
                if not self.containerd and self.knows(diff_ids[: at + 1]):
                    continue
                if path not in files:
                    raise Refused(f"no such file: {path}")
                content = files[path]
                if digest(gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content) != diff_id:
                    raise Refused("invalid diffID")
            id = digest(b"manifest of " + config) if self.containerd else digest(config)
            self.images[id] = diff_ids
            for name in saved["RepoTags"] or ():
                self.names[name] = id

    def knows(self, chain: Sequence[str]) -> bool:
        return any(diff_ids[: len(chain)] == tuple(chain) for diff_ids in self.images.values())


def write(path: Path, archive: bytes) -> Path:
    path.write_bytes(archive)
    return path
