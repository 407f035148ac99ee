"""The lab as an inventory file, so that `hmctl -i lab.yaml deploy` works as it stands."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import string
from pathlib import Path

from hmcore.errors import LabError
from hmctl.lab.plan import DEFAULT_NAME, role
from hmctl.lab.state import LabState

MARK = "# Written by `hmctl lab up`"
_ID = string.ascii_lowercase + string.digits


def new_cluster_id() -> str:
    """A random cluster id."""
    return "hm-" + "".join(secrets.choice(_ID) for _ in range(10))


def render(state: LabState, key: Path, known_hosts: Path) -> str:
    """The inventory's text."""
    hosts = "".join(f"  - {{name: {node}, address: {state.address(node)}, role: {role(node, len(state.nodes))}}}\n" for node in state.nodes)
    named = "" if state.name == DEFAULT_NAME else f" --name {state.name}"
    return (
        f"{MARK} for the lab {state.name!r}; `hmctl lab down{named}` removes it.\n"
        f"name: {state.name}\n"
        f"id: {state.cluster_id}\n"
        "preset: balanced\n"
        f"ssh: {{user: root, key: {json.dumps(str(key))}, known_hosts: {json.dumps(str(known_hosts))}, config: false}}\n"
        f"hosts:\n{hosts}"
    )


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def check_replaceable(file: Path) -> None:
    """Raises LabError if `file` exists and no lab wrote it."""
    if file.exists() and not file.read_text(errors="replace").startswith(MARK):
        raise LabError(f"{file} exists and was not written by a lab: it stays as it is", fix="hmctl lab up --inventory FILE")


def write(file: Path, text: str, last: str) -> bool:
    """Write the inventory, unless somebody edited it since we wrote it (`last` is the digest of that). False if it was left alone."""
    if file.exists() and last and digest(file.read_text(errors="replace")) != last:
        return False
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text)
    give_to_caller(beside)
    os.replace(beside, file)
    return True


def remove(file: Path, last: str) -> Path | None:
    """Remove the inventory of a lab that is no more. One that was edited is kept under another name, which is returned."""
    if not file.exists() or not file.read_text(errors="replace").startswith(MARK):
        return None
    if digest(file.read_text(errors="replace")) == last:
        file.unlink()
        return None
    kept = file.with_name(f"{file.name}.old")
    os.replace(file, kept)
    return kept


def give_to_caller(path: Path) -> None:
    """Under sudo, let the file belong to whom called it: the lab needs root, deploying to it does not."""
    user, group = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    if user and group:
        os.chown(path, int(user), int(group))
