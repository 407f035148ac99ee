"""`hypermesh-agent relay`: joins stdin and stdout to the agent's unix socket, for hmctl over SSH where UDP is closed.

Standard library only, two threads that block: it must start at once and end as soon as either side does.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

from hmcore.errors import Unreachable

_CHUNK = 65_536


def relay(path: Path, stdin: int = 0, stdout: int = 1) -> None:
    """Copy bytes both ways until the agent closes. The end of stdin is passed on. Raises Unreachable when no agent listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as agent:
        _connect(agent, path)
        threading.Thread(target=_upward, args=(stdin, agent), daemon=True).start()  # a read of stdin cannot be interrupted
        _downward(agent, stdout)


def _connect(agent: socket.socket, path: Path) -> None:
    try:
        agent.connect(str(path))
    except FileNotFoundError as error:
        raise Unreachable(f"the agent is not running: there is no {path}", fix="systemctl start hypermesh-agent") from error
    except OSError as error:
        raise Unreachable(f"the agent does not answer on {path}: {error.strerror}", fix="systemctl restart hypermesh-agent") from error


def _upward(stdin: int, agent: socket.socket) -> None:
    try:
        while chunk := os.read(stdin, _CHUNK):
            agent.sendall(chunk)
        agent.shutdown(socket.SHUT_WR)
    except OSError:  # the agent closed; the other direction sees it, too, and ends us
        return


def _downward(agent: socket.socket, stdout: int) -> None:
    try:
        while chunk := agent.recv(_CHUNK):
            while chunk:
                chunk = chunk[os.write(stdout, chunk) :]
    except (BrokenPipeError, ConnectionResetError):  # hmctl or the agent is gone: nobody is left to tell
        return
