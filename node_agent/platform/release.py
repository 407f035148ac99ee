"""Which release runs, and whether a release can run here at all: the node's own Python tries it before it is switched to."""

from __future__ import annotations

import importlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hmcore.errors import ReleaseError

# What the agent imports, by the name of its distribution. The last one pulls in every module of our own.
LIBRARIES = {
    "aioquic": "aioquic.quic.connection",
    "pyroute2": "pyroute2",
    "cryptography": "cryptography.x509",
    "docker": "docker",
    "google-crc32c": "google_crc32c",
    "msgspec": "msgspec",
    "prometheus-client": "prometheus_client",
    "pydantic": "pydantic",
    "pysyncobj": "pysyncobj",
    "rpds-py": "rpds",
    "pyyaml": "yaml",
    "uvloop": "uvloop",
}
OURS = ("node_agent.platform.platform", "node_agent.container.engine", "node_agent.platform.metrics")


def running_release() -> str:
    """The digest of the release that this code belongs to (design section 4), or `source` when it runs from a checkout."""
    root = Path(__file__).resolve().parents[2]
    return root.name if root.parent.name == "releases" else "source"


def check_release() -> list[str]:
    """Import all that the agent needs. One line for each library and its version. Raises ReleaseError naming the first that fails."""
    lines = [f"python {platform.python_version()}"]
    for distribution, module in LIBRARIES.items():
        _import(module)
        try:
            lines.append(f"{distribution} {version(distribution)}")
        except PackageNotFoundError as error:
            raise ReleaseError(
                f"{distribution} is here without its metadata: the release is not complete", fix="hmctl bundle build"
            ) from error
    for module in OURS:
        _import(module)
    lines.append(f"hypermesh-agent {running_release()}")
    return lines


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except (ImportError, OSError, SyntaxError) as error:  # OSError: a shared library that this machine cannot load
        raise ReleaseError(f"{module} does not import on Python {platform.python_version()}: {error}", fix="hmctl bundle build") from error
