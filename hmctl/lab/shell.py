"""Run this machine's own tools (ip, nft, mount ...), bounded in time, with errors that say which tool and why."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from hmcore.errors import LabError

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The tools that a lab needs, and the Debian and Ubuntu packages that bring them.
TOOLS: Mapping[str, str] = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "nft": "nftables",
    "ssh-keygen": "openssh-client",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}


def require_root_and_tools(command: str) -> None:
    """Raise LabError unless we are root and every tool is installed; the fix is a command to copy."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it makes namespaces, mounts and cgroups", fix=f"sudo {sys.argv[0]} lab {command}")
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool, path=SYSTEM_PATH) is None})
    if missing:
        raise LabError(
            f"the lab needs packages that are not installed: {', '.join(missing)}", fix=f"sudo apt-get install -y {' '.join(missing)}"
        )


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, with a PATH that has the sbin directories and messages in plain English."""
    return {**os.environ, "PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", **(extra or {})}


def run(argv: Sequence[str], *, stdin: str | None = None, timeout: float = 30.0) -> str:
    """The command's standard output. Raises LabError when it fails, is missing, or takes longer than `timeout` seconds."""
    shown = shlex.join(argv)
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, env=environment(), check=False)
    except FileNotFoundError as error:
        raise LabError(f"`{argv[0]}` is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{shown}` did not end within {timeout:g} s") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise LabError(f"`{shown}` ended with {done.returncode}{': ' + said[-1] if said else ''}")
    return done.stdout


def succeeds(argv: Sequence[str], *, timeout: float = 30.0) -> bool:
    """Whether the command ends with 0: for questions, and for removing what may be gone already."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, env=environment(), check=False)
    return done.returncode == 0
