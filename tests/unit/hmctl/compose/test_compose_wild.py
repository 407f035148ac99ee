"""Compose files that others wrote, for themselves: what we read is what Docker Compose reads, and what a cluster cannot do with them, and
only that, is refused; left out, the rest can be deployed. Files that are meant to stand over others do.

Once per project; the archives are some 40 MB on first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from compose_cases import HOME, Case, needs_docker_compose, reading_differs
from compose_wild import ARCHIVES, unpacked

from hmcore.errors import ConfigError
from hmctl.compose.app import app_of

pytestmark = [needs_docker_compose, pytest.mark.long]

RELATIVE = "a path of this machine is not on the nodes"
UNSUPPORTED = "not supported"


@dataclass(frozen=True)
class Wild:
    """`files` over each other. `refused`: what is said of what cannot be had on a cluster. `variables`, and empty files that are `laid`:
    what its readers are told to make; so are `profiles`, where they must name one."""

    project: str
    files: tuple[str, ...]
    refused: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    laid: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()


def wild(
    project: str,
    *files: str,
    refused: tuple[str, ...] = (),
    laid: tuple[str, ...] = (),
    profiles: tuple[str, ...] = (),
    **variables: str,
) -> Wild:
    return Wild(project, files, refused, tuple(variables.items()), laid, profiles)


ENGINES = "tests/core/engine_adapter/integration/docker/compose"
GATEWAY = {"JWT_SECRET_KEY": "a", "AUTH_ENCRYPTION_SECRET": "b"}
WILD = [
    wild("letta", "compose.yaml", refused=(RELATIVE,), laid=(".env",)),
    wild("letta", "dev-compose.yaml", refused=(RELATIVE,)),
    wild("letta", "docker-compose-vllm.yaml", refused=(RELATIVE, UNSUPPORTED)),
    wild("letta", "scripts/docker-compose.yml", refused=(RELATIVE,)),
    wild("graphiti-core", "docker-compose.yml"),
    wild("graphiti-core", "docker-compose.test.yml", NEO4J_PORT="7687", GITHUB_SHA="0123abc"),
    *(wild("graphiti-core", f"mcp_server/docker/docker-compose-{kind}.yml", refused=(RELATIVE,)) for kind in ("falkordb", "neo4j")),
    wild("graphiti-core", "mcp_server/docker/docker-compose.yml"),
    wild("mcp-contextforge-gateway", "docker-compose.yml", refused=(RELATIVE,), **GATEWAY),
    wild("mcp-contextforge-gateway", "docker-compose.yml", "docker-compose.sso.yml", refused=(RELATIVE,), profiles=("sso",), **GATEWAY),
    *(
        wild("mcp-contextforge-gateway", "docker-compose.yml", f"docker-compose.{over}.yml", refused=(RELATIVE,), **GATEWAY)
        for over in ("override.lite", "siem-opensearch", "with-langfuse", "with-phoenix")
    ),
    wild("mcp-contextforge-gateway", "docker-compose.phoenix-simple.yml"),
    wild("mcp-contextforge-gateway", "podman-compose-sonarqube.yaml"),
    wild("mcp-contextforge-gateway", "plugins/external/llmguard/docker-compose.yaml", laid=("plugins/external/llmguard/.env",)),
    *(wild("sqlmesh", f"{ENGINES}.{name}.yaml") for name in ("db2", "mssql", "mysql", "postgres", "risingwave", "starrocks")),
    *(wild("sqlmesh", f"{ENGINES}.{name}.yaml", refused=(RELATIVE,)) for name in ("clickhouse", "spark", "trino")),
    wild("sqlmesh", "web/docker-compose.yml", refused=(RELATIVE,)),
    wild("sqlmesh", "web/docker-compose.yml", "web/docker-compose.build.yml", refused=(RELATIVE,)),
    *(
        wild("compose-lint", f"docs/examples/{name}.yml")
        for name in ("ci-runner-suppression/docker-compose", "portainer-removed/docker-compose")
    ),
    wild(
        "compose-lint",
        "docs/examples/read-only-multi-service/docker-compose.yml",
        laid=("docs/examples/read-only-multi-service/.env",),
        DB_DATA_LOCATION="/srv/db",
        UPLOAD_LOCATION="/srv/uploads",
    ),
    *(
        wild("compose-lint", f"docs/examples/{name}.yml", refused=(RELATIVE,))
        for name in (
            "clean-edge-proxy/docker-compose",
            "logging-without-the-socket/docker-compose",
            "netdata-socket-proxy/docker-compose",
            "netdata-socket-proxy/docker-compose.hardened",
            "read-only-in-tension/docker-compose",
        )
    ),
]

# Unfit as they are: an overlay names what is nowhere, and one file a network that it forgot.
BROKEN = [
    wild("letta", "development.compose.yml", laid=(".env",)),
    wild("mcp-contextforge-gateway", "docker-compose.yml", "compose.upgrade.yml", **GATEWAY),
    wild("mcp-contextforge-gateway", "docker-compose-embedded.yml", **GATEWAY),
    wild("sqlmesh", "web/docker-compose.build.yml"),
]


@pytest.fixture(scope="module")
def into(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wild")


def case_of(one: Wild, into: Path) -> Case:
    folder = unpacked(ARCHIVES[one.project], into)
    for name in one.laid:
        (folder / name).touch()
    return Case(tuple(folder / name for name in one.files), (), {"HOME": HOME, "PATH": "/usr/bin:/bin", **dict(one.variables)}, ("*",))


def named(one: Wild) -> str:
    return f"{one.project}: {' '.join(one.files)}"


@pytest.mark.parametrize("one", BROKEN, ids=named)
def test_what_docker_compose_refuses_we_refuse(one: Wild, into: Path) -> None:
    assert reading_differs(case_of(one, into)) is None


@pytest.mark.parametrize("one", WILD, ids=named)
def test_it_is_read_as_docker_compose_reads_it_and_can_be_deployed(one: Wild, into: Path) -> None:
    case = case_of(one, into)
    assert reading_differs(case) == []

    said: set[str] = set()
    try:  # not all profiles at once, which nobody wants: their ports clash
        app_of(case.files, environment=case.environment, profiles=one.profiles)
    except ConfigError as error:
        said = {problem.message for problem in error.problems if not problem.warning}
    assert said == set(one.refused)
    left = app_of(case.files, environment=case.environment, profiles=one.profiles, ignore_unsupported=True)
    assert left.converted.spec.services
