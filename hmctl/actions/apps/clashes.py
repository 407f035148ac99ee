"""Ports that another app has. A published port answers on every node, so that the scheduler gives it to one service, and another would wait
for ever (docs/adr/0092): that is said before anything is begun. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hmcore.apps.ports import Number, published, taken
from hmcore.apps.spec import AppSpec, ServiceSpec
from hmcore.errors import PortPublished
from hmctl.actions.apps.view import Seen


@dataclass(frozen=True, slots=True)
class Claims:
    """By port, the service that wants it: `published` on every node, `taken` where its replicas are."""

    published: dict[Number, str]
    taken: dict[Number, str]

    def __bool__(self) -> bool:
        return bool(self.published or self.taken)


def claims(apps: Iterable[tuple[str, AppSpec]]) -> Claims:
    """Of services that shall have a replica. `apps`: with what their services' names begin."""
    wanted = [(f"{prefix}{name}", spec) for prefix, app in apps for name, spec in sorted(app.services.items()) if _runs(spec)]
    return Claims(
        {number: name for name, spec in reversed(wanted) for number in published(spec)},
        {number: name for name, spec in reversed(wanted) for number, _ in taken(spec)},
    )


def new_claims(present: AppSpec | None, spec: AppSpec) -> Claims:
    """What an app that is `present` (None: it is not there yet) would claim beyond what it does. What it claims is between it and the
    scheduler: an app that has a port is not to be kept from its next image because another waits for it."""
    before, after = claims([] if present is None else [("", present)]), claims([("", spec)])
    return Claims(
        {number: name for number, name in after.published.items() if number not in before.published},
        {number: name for number, name in after.taken.items() if number not in before.taken and number not in before.published},
    )


def refuse_clashes(wanted: Claims, seen: Seen, name: str) -> None:
    """`seen`: all apps; those that are being removed make room. Raises PortPublished when another than `name` has one of the ports."""
    others = claims((f"{app.name}/", seen.present(app).spec) for app in seen.reply.apps if app.name != name and not app.stopping)
    found = {(number, service): others.published.get(number) or others.taken.get(number) for number, service in wanted.published.items()}
    found |= {(number, service): others.published.get(number) for number, service in wanted.taken.items()}
    clashes = sorted((number, service, owner) for (number, service), owner in found.items() if owner)
    if not clashes:
        return
    words = "; ".join(f"port {port}/{protocol} of {service} belongs to {owner}" for (port, protocol), service, owner in clashes)
    app = clashes[0][2].partition("/")[0]
    raise PortPublished(
        f"{words}: a published port answers on every node, for one service",
        fix=f"publish another one, or take it from {app} first: hmctl app ps {app}",
    )


def _runs(spec: ServiceSpec) -> bool:
    return spec.mode == "global" or spec.replicas > 0
