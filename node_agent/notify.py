"""What systemd is told: ready, alive, stopping (sd_notify(3)). Outside of systemd all of it does nothing."""

from __future__ import annotations

import os
import socket


def notify(message: str) -> bool:
    """Send e.g. `READY=1` to the service manager. Returns whether there is one that took it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(message.encode(), address)
    except OSError:  # a service manager that does not listen is no reason to fail
        return False
    return True


def watchdog_interval() -> float | None:
    """Seconds between two pings that keep systemd's watchdog quiet: half of what it allows. None: there is no watchdog."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    meant_for = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdigit() or int(microseconds) == 0 or meant_for != str(os.getpid()):
        return None
    return int(microseconds) / 2e6
