"""What content is called that is kept by what it is: `sha256:` and 64 hexadecimal digits, as OCI's image specification writes it."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Annotated

import msgspec

PATTERN = r"\Asha256:[0-9a-f]{64}\Z"
Digest = Annotated[str, msgspec.Meta(pattern=PATTERN)]

_is_digest = re.compile(PATTERN).match


def is_digest(text: str) -> bool:
    return _is_digest(text) is not None


def digest_of(content: bytes | bytearray | memoryview) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def short(digest: str) -> str:
    """As people are shown it."""
    return hex_of(digest)[:12]


def hex_of(digest: str) -> str:
    """Its digits alone: fit for a file's name."""
    return digest.removeprefix("sha256:")
