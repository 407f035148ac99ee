"""Warnings that strangers can cause, at most one line in ten seconds: nobody may fill a disk with our log."""

from __future__ import annotations

import logging
import time

EVERY = 10.0  # seconds


class Complaints:
    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._next = 0.0
        self._unsaid = 0

    def add(self, complaint: str) -> None:
        now = time.monotonic()
        if now < self._next:
            self._unsaid += 1
            return
        self._log.warning("%s%s", complaint, f" (and {self._unsaid} more since the last one)" if self._unsaid else "")
        self._next = now + EVERY
        self._unsaid = 0
