"""The volumes of an app: what they are called in Docker, and what they are made of. Pure."""

from __future__ import annotations

from hmcore.apps.spec import Volume
from hmctl.compose.parts.files import external_name
from hmctl.compose.parts.machine import INSTEAD, Machine
from hmctl.compose.parts.names import DRIVER, KEY, OPTION, VOLUME
from hmctl.compose.parts.part import Fields, Part
from hmctl.compose.parts.runtime import labels
from hmctl.compose.parts.templating import refused


def volumes_of(part: Part, app: str, machine: Machine) -> dict[str, Volume]:
    """By their names in the app. In Docker one is called `APP_NAME`, as with Compose; by its own name if it is external or has one."""
    found = {}
    for name, entry in part.mapping().items():
        if not KEY.holds(name):
            entry.wrong("cannot be the name of a volume", KEY.says)
            continue
        fields = entry.of("volume")
        external = external_name(fields, name)
        called = external or fields["name"].text() or f"{app}_{name}"
        said = fields["name"] if fields.given("name") else entry
        if not refused(said, called) and not VOLUME.holds(called):
            said.wrong("cannot be the name of a volume", VOLUME.says)
        for other in fields.given("driver", "driver_opts", "labels") if external is not None else ():
            fields[other].wrong("what is external is there already", f"either external: or {other}:")
        found[name] = _volume(fields, called, machine, external=external is not None)
    return found


def _volume(fields: Fields, name: str, machine: Machine, *, external: bool) -> Volume:
    options = fields["driver_opts"].said(OPTION)
    for option, value in options.items():
        refused(fields["driver_opts"].at(option, value), value)
    device = fields["driver_opts"].at("device", options.get("device", ""))
    if "bind" in options.get("o", "").split(",") and device.value and machine.has(device.value, device.path):
        device.unsupported(
            INSTEAD, "a path of this machine is not on the nodes", then="the volume is an ordinary one", leaves=fields["driver_opts"]
        )
        options = {}
    return Volume(
        name=name,
        driver=fields["driver"].text(DRIVER),
        options=options,
        labels=labels(fields["labels"]),
        external=external,
    )
