"""What is remembered about a lab: its design, not its condition. Whether a host runs is asked of the kernel, which cannot be out of date.

The file is written before anything is made, so that whatever interrupts hmctl, the next `up` or `down` knows what to look for.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from hmcore.errors import LabError
from hmctl.lab.plan import Address, Cgroups, node_index

FILE = "lab.json"


class Block(msgspec.Struct, frozen=True):
    """Packets that the switch drops on their way to a host: `protocol` (udp, tcp) and destination port."""

    node: str
    protocol: str
    port: int


class LabState(msgspec.Struct, frozen=True, kw_only=True):
    """A lab as designed. `cluster_id`: of the cluster that its hosts are for. `inventory`: the file last asked for.
    `written`: digests of the inventories that we wrote, by path, which tell whether somebody edited them."""

    name: str
    subnet: int
    cluster_id: str
    image: str  # digest of the base image that the hosts' disks lie on
    nodes: tuple[str, ...]
    inventory: str
    cgroups: Cgroups = Cgroups.MACHINE
    written: dict[str, str] = {}
    partition: tuple[tuple[str, ...], ...] = ()
    blocks: tuple[Block, ...] = ()

    def address(self, node: str) -> Address:
        return Address(self.subnet, node_index(node))


def load(folder: Path) -> LabState | None:
    """The state of the lab that lives in `folder`; None if there is none. Raises LabError if the file is damaged."""
    file = folder / FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=LabState)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LabError(f"{file} is damaged: {error}", fix=f"hmctl lab down --name {folder.name} removes the lab") from error


def save(folder: Path, state: LabState) -> None:
    """Write it atomically: readers see the old or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"{FILE}.new"
    beside.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n")
    os.replace(beside, folder / FILE)
