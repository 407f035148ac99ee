"""Revisions of keys as real agents tell them: for what was there already, and when another was expected."""

from __future__ import annotations

import pytest
from cluster import ClusterOfProcesses
from operators import Operator, new_id

from hmcore.errors import NotAsExpected
from hmcore.store import PUT_KEY, PutKeyRequest


async def test_a_value_that_is_there_is_told_with_its_revision_and_another_is_refused_by_its_type(cluster: ClusterOfProcesses) -> None:
    key = f"revisions/{new_id()}"

    def put(value: bytes, expect: int | None = None) -> PutKeyRequest:
        return PutKeyRequest(id=new_id(), key=key, value=value, expect=expect)

    async with Operator(cluster, "tester") as operator:
        first = await operator.change(PUT_KEY, put(b"1"))
        again = await operator.change(PUT_KEY, put(b"1"))
        assert (first.changed, again.changed, again.revision) == (True, False, first.revision)
        with pytest.raises(NotAsExpected, match=f"changed last by revision {first.revision}"):
            await operator.change(PUT_KEY, put(b"2", first.revision + 1))
        assert (await operator.change(PUT_KEY, put(b"2", again.revision))).changed
