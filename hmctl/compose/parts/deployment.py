"""`deploy`, and the older keys beside it that say the same: how many, where, with what, and how they are replaced. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from hmcore.apps import constraints
from hmcore.apps.spec import Placement, Resources, Restart, Update
from hmcore.errors import UsageError
from hmctl.compose.parts import units
from hmctl.compose.parts.part import Fields, Part

MOST_REPLICAS = 10_000
_LEAST_MEMORY = 6 << 20  # Docker's own bound
_MOST_PIDS = 4_194_304
# Swarm's words, and those of restart:, which Compose takes here as well.
_CONDITIONS: Mapping[str, Literal["none", "on-failure", "any"]] = {
    **{"any": "any", "on-failure": "on-failure", "none": "none"},
    **{"always": "any", "unless-stopped": "any", "no": "none"},
}
_JOBS = ("replicated-job", "global-job")


def mode_of(deploy: Fields) -> Literal["replicated", "global"]:
    part = deploy["mode"]
    if part.value in _JOBS:
        part.unsupported('a service with restart: "no"', "jobs are not supported", then="the service is replicated")
        return "replicated"
    return "global" if part.choice(("replicated", "global"), "replicated") == "global" else "replicated"


def check_endpoint(part: Part) -> None:
    """One address for all replicas cannot be had (yet): a name has the addresses of those that are fit."""
    if part.value is not None and part.choice(("vip", "dnsrr"), "dnsrr") == "vip":
        part.warn("names are answered with the addresses of healthy replicas", "endpoint_mode: dnsrr says so")


def replicas_of(service: Fields, deploy: Fields, mode: str) -> int:
    scale, replicas = service["scale"], deploy["replicas"]
    if mode == "global":
        for part in (part for part in (scale, replicas) if part.value is not None):
            part.wrong("a global service runs once on every node", "mode: replicated, or no number")
        return 1
    counts = [part.whole(0, MOST_REPLICAS, 1) for part in (replicas, scale) if part.value is not None]
    if len(set(counts)) > 1:
        scale.wrong(f"says {counts[1]}, and deploy.replicas {counts[0]}", "one of the two")
    return counts[0] if counts else 1


def resources_of(service: Fields, deploy: Fields) -> tuple[Resources, Resources]:
    """The most that a replica may have, and what is kept for it."""
    resources = deploy["resources"].of("service.deploy.resources")
    limits = _limits(service, resources["limits"].of("service.deploy.resources.limits"))
    fields = resources["reservations"].of("service.deploy.resources.reservations")
    kept = Resources(
        cpus=fields["cpus"].cpus(),
        memory=_same(fields["memory"], service["mem_reservation"], Part.size),
    )
    if 0 < limits.cpus < kept.cpus:
        fields["cpus"].wrong("reserves more than the limit allows")
    if 0 < limits.memory < kept.memory:
        (fields["memory"] if fields.given("memory") else service["mem_reservation"]).wrong("reserves more than the limit allows")
    return limits, kept


def restart_of(service: Fields, deploy: Fields, *, completes: bool) -> Restart:
    """`completes`: another service waits for this one to end well. Without a word of its own it then need not run for ever."""
    short, policy = service["restart"], deploy["restart_policy"]
    if policy.value is not None:
        found = _policy(policy.of("service.deploy.restart_policy"))
        if short.value is not None and _short(short).condition != found.condition:
            short.warn("does nothing here", f"deploy.restart_policy goes before it: {found.condition}")
    elif short.value is not None:
        found = _short(short)
    else:
        return Restart(condition="on-failure") if completes else Restart()
    if completes and found.condition == "any":
        part = policy if policy.value is not None else short
        message = "another service waits for this one to end, and it is started again whenever it ends"
        instead = "on-failure" if part is short else {"condition": "on-failure"}
        part.unsupported("on-failure, or no", message, then="it counts as on-failure", becomes=instead)
        return Restart(condition="on-failure")
    return found


def update_of(part: Part, kind: Literal["update_config", "rollback_config"]) -> Update:
    fields = part.of(f"service.deploy.{kind}")
    actions = ("pause", "continue", "rollback") if kind == "update_config" else ("pause", "continue")
    usual = Update()
    action = fields["failure_action"].choice(actions, usual.failure_action)
    order = fields["order"].choice(("stop-first", "start-first"), usual.order)
    return Update(
        parallelism=fields["parallelism"].whole(0, MOST_REPLICAS, usual.parallelism),
        delay=fields["delay"].duration(),
        order="start-first" if order == "start-first" else "stop-first",
        failure_action="rollback" if action == "rollback" else "continue" if action == "continue" else "pause",
        monitor=fields["monitor"].duration(usual.monitor),
        max_failure_ratio=fields["max_failure_ratio"].share(),
    )


def placement_of(part: Part, platform: Part) -> Placement:
    fields = part.of("service.deploy.placement")
    wanted = [text for entry in fields["constraints"].entries() if (text := _sound(entry, entry.text(), constraints.parse))]
    spread = []
    for entry in fields["preferences"].entries():
        label = entry.of("service.deploy.placement.preferences")["spread"]
        if (text := _sound(label, label.text(), constraints.parse_key)) and text not in spread:
            spread.append(text)
    return Placement(
        constraints=tuple(dict.fromkeys((*wanted, *_platform(platform)))),
        spread=tuple(spread),
        max_per_node=fields["max_replicas_per_node"].whole(0, MOST_REPLICAS),
    )


def _limits(service: Fields, fields: Fields) -> Resources:
    memory = _same(fields["memory"], service["mem_limit"], Part.size)
    if 0 < memory < _LEAST_MEMORY:
        part = fields["memory"] if fields.given("memory") else service["mem_limit"]
        part.wrong("is less than Docker allows, which is 6m", "with its unit: 512m")
    return Resources(
        cpus=_same(fields["cpus"], service["cpus"], Part.cpus),
        memory=memory,
        pids=_same(fields["pids"], service["pids_limit"], lambda part: max(0, part.whole(-1, _MOST_PIDS))),
    )


def _platform(part: Part) -> list[str]:
    """`linux/arm64/v8`: only nodes that are such. The variant is the image's business."""
    if not (text := part.text()):
        return []
    os, _, arch = text.partition("/")
    if os != "linux":
        part.unsupported("linux/amd64 or linux/arm64", "nodes run Linux")
        return []
    arch = arch.partition("/")[0]
    return [f"node.platform.arch=={arch}"] if arch and _sound(part, f"node.platform.arch=={arch}", constraints.parse) else []


def _sound(part: Part, text: str, parse: Callable[[str], object]) -> str:
    """`text` without blanks about it; empty if no node could answer that."""
    if not text and part.value is not None and not isinstance(part.value, str):
        return ""
    try:
        parse(text)
    except UsageError as error:
        part.wrong(error.message, error.fix)
        return ""
    return text.strip()


def _policy(fields: Fields) -> Restart:
    usual = Restart()
    return Restart(
        condition=_CONDITIONS[fields["condition"].choice(tuple(_CONDITIONS), "any")],
        delay=fields["delay"].duration(usual.delay),
        attempts=fields["max_attempts"].whole(0, 1_000_000),
        window=fields["window"].duration(),
    )


def _short(part: Part) -> Restart:
    """`no` without quotes is text in YAML 1.2, and false in 1.1."""
    if part.value is False:
        return Restart(condition="none")
    text, colon, count = part.text().partition(":")
    attempts = units.whole(count) if colon else 0
    if attempts is not None and 0 <= attempts <= 1_000_000:
        match text:
            case "no" if not colon:
                return Restart(condition="none")
            case "always" | "unless-stopped" if not colon:
                return Restart()
            case "on-failure":
                return Restart(condition="on-failure", attempts=attempts)
    if isinstance(part.value, str):
        part.wrong(f"cannot be {part.value[:40]!r}", 'always, unless-stopped, on-failure[:ATTEMPTS] or "no"')
    return Restart()


def _same(part: Part, older: Part, read: Callable[[Part], int]) -> int:
    """What `deploy` says, or the older key beside it; both may say it only if it is the same."""
    value = read(part)
    if older.value is None:
        return value
    before = read(older)
    if part.value is not None and before != value:
        older.wrong(f"is not what {'.'.join(map(str, part.path[2:]))} says", "one of the two")
    return value if part.value is not None else before
