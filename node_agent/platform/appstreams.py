"""Who may open which dialogue with this node: as in api.py's table, but for streams."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from hmcore.apps.streams import EXEC, LOGS
from hmcore.pki import Kind
from hmcore.stoq.dialogue import Dialogues
from hmcore.stoq.greeting import Peer
from hmcore.stoq.rpc import Observe
from node_agent.container.dockerapi import DockerApi
from node_agent.container.exec import Execs
from node_agent.container.info import ContainerInfo
from node_agent.container.logs import Logs

log = logging.getLogger(__name__)

READERS = (Kind.OPERATOR, Kind.VIEWER)
CHANGERS = (Kind.OPERATOR,)


class AppStreams:
    """Logs of containers, and commands in them. `containers`: ours, as ContainerLayer.containers tells them."""

    def __init__(self, docker_socket: Path, containers: Callable[[], Mapping[str, ContainerInfo]], *, timeout: float) -> None:
        """`timeout` (seconds) bounds each question to Docker."""
        api = DockerApi(docker_socket, timeout)
        self.logs = Logs(api, containers)
        self.execs = Execs(api, containers)

    def containers_changed(self) -> None:
        """`containers` says something else than before."""
        self.logs.changed()

    def dialogues(self, observe: Observe = lambda name, outcome, seconds: None) -> Dialogues:
        """For a Router. `observe` hears how each ended."""
        return Dialogues(
            {
                LOGS: (READERS, self.logs.answer),
                EXEC: (CHANGERS, self.execs.answer),
            },
            denied=_denied,
            observe=observe,
        )


def _denied(peer: Peer, name: str) -> None:
    log.warning("refused: %s may not open %s", peer.identity, name)
