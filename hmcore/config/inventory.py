"""The inventory, cluster.yaml: which hosts make up a cluster, how SSH reaches them, and how the cluster is tuned.

`parse_inventory` is pure and finds every mistake at once, each with its line; `load_inventory` adds the reading of files.
document.py says what may be written, targets.py what it comes to, checks.py what must fit together.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from hmcore.config import yaml12
from hmcore.config.checks import check_hosts, check_metrics, check_network, check_secrets
from hmcore.config.document import InventoryDocument, SshDefaults
from hmcore.config.interpolate import interpolate, plain_throughout
from hmcore.config.presets import DEFAULT_PRESET, PRESETS, Preset, resolve
from hmcore.config.problems import Mistake, describe, examine, in_order, locate, nearest
from hmcore.config.settings import Settings
from hmcore.config.targets import Host, Places, SshTarget, drafts
from hmcore.errors import ConfigError, Problem, UsageError
from hmcore.records import Role

__all__ = ["Host", "Inventory", "Places", "SshTarget", "load_inventory", "parse_inventory"]

STDIN = "<stdin>"


class Inventory(msgspec.Struct, frozen=True):
    """A valid inventory, resolved: nothing is left to look up. `hosts` are in the order of the file."""

    id: str
    name: str
    preset: str
    settings: Settings
    hosts: tuple[Host, ...]
    packages: Literal["install", "require"]
    file: str

    @property
    def control_hosts(self) -> tuple[Host, ...]:
        return tuple(host for host in self.hosts if host.role is Role.CONTROL)

    @property
    def worker_hosts(self) -> tuple[Host, ...]:
        return tuple(host for host in self.hosts if host.role is Role.WORKER)

    def host(self, name: str) -> Host:
        """The host called `name`. Raises UsageError naming the nearest."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise UsageError(f"no host is called {name!r} in {self.file}", fix=nearest(name, [host.name for host in self.hosts]))


def load_inventory(path: str | Path, environment: Mapping[str, str]) -> tuple[Inventory, tuple[Problem, ...]]:
    """The inventory in the file `path` (`-` is stdin) and its warnings. Raises ConfigError with everything that is wrong with it."""
    home = Path(environment.get("HOME") or os.path.expanduser("~"))
    ssh_config = home / ".ssh" / "config"
    if str(path) == "-":
        file, folder, text = STDIN, Path.cwd(), sys.stdin.buffer.read(yaml12.MAX_BYTES + 1)
    else:
        file, folder = str(path), Path(os.path.abspath(path)).parent
        try:
            with open(path, "rb") as stream:
                text = stream.read(yaml12.MAX_BYTES + 1)
        except OSError as error:
            fix = "`hmctl init HOST...` or `hmctl lab up` writes an inventory; -i names another file"
            raise ConfigError((Problem(file, None, "", f"cannot be read: {error.strerror}"),), fix=fix) from error
    places = Places(folder, home, ssh_config if ssh_config.is_file() else None)
    inventory, warnings = parse_inventory(text, file, environment, places)
    return inventory, (*warnings, *_missing_files(inventory))


def parse_inventory(text: str | bytes, file: str, environment: Mapping[str, str], places: Places) -> tuple[Inventory, tuple[Problem, ...]]:
    """The same without touching a file. `environment` is what `${NAME}` refers to, `places` what relative paths are relative to."""
    try:
        document = yaml12.parse(text, file)
    except ConfigError as error:
        raise ConfigError(error.problems, fix="mend it there; or, if it is no inventory at all: -i FILE names another one") from None
    value, wrong = interpolate(document.value, environment)
    unset = {mistake.path for mistake in wrong}
    inventory, found = _inventory(value, file, places)
    wrong += [mistake for mistake in found if mistake.path not in unset]  # one complaint about a value is enough
    problems = in_order([*document.problems, *locate(wrong, file, document.lines)])
    if inventory is None or not all(problem.warning for problem in problems):
        raise ConfigError(problems)
    return inventory, problems


def _inventory(value: Any, file: str, places: Places) -> tuple[Inventory | None, list[Mistake]]:
    """All that is to be said about `value`, and the inventory that is left without its wrong parts: for use only if there are none."""
    if not isinstance(value, dict):
        found = "is empty" if value is None else f"must be a mapping, not {describe(value)}"
        return None, [Mistake((), f"the inventory {found}", "`hmctl init HOST...` writes one")]
    value = {key: part for key, part in value.items() if not key.startswith("x-")}  # a place for anchors, as in Compose files
    document, wrong = examine(InventoryDocument, value)
    preset, wrong_preset = _preset(value.get("preset"))
    settings, wrong_settings = _settings(value.get("settings"), preset)
    defaults, _ = examine(SshDefaults, value.get("ssh") or {})  # its mistakes are among the document's
    entries = value.get("hosts")
    made, wrong_hosts = drafts(
        entries if isinstance(entries, list) else [],
        preset.name if preset else DEFAULT_PRESET,
        defaults or SshDefaults(),
        (settings or Settings()).transport.port,
        places,
    )
    if entries == []:
        wrong_hosts.append(Mistake(("hosts",), "there is no host", "at least one: user@address, or a mapping with address and role"))
    wrong += [*wrong_preset, *wrong_settings, *wrong_hosts, *check_secrets(value)]
    wrong += check_hosts(made, preset, settings or Settings(), complete=not wrong_hosts)
    wrong += check_metrics(settings or Settings())
    wrong += check_network(made, settings or Settings())
    if document is None or preset is None or settings is None:
        return None, wrong
    hosts = tuple(draft.host for draft in made)
    return Inventory(document.id, document.name, preset.name, settings, hosts, document.packages or "install", file), wrong


def _preset(given: object) -> tuple[Preset | None, list[Mistake]]:
    """The preset, and what is wrong with its name. One that is nearly right is taken as meant, so that the rest can be checked."""
    if given is None:
        return PRESETS[DEFAULT_PRESET], []
    if isinstance(given, str) and given in PRESETS:
        return PRESETS[given], []
    close = difflib.get_close_matches(given.lower(), PRESETS, n=1) if isinstance(given, str) else []
    hint = nearest(given if isinstance(given, str) else "", PRESETS)
    return PRESETS[close[0]] if close else None, [Mistake(("preset",), f"must be the name of a preset, not {describe(given)}", hint)]


def _settings(given: object, preset: Preset | None) -> tuple[Settings | None, list[Mistake]]:
    overrides = plain_throughout({} if given is None else given)
    settings, wrong = resolve(preset, overrides) if preset else examine(Settings, overrides)  # without a preset each value by itself
    return settings, [mistake.under(("settings",)) for mistake in wrong]


def _missing_files(inventory: Inventory) -> Iterator[Problem]:
    """Warnings, not mistakes: the inventory may be checked on another machine than the operator's."""
    targets = [target for host in inventory.hosts for target in (host.ssh, host.ssh.bastion) if target is not None]
    for key in dict.fromkeys(target.key for target in targets if target.key is not None):
        if not key.exists():
            yield Problem(inventory.file, None, "ssh.key", f"there is no file {key}", warning=True)
