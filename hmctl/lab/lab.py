"""A lab: several real hosts on this machine. The API behind `hmctl lab`, and of the end-to-end tests.

Every method that changes something holds the lab's lock, writes the new design first and then makes the kernel follow; what an
interrupted call left half done is completed by the next `up`, or removed by `down`.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from hmcore.errors import LabError, UsageError
from hmctl.lab import access, base, cgroups, home, host, inventory, network, plan, shell, state
from hmctl.lab.host import Machine
from hmctl.lab.lock import exclusive
from hmctl.lab.plan import Cgroups, Names
from hmctl.lab.progress import Progress, Silent
from hmctl.lab.state import Block, LabState

T = TypeVar("T")

_LOCK_TIMEOUT = base.BUILD_TIMEOUT  # whoever holds it may be building the image
_AT_ONCE = 8  # hosts


class HostView(msgspec.Struct, frozen=True, kw_only=True):
    """A host as `lab ls` shows it. `state`: running | paused | stopped."""

    name: str
    address: str
    state: str


class LabView(msgspec.Struct, frozen=True, kw_only=True):
    """A lab as `lab ls` shows it."""

    name: str
    inventory: str
    hosts: list[HostView]
    partition: list[list[str]]


@dataclass(frozen=True, slots=True)
class Up:
    """What `up` found and did. `inventory_written` is False when the file was left as somebody edited it."""

    view: LabView
    booted: tuple[str, ...]
    inventory_written: bool


class Lab:
    """One lab by name. Knows nothing between calls: the directory and the kernel remember."""

    def __init__(self, name: str = "lab", *, root: Path | None = None, progress: Progress | None = None) -> None:
        self.name = plan.check_name(name)
        self.root = root or home.directory()
        self.folder = home.folder(self.root, self.name)
        self._progress = progress or Silent()

    # Life of the lab

    def up(self, nodes: int | None = None, inventory_file: Path | None = None, *, cgroups: Cgroups | None = None) -> Up:
        """Bring the lab up, complete and ready: build what is missing, start what died, add hosts up to `nodes`. Never removes hosts.
        `cgroups` is decided when a lab is made; raises UsageError for another one than it has."""
        shell.require_root_and_tools("up")
        recipe, apt = base.current_recipe()
        with self._locked():
            design = self._design(nodes, recipe.digest, inventory_file, cgroups)
            if design.image == recipe.digest:
                base.ensure(self._images, recipe, apt, self._progress)
            elif not (self._images / design.image).is_dir():
                raise LabError(
                    f"the base image {design.image} of lab {self.name!r} is gone", fix=f"hmctl lab down --name {self.name}, then up"
                )
            with self._allocating():
                base.remove_unused(
                    self._images, {design.image, recipe.digest, *(lab.image for lab in home.designs(self.root))}, self._progress
                )
            key = access.ensure_key(self.folder, self.name)
            self._ensure_switch(design)
            machines = self._machines(design)
            booted = tuple(_at_once(lambda machine: self._ensure_host(machine, key), machines))
            access.write_known_hosts(self.folder, machines)
            written, design = access.write_inventories(self.folder, design)
            state.save(self.folder, design)
            return Up(self._view(design), tuple(m.node for m, fresh in zip(machines, booted, strict=True) if fresh), written)

    def down(self) -> bool:
        """Remove the lab and all that is left of it, also after a crash or with a damaged state file. False if there was nothing."""
        shell.require_root_and_tools("down")
        names, found = Names(self.name), cgroups.hierarchies()
        remains = {*network.namespaces(), *cgroups.names(found)}
        nodes = {node for name in remains if (node := names.node(name))}
        if not nodes and names.switch not in remains and not self.folder.exists() and not self._lock.exists():
            return False
        with self._locked():
            known: LabState | None = None
            with contextlib.suppress(LabError):  # damaged: what the kernel and the directory show is enough to remove it
                known = state.load(self.folder)
            nodes |= set(known.nodes if known else ())
            blank = known or LabState(name=self.name, subnet=0, cluster_id="", image="", nodes=(), inventory="")
            machines = [Machine.of(blank, node, self.folder, self._images, found) for node in sorted(nodes)]
            _at_once(Machine.clear, machines)
            network.remove_switch(self.name, known.subnet if known else None)
            if known:
                for file, kept in access.remove_inventories(known).items():
                    self._progress.finish(self.name, f"{file} was edited: kept as {kept}")
            if self.folder.exists():
                shutil.rmtree(self.folder)
            with self._allocating():
                network.tidy_namespace_folder()
        base.remove_interrupted(self._images)
        return True

    def view(self) -> LabView:
        """The lab as it is now. Needs no root. Raises LabError if there is no such lab."""
        return self._view(self._load())

    # Hosts

    def exec(
        self, node: str, argv: Sequence[str], *, stdin: bytes | None = None, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `argv` inside the host as root. Raises LabError if the host is down or the command takes longer than `timeout` seconds."""
        command = self.enter(node, argv)
        try:
            return subprocess.run(command, input=stdin or b"", capture_output=True, timeout=timeout, env=host.environment(None))
        except subprocess.TimeoutExpired as error:
            raise LabError(f"`{argv[0]}` did not end within {timeout:g} s", host=node) from error

    def enter(self, node: str, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` inside the host; its environment should be host.environment()."""
        shell.require_root_and_tools("exec")
        return self._machine(self._load(), node).enter(argv)

    def kill(self, node: str) -> bool:
        """Crash the host: all its processes die at once. Its disk stays. False if it was down already."""
        with self._changing("kill") as design:
            return self._machine(design, node).crash()

    def stop(self, node: str, timeout: float = host.STOP_TIMEOUT) -> bool:
        """Shut the host down. False if it did not power off within `timeout` seconds and was cut off."""
        with self._changing("stop") as design:
            return self._machine(design, node).shut_down(timeout)

    def start(self, node: str) -> None:
        """Boot the host from its disk, unless it runs, and wait until it is ready."""
        with self._changing("start") as design:
            self._ensure_switch(design)
            self._ensure_host(self._machine(design, node), access.ensure_key(self.folder, self.name))

    def pause(self, node: str, paused: bool = True) -> None:
        """Freeze all processes of the host (it keeps its memory and does not notice), or let them go on."""
        with self._changing("pause") as design:
            self._machine(design, node).pause(paused)

    # Wires

    def partition(self, groups: Sequence[Sequence[str]]) -> None:
        """Cut all links between the groups. A host in no group keeps its links; this machine reaches everybody."""
        with self._changing("partition") as design:
            self._rewire(msgspec.structs.replace(design, partition=plan.check_groups(groups, design.nodes)))

    def heal(self) -> None:
        """Undo partitions and blocks."""
        with self._changing("heal") as design:
            self._rewire(msgspec.structs.replace(design, partition=(), blocks=()))

    def block(self, node: str, protocol: str, port: int) -> None:
        """Drop what is sent to a port of the host, by whomever, until `heal`. `protocol` is udp or tcp."""
        if protocol not in ("udp", "tcp") or not 0 < port < 65536:
            raise UsageError(f"cannot block {protocol} port {port}")
        with self._changing("block") as design:
            self._machine(design, node)
            self._rewire(msgspec.structs.replace(design, blocks=tuple(dict.fromkeys((*design.blocks, Block(node, protocol, port))))))

    # Inside

    @property
    def _images(self) -> Path:
        return home.images(self.root)

    @property
    def _lock(self) -> Path:
        return self.folder.with_suffix(".lock")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        waiting: Callable[[], None] = lambda: self._progress.update(self.name, "another hmctl is at work on this lab, waiting")  # noqa: E731
        with exclusive(self._lock, timeout=_LOCK_TIMEOUT, waiting=waiting):
            yield

    @contextmanager
    def _allocating(self) -> Iterator[None]:
        """Hold the lock over what labs share: networks and images."""
        with exclusive(self.root / "lock", timeout=_LOCK_TIMEOUT):
            yield

    @contextmanager
    def _changing(self, command: str) -> Iterator[LabState]:
        shell.require_root_and_tools(command)
        self._load()  # no lab, no lock file
        with self._locked():
            yield self._load()

    def _load(self) -> LabState:
        design = state.load(self.folder)
        if design is None:
            raise LabError(
                f"there is no lab {self.name!r} on this machine", fix="hmctl lab ls shows those there are; hmctl lab up makes one"
            )
        return design

    def _design(self, nodes: int | None, image: str, inventory_file: Path | None, wanted: Cgroups | None) -> LabState:
        """The design to bring up, already on disk: the present one, extended, or a new one."""
        known = state.load(self.folder)
        file = str((inventory_file or Path(f"{self.name}.yaml")).absolute())
        if known is None or file not in known.written:
            inventory.check_replaceable(Path(file))
        if known is not None:
            if wanted not in (None, known.cgroups):
                raise UsageError(
                    f"lab {self.name!r} was made with --cgroups {known.cgroups}, which stays so while it exists",
                    fix=f"another --name, or first: hmctl lab down --name {self.name}",
                )
            names = plan.node_names(max(nodes or 0, len(known.nodes)))
            design = msgspec.structs.replace(known, nodes=names, inventory=file)
            state.save(self.folder, design)
            return design
        names = plan.node_names(plan.DEFAULT_HOSTS if nodes is None else nodes)
        self._refuse_strangers()
        with self._allocating():
            subnet = plan.free_subnet({lab.subnet for lab in home.designs(self.root)} | plan.subnets_of(network.taken_addresses()))
            design = LabState(
                name=self.name, subnet=subnet, cluster_id=inventory.new_cluster_id(), image=image, nodes=names, inventory=file,
                cgroups=wanted or Cgroups.MACHINE,
            )  # fmt: skip
            state.save(self.folder, design)
        return design

    def _refuse_strangers(self) -> None:
        """A lab of this name may run out of another directory: making ours would crash its hosts."""
        found = cgroups.hierarchies()
        names = Names(self.name)
        if any(names.node(name) and cgroups.HostCgroup(name, found).populated() for name in cgroups.names(found)):
            raise LabError(
                f"hosts of a lab {self.name!r} run on this machine, but {self.folder} does not know them",
                fix=f"set {home.DIRECTORY_VARIABLE} as when it was made, choose another --name, "
                f"or remove it: hmctl lab down --name {self.name}",
            )

    def _machines(self, design: LabState) -> list[Machine]:
        found = cgroups.hierarchies()
        return [Machine.of(design, node, self.folder, self._images, found) for node in design.nodes]

    def _machine(self, design: LabState, node: str) -> Machine:
        if node not in design.nodes:
            raise UsageError(f"lab {self.name!r} has no host {node!r}", fix=f"one of {', '.join(design.nodes)}")
        return Machine.of(design, node, self.folder, self._images, cgroups.hierarchies())

    def _ensure_host(self, machine: Machine, key: str) -> bool:
        """Make the host run and answer. True if it had to be booted."""
        fresh = machine.init is None or not network.is_cabled(machine.state, machine.node)
        if fresh:
            self._progress.update(machine.node, "booting")
            machine.boot(key)
        elif machine.cgroup.frozen():
            machine.cgroup.freeze(False)
        machine.wait_ready()
        self._progress.finish(machine.node, f"{'ready' if fresh else 'runs already'} at {machine.state.address(machine.node)}")
        return fresh

    def _ensure_switch(self, design: LabState) -> None:
        if not network.switch_is_up(design):
            network.make_switch(design)

    def _rewire(self, design: LabState) -> None:
        state.save(self.folder, design)
        if network.switch_is_up(design):  # else it will be made with them
            network.apply_rules(design)

    def _view(self, design: LabState) -> LabView:
        hosts = []
        for machine in self._machines(design):
            condition = "stopped" if machine.init is None else "paused" if machine.cgroup.frozen() else "running"
            hosts.append(HostView(name=machine.node, address=str(design.address(machine.node)), state=condition))
        return LabView(name=self.name, inventory=design.inventory, hosts=hosts, partition=[list(group) for group in design.partition])


def _at_once(work: Callable[[Machine], T], machines: Sequence[Machine]) -> list[T]:
    """`work` on all machines side by side. What fails on several of them is raised as a group."""
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        futures = [pool.submit(work, machine) for machine in machines]
    errors = [error for future in futures if isinstance(error := future.exception(), Exception)]
    if len(errors) > 1:
        raise ExceptionGroup("several hosts failed", errors)
    return [future.result() for future in futures]
