"""Conversations whose clock pysyncobj shares."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pysyncobj.syncobj
import pytest
from raft_conversation import Conversation


@pytest.fixture
def converse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Conversation]]:
    """Begin a conversation with n0; a second one in the same test is n0 after a restart."""
    begun: list[Conversation] = []

    def begin(**options: Any) -> Conversation:
        for earlier in begun:
            earlier.member.close()
        conversation = Conversation(tmp_path / "raft", **options)
        conversation.now = begun[-1].now if begun else conversation.now
        monkeypatch.setattr(pysyncobj.syncobj, "monotonicTime", conversation.clock)
        monkeypatch.setattr(pysyncobj.syncobj, "random", random.Random(1))
        begun.append(conversation)
        return conversation

    yield begin
    for conversation in begun:
        conversation.member.close()
