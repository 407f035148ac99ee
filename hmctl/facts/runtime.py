"""What the agent would run on: Python, the C library, Docker's engine, bcc. One short Python program asks for all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hmctl.facts.base import Topic, number, pairs

SOCKET = "/var/run/docker.sock"

# Old syntax on purpose: it must also run, and say so, on a Python that is too old. /version answers without a docker CLI.
PROGRAM = r"""
import os, platform, socket, sys
def say(key, value): print("%s=%s" % (key, str(value).replace("\n", " ")))
say("executable", sys.executable)
say("version", "%d.%d.%d" % sys.version_info[:3])
say("libc", "-".join(platform.libc_ver()))
try:
    from importlib.util import find_spec
    say("bcc", "yes" if find_spec("bcc") else "no")
except Exception as error:
    say("bcc", "no")
path, stopped = sys.argv[1:]
if not os.path.exists(path):
    say("docker", "missing")
elif stopped:
    say("docker", "down")
    say("docker_error", "it is stopped")
else:
    try:
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(5)
        link.connect(path)
        link.sendall(b"GET /version HTTP/1.0\r\nHost: docker\r\n\r\n")
        answer = b""
        while True:
            part = link.recv(65536)
            if not part: break
            answer += part
        import json
        say("docker_version", json.loads(answer.split(b"\r\n\r\n", 1)[1].decode())["Version"])
        say("docker", "running")
    except Exception as error:
        say("docker", "down")
        say("docker_error", getattr(error, "strerror", None) or error)
"""


def command(socket: str) -> str:
    """Where systemd listens on the engine's behalf, to knock is to start it: an engine that was stopped is left alone."""
    return f"""
stopped=
if [ "$(systemctl is-active docker.socket)" = active ]; then
  case "$(systemctl is-active docker.service)" in active|activating|reloading) ;; *) stopped=yes ;; esac
fi
p=$(command -v "$HM_PYTHON") && "$p" - '{socket}' "$stopped" <<'HM-PYTHON-PROGRAM'
{PROGRAM}
HM-PYTHON-PROGRAM
echo "dockerd=$(command -v dockerd || ls /usr/bin/dockerd /usr/sbin/dockerd 2>/dev/null | head -n 1)"
"""


@dataclass(frozen=True, slots=True)
class Python:
    executable: str
    version: tuple[int, int, int]
    libc: str  # "glibc-2.36"
    bcc: bool

    @property
    def minor(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"


@dataclass(frozen=True, slots=True)
class Docker:
    """`down`: installed, but nobody answers. `unknown`: no Python to ask with."""

    state: Literal["running", "down", "missing", "unknown"]
    version: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Runtime:
    python: Python | None
    docker: Docker


def parse(text: str) -> Runtime:
    found = pairs(text)
    return Runtime(_python(found), _docker(found))


def _python(found: dict[str, str]) -> Python | None:
    parts = [number(part, default=-1) for part in found.get("version", "").split(".")]
    if len(parts) != 3 or min(parts) < 0 or not found.get("executable", "").startswith("/"):
        return None
    return Python(found["executable"], (parts[0], parts[1], parts[2]), found.get("libc", ""), found.get("bcc") == "yes")


def _docker(found: dict[str, str]) -> Docker:
    match found.get("docker"):
        case "running":
            return Docker("running", found.get("docker_version", ""))
        case "down" if found.get("dockerd"):
            return Docker("down", error=found.get("docker_error", ""))
        case "missing" if found.get("dockerd"):
            return Docker("down", error=f"its socket {SOCKET} does not exist")
        case "missing" | "down":  # a socket that outlived its engine is no engine
            return Docker("missing")
        case _:
            return Docker("unknown")


TOPIC = Topic("runtime", command(SOCKET), parse)
