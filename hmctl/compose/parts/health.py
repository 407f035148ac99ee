"""How it is found out whether a replica is fit: `healthcheck`, and `x-hypermesh.check` for images that have nothing to check with. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from hmcore.apps.spec import Port, Probe
from hmctl.compose.parts.names import URL_PATH
from hmctl.compose.parts.part import Fields, Part

_USUAL = Probe()
NONE = ("NONE",)
_FORMS = ("NONE", "CMD", "CMD-SHELL")
_SHORTEST = 0.001  # seconds; Docker's own bound


def probe_of(service: Fields, check: Part, ports: Iterable[Port]) -> Probe | None:
    """None: what the image says. The agent's `check` goes before Docker's, which stays for whoever runs the file with Compose."""
    docker = _docker(service["healthcheck"])
    if check.value is None:
        return docker
    if service.given("healthcheck"):
        service["healthcheck"].warn("does nothing here", "x-hypermesh.check goes before it")
    return _agent(check, service, ports)


def is_off(probe: Probe | None) -> bool:
    return probe is not None and probe.test == NONE


def _docker(part: Part) -> Probe | None:
    if part.value is None:
        return None
    fields = part.of("service.healthcheck")
    test = _test(fields["test"])
    if fields["disable"].boolean() or test[:1] == NONE:
        return Probe(test=NONE)
    return _timed(fields, Probe(test=test))


def _test(part: Part) -> tuple[str, ...]:
    if isinstance(part.value, str):
        return ("CMD-SHELL", part.text()) if part.value.strip() else ()
    test = tuple(entry.scalar() for entry in part.entries())
    if test and test[0] not in _FORMS:
        part.wrong("must begin with CMD, CMD-SHELL or NONE", 'or be one text, which a shell runs: test: "curl -f http://localhost"')
        return ()
    if test and test[0] != "NONE" and len(test) == 1:
        part.wrong(f"has nothing after {test[0]}")
        return ()
    if test[:1] == ("CMD-SHELL",) and len(test) > 2:
        part.wrong("CMD-SHELL takes one text", "CMD for a command and its arguments")
        return ()
    return test


def _agent(part: Part, service: Fields, ports: Iterable[Port]) -> Probe | None:
    fields = part.of("service.x-hypermesh.check")
    if service["network_mode"].value == "none":
        part.wrong("nobody can reach a service without a network", "healthcheck:, which is run in the container")
    kind = fields["type"].choice(("http", "tcp"), "tcp" if not fields.given("path") else "http")
    port = fields["port"].whole(1, 65_535)
    if not fields.given("port"):
        targets = sorted({each.target for each in ports if each.protocol == "tcp"})
        if len(targets) != 1:
            part.wrong("says not which port to check", "port: the port in the container")
        port = targets[0] if targets else 0
    if kind == "tcp":
        if fields.given("path"):
            fields["path"].wrong("only http has a path", "type: http")
        return _timed(fields, Probe(kind="tcp", port=port))
    return _timed(fields, Probe(kind="http", port=port, path=fields["path"].text(URL_PATH, "/")))


def _timed(fields: Fields, probe: Probe) -> Probe:
    """A time of 0 stands for the default, as with Docker."""
    for name in fields.given("interval", "timeout", "start_interval"):
        if 0 < fields[name].duration() < _SHORTEST:
            fields[name].wrong("must be a millisecond or more")
    said = {
        "interval": fields["interval"].duration(),
        "timeout": fields["timeout"].duration(),
        "retries": fields["retries"].whole(0, 1_000_000),
        "start_interval": fields["start_interval"].duration(),
    }
    given = {name: value for name, value in said.items() if value}
    written = tuple(name for name, value in given.items() if probe.kind == "docker" and value == getattr(_USUAL, name))
    return replace(probe, **given, start_period=fields["start_period"].duration(), written=written)
