"""One line per event on stderr, for the journal: with a syslog priority in front (sd-daemon(3)) when the journal is what reads it."""

from __future__ import annotations

import logging
import os
import sys

_PRIORITY = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


class JournalFormatter(logging.Formatter):
    """`prioritized`: `<4>container is degraded: ...`; otherwise the time and the level's name."""

    def __init__(self, *, prioritized: bool) -> None:
        super().__init__()
        self._prioritized = prioritized

    def format(self, record: logging.LogRecord) -> str:
        message = "; ".join(line for line in record.getMessage().splitlines() if line.strip())
        lines = [message]
        if record.exc_info and record.exc_info[0] is not None:
            lines += self.formatException(record.exc_info).splitlines()
        if self._prioritized:
            priority = next((number for level, number in _PRIORITY if record.levelno >= level), 7)
            return "\n".join(f"<{priority}>{line}" for line in lines)  # every line: the journal makes each an entry
        return "\n".join([f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():<7} {lines[0]}", *lines[1:]])


def set_up() -> None:
    """Log to stderr from now on. Libraries are heard only when they warn."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JournalFormatter(prioritized="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for ours in ("node_agent", "hmcore", "hypermesh"):
        logging.getLogger(ours).setLevel(logging.INFO)
    logging.getLogger("quic").setLevel(logging.ERROR)  # aioquic's: what strangers send is counted and said by hmcore.stoq
    logging.captureWarnings(True)
