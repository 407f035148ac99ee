"""How one gets into the hosts of a lab: its SSH key, the keys by which its hosts are known, and the inventories that name both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from hmctl.lab import inventory, shell
from hmctl.lab.host import Machine
from hmctl.lab.state import LabState


def ensure_key(folder: Path, lab: str) -> str:
    """The public half of the lab's SSH key, made now if there is none."""
    key = folder / "key"
    public = key.with_suffix(".pub")
    if not public.exists():  # written last
        key.unlink(missing_ok=True)
        shell.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"hypermesh-lab-{lab}", "-f", str(key)])
        inventory.give_to_caller(key)
    return public.read_text()


def write_known_hosts(folder: Path, machines: Sequence[Machine]) -> None:
    lines = [f"{machine.state.address(machine.node)} {machine.disk.host_key()}\n" for machine in machines]
    (folder / "known_hosts").write_text("".join(lines))


def write_inventories(folder: Path, design: LabState) -> tuple[bool, LabState]:
    """Write the one that was asked for, and refresh earlier ones. False if the former was left alone because somebody edited it; and the
    design, which remembers what was written."""
    text = inventory.render(design, folder / "key", folder / "known_hosts")
    asked = True
    for file in (design.inventory, *(path for path in design.written if path != design.inventory and Path(path).exists())):
        if inventory.write(Path(file), text, design.written.get(file, "")):
            design = msgspec.structs.replace(design, written={**design.written, file: inventory.digest(text)})
        elif file == design.inventory:
            asked = False
    return asked, design


def remove_inventories(design: LabState) -> dict[str, Path]:
    """Remove what was written. Those that somebody edited are kept under another name: which, by the name that they had."""
    return {file: kept for file, digest in design.written.items() if (kept := inventory.remove(Path(file), digest)) is not None}
