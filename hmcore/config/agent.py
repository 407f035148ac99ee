"""A node's own configuration, /etc/hypermesh/agent.yaml: rendered by hmctl from the inventory, read once by the agent when it starts.

It holds the settings fully resolved: a node needs no table of presets, and what it runs with can be read off one file. What only hmctl
reads (`settings.upgrade`) is not in it: changing that concerns no node.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from hmcore.config import yaml12, yaml_writing
from hmcore.config.conflicts import conflicts
from hmcore.config.kinds import Port
from hmcore.config.problems import locate, mistakes
from hmcore.config.settings import Settings, Upgrade
from hmcore.errors import ConfigError, Problem
from hmcore.records import Role

if TYPE_CHECKING:  # the agent itself never needs an inventory
    from hmcore.config.inventory import Host, Inventory

AGENT_CONFIG = Path("/etc/hypermesh/agent.yaml")

_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
NodeName = Annotated[str, Field(pattern=_NAME)]
FilePath = Annotated[Path, BeforeValidator(lambda value: Path(value) if isinstance(value, str) else value), PlainSerializer(str)]
_Role = Annotated[Role, Field(strict=False), PlainSerializer(str)]  # from its text


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Voter(_Document):
    """A control node that forms the cluster with the others."""

    name: NodeName
    address: str
    port: Port


class AgentConfig(_Document):
    """`voters` are the *initial* ones: once the cluster is formed they change only through its log (design section 4)."""

    cluster_id: NodeName
    cluster_name: str
    bootstrap: Annotated[str, Field(min_length=1)]  # names the one occasion at which the initial voters may form the cluster
    node: NodeName
    role: _Role
    address: str  # IP address (or name) that other nodes reach this one at
    port: Port
    labels: dict[str, str] = {}
    apps: bool = True  # whether replicas of apps may run here
    voters: Annotated[tuple[Voter, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]
    preset: str
    settings: Settings
    data_dir: FilePath = Path("/var/lib/hypermesh")
    pki_dir: FilePath = Path("/etc/hypermesh/pki")
    socket: FilePath = Path("/run/hypermesh/agent.sock")
    docker_socket: FilePath = Path("/var/run/docker.sock")


def for_nodes(settings: Settings) -> Settings:
    """`settings` as a node has them: what only hmctl reads is at its default."""
    return settings.model_copy(update={"upgrade": Upgrade()})


def load_agent_config(path: Path = AGENT_CONFIG) -> AgentConfig:
    """Read and check `path`. Raises ConfigError with every mistake and its line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        fix = "`hmctl deploy` writes it"
        raise ConfigError((Problem(str(path), None, "", f"cannot be read: {error.strerror}"),), fix=fix) from error
    return parse_agent_config(content, str(path))


def parse_agent_config(content: str | bytes, file: str) -> AgentConfig:
    """The same from what the file holds."""
    document = yaml12.load(content, file)
    try:
        config = AgentConfig.model_validate(document.value)
    except ValidationError as error:
        raise ConfigError(locate(mistakes(error, AgentConfig), file, document.lines)) from None
    wrong = [mistake.under(("settings",)) for mistake in conflicts(config.settings)]
    if wrong:
        raise ConfigError(locate(wrong, file, document.lines))
    return config


def dump_agent_config(config: AgentConfig) -> str:
    """`config` as YAML: the same text for the same configuration, so that a second deploy finds nothing to change."""
    return yaml_writing.dump(agent_document(config))


def agent_document(config: AgentConfig) -> dict[str, Any]:
    """What the file holds."""
    document = config.model_dump(mode="json", exclude={"settings": {"upgrade"}})
    return document | {"labels": dict(sorted(config.labels.items()))}


def agent_config_for(inventory: Inventory, host: Host, bootstrap: str) -> AgentConfig:
    """What `host` is told of `inventory`. `bootstrap` is the operator's, the same for every node."""
    voters = tuple(Voter(name=voter.name, address=voter.address, port=voter.port) for voter in inventory.control_hosts)
    return AgentConfig(
        cluster_id=inventory.id,
        cluster_name=inventory.name,
        bootstrap=bootstrap,
        node=host.name,
        role=host.role,
        address=host.address,
        port=host.port,
        labels=dict(host.labels),
        apps=host.apps,
        voters=voters,
        preset=inventory.preset,
        settings=for_nodes(inventory.settings),
    )
