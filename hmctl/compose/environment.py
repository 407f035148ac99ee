"""What only the operator's variables and files know, put into services, secrets and configs: variables without a value, `env_file`,
`label_file`, contents. Pure but for `Sources`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hmcore.config.problems import Path as Where
from hmctl.compose import dotenv
from hmctl.compose.sources import Asking, Sources
from hmctl.compose.tree import Node
from hmctl.compose.trouble import Trouble

_FORMATS = {"": dotenv.read, ".env": dotenv.read, "raw": dotenv.read_raw}


def variables(files: tuple[tuple[Path, Asking], ...], outside: Mapping[str, str], sources: Sources, trouble: Trouble) -> dict[str, str]:
    """`outside`, and below it what the files say, of which the last counts."""
    known = dotenv.Variables(outside.get)
    for path, asking in files:
        if (text := sources.text(path, asking)) is not None:
            dotenv.read(text, str(path), known, trouble)
    return {**known.values, **outside}


def resolved(root: Node, environment: Mapping[str, str], secrets: dict[str, str], trouble: Trouble) -> Node:
    """`root` with the values of variables that are only named, and the contents of configs from variables. Those of secrets are put into
    `secrets` instead: they never stand in a file."""
    parts = {}
    if services := root.entries.get("services"):
        parts["services"] = services.holding({name: _inherited(service, environment) for name, service in services.entries.items()})
    if configs := root.entries.get("configs"):
        parts["configs"] = configs.holding(
            {name: _content(config, ("configs", name), environment, trouble) for name, config in configs.entries.items()}
        )
    for name, secret in root.entries["secrets"].entries.items() if "secrets" in root.entries else ():
        if (value := _named(secret, ("secrets", name), environment, trouble)) is not None:
            secrets[name] = value
    return root.having(**parts)


def _inherited(service: Node, environment: Mapping[str, str]) -> Node:
    def given(name: str, value: Node) -> Node:
        return value.holding(environment[name]) if value.value is None and not value.tag and name in environment else value

    parts = {}
    if own := service.entries.get("environment"):
        parts["environment"] = own.holding({name: given(name, value) for name, value in own.entries.items()})
    if (build := service.entries.get("build")) and (arguments := build.entries.get("args")):
        known = {name: given(name, value) for name, value in arguments.entries.items()}
        parts["build"] = build.having(args=arguments.holding({name: value for name, value in known.items() if value.value is not None}))
    return service.having(**parts)


def _named(resource: Node, where: Where, environment: Mapping[str, str], trouble: Trouble) -> str | None:
    """The value of the variable that is to be its content."""
    variable = resource.entries.get("environment")
    if variable is None or not variable.text:
        return None
    if variable.text not in environment:
        trouble.odd(variable.place, (*where, "environment"), f"the variable {variable.text} is not set", f"export {variable.text}=...")
    return environment.get(variable.text)


def _content(config: Node, where: Where, environment: Mapping[str, str], trouble: Trouble) -> Node:
    value = _named(config, where, environment, trouble)
    if value is None or "content" in config.entries:
        return config
    return config.without("environment").having(content=Node(value, config.entries["environment"].place))


def with_files(name: str, service: Node, environment: Mapping[str, str], sources: Sources, trouble: Trouble) -> Node:
    """The service with what its `env_file` and `label_file` say below its own `environment` and `labels`; itself without those."""
    own = service.entries["environment"].entries if "environment" in service.entries else {}
    inner = {key: str(node.value) for key, node in own.items() if node.value is not None}
    known = dotenv.Variables(lambda variable: environment.get(variable, inner.get(variable)))
    for index, entry in enumerate(service.entries["env_file"].items if "env_file" in service.entries else ()):
        _env_file(entry, ("services", name, "env_file", index), known, sources, trouble)
    labels = dotenv.Variables(lambda _: None)
    for index, entry in enumerate(service.entries["label_file"].items if "label_file" in service.entries else ()):
        asking = Asking(entry.place, ("services", name, "label_file", index))
        if not entry.text:
            trouble.wrong(entry.place, asking.where, "names no file", "label_file: FILE")
        elif (text := sources.text(Path(entry.text), asking)) is not None:
            dotenv.read(text, entry.text, labels, trouble)
    return _below(_below(service.without("env_file", "label_file"), "environment", known), "labels", labels)


def _env_file(entry: Node, where: Where, known: dotenv.Variables, sources: Sources, trouble: Trouble) -> None:
    path, required, form = (entry.entries.get(key) for key in ("path", "required", "format"))
    if path is None or not path.text:
        trouble.wrong(entry.place, where, "names no file", "path: FILE")
        return
    wanted = str(form.value) if form and form.value is not None else ""
    if wanted not in _FORMATS:
        trouble.wrong((form or entry).place, (*where, "format"), f"{wanted[:40]!r} is no format of such files", "raw, or none")
        return
    needed = required is None or required.value is not False
    if (text := sources.text(Path(path.text), Asking(path.place, where), required=needed)) is not None:
        _FORMATS[wanted](text, path.text, known, trouble)


def _below(service: Node, key: str, known: dotenv.Variables) -> Node:
    if not known.values:
        return service
    own = service.entries.get(key)
    read = {name: Node(value, known.places[name]) for name, value in known.values.items()}
    return service.having(**{key: Node({**read, **(own.entries if own else {})}, own.place if own else service.place)})
