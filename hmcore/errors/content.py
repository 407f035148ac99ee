"""What is kept and proven by its bytes: certificates, secrets, blobs, and the images that blobs make up."""

from __future__ import annotations

from typing import ClassVar

from hmcore.errors.base import HyperMeshError


class PkiError(HyperMeshError):
    pass


class SecretError(HyperMeshError):
    pass


class BlobError(HyperMeshError):
    """`kind` is its name on the wire."""

    kind: ClassVar[str] = "blob"


class BlobMissing(BlobError):
    kind = "blob-missing"


class BlobCorrupt(BlobError):
    kind = "blob-corrupt"


class BlobBusy(BlobError):
    kind = "blob-busy"


class BlobStoreFull(BlobError):
    kind = "blob-store-full"


class ImageError(HyperMeshError):
    pass


class ArchiveError(ImageError):
    pass


class ImageUnavailable(ImageError):
    pass


class RegistryDenied(ImageUnavailable):
    pass


class RegistrySilent(ImageUnavailable):
    pass


class DockerMissing(ImageError):
    pass
