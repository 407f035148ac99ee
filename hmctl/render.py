"""The files that deploy writes to nodes, from templates/. The only home of jinja2.

Names and paths reach a template only after validation against a tight grammar (the inventory's, and `PYTHON` here): unit files and
shell scripts have no quoting that covers everything.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from hmcore.config.agent import AgentConfig, dump_agent_config
from hmcore.errors import PreflightFailed
from hmctl import layout

if TYPE_CHECKING:
    from jinja2 import Environment

# A path that means the same to systemd, sh and us.
PYTHON = re.compile(r"/[A-Za-z0-9._+/-]{1,200}")
_CHECKSUM = re.compile(rb"^# checksum of what follows: (?P<digest>[0-9a-f]{16})\n", re.MULTILINE)
_START_MARGIN = 30.0  # seconds beyond the agent's own limit before systemd steps in


class Renderer:
    """Renders a node's files. One per run: templates are read once."""

    def __init__(self, folder: Path | None = None) -> None:
        self._environment = _environment(folder or template_folder())
        self._layout = SimpleNamespace(**{name: value for name, value in vars(layout).items() if name.isupper()})

    def agent_yaml(self, config: AgentConfig) -> bytes:
        document = dump_agent_config(config)
        text = document.rstrip("\n")
        return self._render("agent.yaml.j2", path=layout.CONFIG, node=config.node, document=text, checksum=_checksum(document.encode()))

    def unit(self, config: AgentConfig, python: str) -> bytes:
        return self._render(
            "hypermesh-agent.service.j2",
            node=config.node,
            cluster=config.cluster_id,
            python=_path(python, config.node),
            start_timeout=round(config.settings.initialization_timeout + _START_MARGIN),
        )

    def fence(self, python: str, node: str) -> bytes:
        return self._render("hypermesh-fence.service.j2", node=node, python=_path(python, node))

    def wrapper(self, python: str, node: str) -> bytes:
        return self._render("hypermesh-agent.j2", python=_path(python, node))

    def _render(self, template: str, **values: object) -> bytes:
        return self._environment.get_template(template).render(layout=self._layout, **values).encode()


def edited(agent_yaml: bytes) -> bool:
    """Whether somebody changed the values since they were rendered. False where that cannot be told."""
    found = _CHECKSUM.search(agent_yaml)
    return found is not None and found["digest"].decode() != _checksum(agent_yaml[found.end() :])


def template_folder() -> Path:
    """Beside this module in an installed package, at the top of a checkout."""
    installed = Path(__file__).parent / "templates"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "templates"


def _environment(folder: Path) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(folder)
    return Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701  nothing here is HTML


def _checksum(document: bytes) -> str:
    return hashlib.sha256(document).hexdigest()[:16]  # against slips of the hand, not against forgers


def _path(python: str, node: str) -> str:
    if not PYTHON.fullmatch(python):
        raise PreflightFailed(f"the path of its Python, {python!r}, has characters that a unit file cannot hold", host=node)
    return python
