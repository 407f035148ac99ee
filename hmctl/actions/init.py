"""hmctl init: a new inventory from hosts as people name them. Pure but for the random id, which comes in as an argument."""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hmcore.config import hostspec
from hmcore.config.hostspec import HostSpec
from hmcore.config.inventory import Inventory, Places, parse_inventory
from hmcore.config.presets import PRESETS, default_control_nodes
from hmcore.config.problems import nearest
from hmcore.config.scalars import scalar
from hmcore.errors import ConfigError, Problem, UsageError
from hmcore.records import Role


@dataclass(frozen=True, slots=True)
class NewHost:
    name: str
    spec: HostSpec
    role: Role


def new_cluster_id() -> str:
    """`hm-` and ten random characters: 51 bits, so that no two clusters of one operator ever meet."""
    return "hm-" + "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(10))


def plan_hosts(hosts: Sequence[str], *, preset: str, control: int | None) -> list[NewHost]:
    """The nodes that `hosts` (with ranges) become: node1, node2 ..., the first `control` of them control nodes. Raises UsageError."""
    if preset not in PRESETS:
        raise UsageError(f"no preset is called {preset!r}", fix=nearest(preset, PRESETS))
    specs = [hostspec.parse(one) for host in hosts for one in hostspec.expand(host)]
    if not specs:
        raise UsageError("a cluster needs at least one host", fix="hmctl init root@10.0.0.1, or a range: hmctl init 'root@10.0.0.[1-3]'")
    repeated = next((spec.address for index, spec in enumerate(specs) if spec.address in [s.address for s in specs[:index]]), None)
    if repeated is not None:
        raise UsageError(f"{repeated} is given twice: one machine is one node", fix=f"name {repeated} once")
    count = default_control_nodes(preset, len(specs)) if control is None else control
    if not 1 <= count <= len(specs):
        raise UsageError(f"{count} control nodes of {len(specs)} hosts is not possible", fix=f"--control from 1 to {len(specs)}, best odd")
    if count < (least := PRESETS[preset].control_minimum):
        fix = f"name at least {least} hosts, or choose another preset: --preset balanced"
        raise UsageError(f"preset {preset} needs at least {least} control nodes, these are {count}", fix=fix)
    return [NewHost(f"node{number}", spec, Role.CONTROL if number <= count else Role.WORKER) for number, spec in enumerate(specs, start=1)]


def compose(hosts: Sequence[NewHost], *, id: str, name: str, preset: str) -> str:
    """The inventory's text. What all hosts share stands once, at the top."""
    users, ports = {host.spec.user for host in hosts}, {host.spec.port for host in hosts}
    user = next(iter(users)) if len(users) == 1 else None
    port = next(iter(ports)) if len(ports) == 1 else None
    shared = [*([f"user: {_text(user)}"] if user else []), *([f"port: {port}"] if port else [])]
    ssh = f"ssh: {{{', '.join(shared)}}}" if shared else "# ssh: {user: root}"
    lines = "".join(f"  - {_entry(host, user, port)}\n" for host in hosts)
    return f"""\
# An inventory: the machines of one cluster, and how to reach them. Deploy it with `hmctl deploy`.
# Check it with `hmctl config validate`; see everything it comes to with `hmctl config show`.

id: {id}  # names the cluster for good: never change it, never use it for another one
name: {_text(name)}
preset: {preset}  # {", ".join(PRESETS)}: see `hmctl config presets`

# For every host; a host may have its own `ssh:`. Without `key`, the SSH agent and ~/.ssh are asked, as ssh does.
# Also: key: ~/.ssh/id_ed25519, bastion: user@host, sudo_password: ${{SUDO_PASSWORD}}
{ssh}

# Single settings over the preset's:
# settings: {{membership: {{down: 8}}}}

# Control nodes decide together: 1, 3 or 5 of them; of three one may fail, of five two. Every node runs apps,
# but for those with `apps: false`.
hosts:
{lines}"""


def check(text: str, file: str) -> tuple[Inventory, tuple[Problem, ...]]:
    """What the new inventory comes to, and its warnings. Raises UsageError: the mistake is in what was typed, not yet in a file."""
    try:
        return parse_inventory(text, file, {}, Places(Path("/"), Path("/")))
    except ConfigError as error:
        mistakes = [problem for problem in error.problems if not problem.warning]
        raise UsageError("; ".join(problem.message for problem in mistakes), fix=mistakes[0].hint) from None


def _entry(host: NewHost, user: str | None, port: int | None) -> str:
    spec = host.spec
    own = [
        *([f"user: {_text(spec.user)}"] if spec.user and spec.user != user else []),
        *([f"port: {spec.port}"] if spec.port and spec.port != port else []),
    ]
    ssh = f", ssh: {{{', '.join(own)}}}" if own else ""
    return f"{{name: {host.name}, address: {_text(spec.address)}, role: {host.role}{ssh}}}"


def _text(value: str) -> str:
    """`value` so that YAML reads it as text: 1e3 is a fine host name."""
    return f'"{value}"' if ":" in value or not isinstance(scalar(value), str) else value
