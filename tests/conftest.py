"""For all tests: signals as a person's terminal has them."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Whoever runs us in the background (`&` in a script, nohup) has us ignore Ctrl-C and a closed terminal, and so would every hmctl that
    a test starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
