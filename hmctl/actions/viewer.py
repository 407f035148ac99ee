"""Issues a certificate for somebody who may look and change nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from hmcore import pki
from hmcore.errors import HyperMeshError, PkiError, UsageError
from hmctl import files

if TYPE_CHECKING:
    from hmctl.state import OperatorStore


@dataclass(frozen=True, slots=True)
class IssuedViewer:
    """`hmctl ca viewer -o json`. `folder` holds `files`: the CA's certificate, the viewer's, and its key."""

    cluster: str
    name: str
    folder: str
    files: tuple[str, ...]
    valid_until: str


def issue_viewer(store: OperatorStore, name: str, folder: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> IssuedViewer:
    """Write the three files into `folder`, which is made if need be. Raises PkiError (no CA here) and UsageError: no such name can
    be, or one of the viewer's files exists already."""
    try:
        identity = pki.Identity(store.cluster, pki.Kind.VIEWER, name)
    except PkiError as error:
        raise UsageError(error.message, fix="choose such a name: hmctl ca viewer prometheus") from None
    authority = store.authority()
    issued = pki.issue(authority, identity, now())
    names = ("ca.pem", f"{name}.pem", f"{name}.key")
    try:
        files.private_folder(folder)
        files.create(folder / names[2], issued.key)
        files.create(folder / names[1], issued.certificate, mode=0o644)
        files.write(folder / names[0], authority.certificate, mode=0o644)
    except UsageError as error:
        there = f"to make it anew: rm {quote(str(folder / names[2]))} {quote(str(folder / names[1]))}"
        raise UsageError(f"{error.message}; nothing was issued", fix=f"--to DIR writes to another folder; {there}") from None
    except OSError as error:
        raise HyperMeshError(f"{folder} cannot be written: {error.strerror}", fix="--to DIR names a folder where you may write") from None
    return IssuedViewer(store.cluster, name, str(folder), names, pki.valid_until(issued.certificate).isoformat())
