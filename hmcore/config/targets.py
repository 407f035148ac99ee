"""From hosts as written to hosts as used: ranges expanded, defaults applied, paths made absolute. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from hmcore.config import hostspec
from hmcore.config.document import Bastion, HostDocument, Reach, Ssh, SshDefaults
from hmcore.config.hostspec import HostSpec
from hmcore.config.presets import default_control_nodes
from hmcore.config.problems import FromEnvironment, Mistake, describe, examine
from hmcore.config.problems import Path as Place
from hmcore.errors import UsageError
from hmcore.records import Role

PYTHON = "/usr/bin/python3"


@dataclass(frozen=True, slots=True)
class SshTarget:
    """How SSH reaches a machine. `user` and `port` are None where nothing was said: the ssh_config decides, and in the end ssh's own
    defaults (the operator's name, 22). `known_hosts` None: the operator's store. `config` None: no ssh_config is read."""

    address: str
    user: str | None = None
    port: int | None = None
    key: Path | None = None
    agent: bool = True  # ask the SSH agent, if one runs
    config: Path | None = None
    known_hosts: Path | None = None
    bastion: SshTarget | None = None
    sudo: bool = False
    sudo_password: str | None = field(default=None, repr=False)
    python: str = PYTHON

    def __str__(self) -> str:
        return hostspec.login(self.address, self.user, self.port)


@dataclass(frozen=True, slots=True)
class Host:
    """A machine and the node it becomes. `address` and `port`: where the other nodes reach it (UDP and TCP). `apps`: it runs any."""

    name: str
    ssh: SshTarget
    address: str
    port: int
    role: Role
    labels: dict[str, str] = field(default_factory=dict, hash=False)
    apps: bool = True


class Places(msgspec.Struct, frozen=True):
    """What relative paths (`folder`) and ~ (`home`) stand for, and the ssh_config that is read unless the inventory names another."""

    folder: Path
    home: Path
    ssh_config: Path | None = None

    def path(self, written: str) -> Path:
        home = written == "~" or written.startswith("~/")
        return Path(os.path.normpath(self.home / written[2:] if home else self.folder / written))


class Draft(msgspec.Struct, frozen=True):
    """A host, and where in the document it stands."""

    place: Place
    host: Host
    role_given: bool


def drafts(entries: Sequence[object], preset: str, defaults: SshDefaults, port: int, places: Places) -> tuple[list[Draft], list[Mistake]]:
    """Every host that `entries` (the list `hosts:`) stands for, and what is wrong with the others."""
    documents: list[tuple[Place, HostDocument]] = []
    wrong: list[Mistake] = []
    for index, entry in enumerate(entries):
        place: Place = ("hosts", index)
        try:
            singles = list(_singles(entry))
        except UsageError as error:
            wrong.append(Mistake(place, error.message, error.fix))
            continue
        for single in singles:
            document, found = examine(HostDocument, single)
            documents += [(place, document)] if document else []
            wrong += [mistake.under(place) for mistake in found]
    roles = _roles([document for _, document in documents], preset)
    made = [
        Draft(place, _host(document, role, defaults, port, places), document.role is not None)
        for (place, document), role in zip(documents, roles, strict=True)
    ]
    return made, wrong


def _singles(entry: object) -> Iterator[object]:
    """`entry` in its long form, once for each host that its range stands for."""
    if isinstance(entry, str):
        entry = {"address": entry}
    if not isinstance(entry, dict):
        raise UsageError(
            f"must be user@address:port or a mapping, not {describe(entry)}", fix=f"keys: {', '.join(HostDocument.model_fields)}"
        )
    address = entry.get("address")
    if not isinstance(address, str) or isinstance(address, FromEnvironment):
        yield entry
        return
    addresses = hostspec.expand(address)
    if len(addresses) > 1 and entry.get("name") is not None:
        raise UsageError(
            f"{len(addresses)} hosts cannot share the name {entry['name']!r}", fix="leave out name, or write the hosts one by one"
        )
    for one in addresses:
        yield {**entry, "address": one}


def _roles(documents: Sequence[HostDocument], preset: str) -> list[Role]:
    """Roles as written. Where nobody wrote any, the first hosts control, as `hmctl init` would have it; else the others are workers."""
    if any(document.role for document in documents):
        return [document.role or Role.WORKER for document in documents]
    control = default_control_nodes(preset, len(documents))
    return [Role.CONTROL if index < control else Role.WORKER for index in range(len(documents))]


def _host(document: HostDocument, role: Role, defaults: SshDefaults, port: int, places: Places) -> Host:
    spec = document.address
    return Host(
        name=document.name or spec.name,
        ssh=_target(document.ssh or Ssh(), spec, defaults, places),
        address=spec.address,
        port=document.port or port,
        role=role,
        labels=dict(sorted((document.labels or {}).items())),
        apps=document.apps is not False,
    )


def _target(own: Ssh, host: HostSpec, defaults: SshDefaults, places: Places) -> SshTarget:
    """The nearest word counts: the host's `ssh:`, then `user@address:port`, then the inventory's `ssh:`, then ssh itself."""
    apart = own.address or HostSpec(host.address)
    user = own.user or apart.user or host.user or defaults.user
    sudo = own.sudo if own.sudo is not None else defaults.sudo
    base = SshTarget(
        address=apart.address,
        user=user,
        port=own.port or apart.port or host.port or defaults.port,
        sudo=user != "root" if sudo is None else sudo,
        sudo_password=own.sudo_password or defaults.sudo_password or None,  # empty: sudo asks for none
        python=own.python or defaults.python or PYTHON,
    )
    return _reach(base, (own, defaults), places)


def _reach(base: SshTarget, levels: Sequence[Reach], places: Places) -> SshTarget:
    """`base` with what the `levels`, nearest first, say about keys, known hosts and the way there."""
    keys = [level.key for level in levels if level.key is not None]
    agents = [level.agent for level in levels if level.agent is not None]
    configs = [level.config for level in levels if level.config is not None]
    known = [level.known_hosts for level in levels if level.known_hosts is not None]
    bastions = [level.bastion for level in levels if level.bastion is not None]
    return SshTarget(
        address=base.address,
        user=base.user,
        port=base.port,
        key=places.path(keys[0]) if keys else None,
        agent=agents[0] if agents else True,
        config=(places.path(configs[0]) if configs[0] else None) if configs else places.ssh_config,
        known_hosts=places.path(known[0]) if known else None,
        bastion=_bastion(bastions[0], levels, places) if bastions else None,
        sudo=base.sudo,
        sudo_password=base.sudo_password if base.sudo else None,
        python=base.python,
    )


def _bastion(document: Bastion, levels: Sequence[Reach], places: Places) -> SshTarget:
    """A bastion shares keys and known hosts with the hosts behind it unless it says otherwise; its own bastion it must name itself."""
    base = SshTarget(
        address=document.address.address, user=document.user or document.address.user, port=document.port or document.address.port
    )
    without_bastion = [level.model_copy(update={"bastion": None}) for level in levels]
    return _reach(base, (document, *without_bastion), places)
