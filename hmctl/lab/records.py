"""What the operator keeps of a lab's cluster (hmctl/state.py): its CA, with the key, is good for nothing once its hosts are gone.

A cluster's id lives and dies with the lab (docs/adr/0012), so what is kept by that id is the lab's, unless somebody gave the id to other
machines, too: then the record of who formed the cluster names them, and nothing is removed.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hmcore.errors import HyperMeshError
from hmctl.lab.plan import subnets_of
from hmctl.lab.state import LabState
from hmctl.state import OperatorStore, data_folder


@dataclass(frozen=True, slots=True)
class Kept:
    """A folder of the lab's cluster. `why`: it was left as it is; None: it is removed."""

    folder: Path
    why: str | None = None


def forget(design: LabState, roots: list[Path]) -> list[Kept]:
    """Remove what is kept of the lab's cluster below each of `roots`, and of no other cluster. For a lab that is down."""
    return [_forget(OperatorStore.open(design.cluster_id, root), design) for root in roots if (root / design.cluster_id).is_dir()]


def data_folders(environ: Mapping[str, str]) -> list[Path]:
    """Where the operator's records may be: ours; and, under sudo, those of who called it, as deploying to a lab needs no root."""
    folders = [data_folder()]
    try:
        home = Path(pwd.getpwnam(environ["SUDO_USER"]).pw_dir)
    except KeyError:  # no sudo, or no such user any more
        return folders
    theirs = home / ".local" / "share" / "hypermesh"
    return folders if theirs in folders else [*folders, theirs]


def _forget(store: OperatorStore, design: LabState) -> Kept:
    try:
        strangers = [place for place in store.voters or () if subnets_of([place.address]) != {design.subnet}]
        if strangers:
            return Kept(store.folder, f"its cluster was formed with machines that are not the lab's: {', '.join(map(str, strangers))}")
        with store.lock("lab down"):
            shutil.rmtree(store.folder)
    except HyperMeshError as error:  # damaged, or in use
        return Kept(store.folder, error.message)
    except OSError as error:
        return Kept(store.folder, os.strerror(error.errno).lower() if error.errno else str(error))
    return Kept(store.folder)
