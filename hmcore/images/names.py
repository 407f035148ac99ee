"""What images are called: REGISTRY/PATH:TAG@DIGEST, most of which may be left out. The grammar is that of distribution/reference (the
specification's `reference` package), whose short forms Docker uses. Pure and total."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hmcore.digests import hex_of, is_digest
from hmcore.errors import UsageError

HUB = "docker.io"
LATEST = "latest"
LOADED = "hypermesh/image"  # under this name, with the image's id as the tag, Docker finds what we loaded, whatever else it is called

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_HOST = re.compile(
    r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*)(?::[0-9]+)?"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
MOST_PATH = 255


@dataclass(frozen=True, slots=True)
class ImageName:
    """`tag` or `digest` or both are given; `digest` is of what the registry calls a manifest, not the image's id."""

    registry: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def familiar(self) -> str:
        """As short as it can be written: nginx:1.27, example.org/team/web:2."""
        path = self.path.removeprefix("library/") if self.registry == HUB and self.path.count("/") == 1 else self.path
        name = path if self.registry == HUB else f"{self.registry}/{path}"
        return name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def local(self) -> str:
        """What Docker finds it by once it was pulled: with a digest, the tag says nothing."""
        return f"{self.repository}@{self.digest}" if self.digest else self.familiar

    @property
    def repository(self) -> str:
        return ImageName(self.registry, self.path).familiar


def parse(text: str) -> ImageName:
    """Raises UsageError. An id, short or long, is no name."""
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _no(text, "what follows @ must be sha256: and 64 hexadecimal digits")
    first, slash, others = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        registry, rest = first, others
    else:
        registry = HUB
    path, colon, tag = rest.partition(":")
    if registry in ("index.docker.io", "registry-1.docker.io"):
        registry = HUB
    if not _HOST.fullmatch(registry):
        raise _no(text, f"{registry[:100]!r} is no host")
    if registry == HUB and "/" not in path:
        path = f"library/{path}"
    if colon and not _TAG.fullmatch(tag):
        raise _no(text, f"{tag[:150]!r} is no tag")
    if not _PATH.fullmatch(path) or len(path) > MOST_PATH:
        raise _no(text, "lower-case letters, digits and single . _ - between them, parts separated by /")
    if is_digest(text) or re.fullmatch(r"[0-9a-f]{64}", text):
        raise _no(text, "it looks like an id")
    return ImageName(registry, path, tag if colon or digest else LATEST, digest)


def familiar(text: str) -> str:
    """The name under which the cluster knows it. Raises UsageError."""
    return parse(text).familiar


def digest_in(text: str) -> str:
    """Of what a registry calls a manifest, where a name says it; empty: it does not, or is no name."""
    if "@" not in text:
        return ""
    try:
        return parse(text).digest
    except UsageError:
        return ""


def loaded_name(id: str) -> str:
    """Where Docker has the image with this id once we loaded it."""
    return f"{LOADED}:{hex_of(id)}"


def _no(text: str, why: str) -> UsageError:
    return UsageError(f"{text[:200]!r} is no name of an image: {why}")
