"""What systemd says of Docker's unit. Docker itself does not tell that it is going, and to knock at its socket may start it
(docs/adr/0031)."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

from node_agent.container.ends import PROPERTIES, Unit, unit_of

UNIT = "docker.service"
SYSTEMD = Path("/run/systemd/system")  # it is there where systemd runs: sd_booted(3)
TIMEOUT = 5.0  # seconds

log = logging.getLogger(__name__)


def look() -> Unit:
    """Blocks, for TIMEOUT at most. Where nobody answers nothing is known of it."""
    if not SYSTEMD.is_dir():
        return Unit()
    command = ["systemctl", "show", UNIT, f"--property={','.join(PROPERTIES)}"]
    try:
        return unit_of(subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("systemd does not tell how %s is: %s", UNIT, error)
        return Unit()
