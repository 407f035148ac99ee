"""Tests in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from virtual_loop import Run, run_virtually


@pytest.fixture(scope="session")
def virtual() -> Run[Any]:
    """Runs a coroutine in virtual time."""
    return run_virtually
