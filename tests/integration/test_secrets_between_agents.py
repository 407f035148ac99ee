"""Secrets among real agents: sealed by the leader, opened after all were killed, sealed anew for a node that lost its key, on no disk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from cluster import WAIT, ClusterOfProcesses
from operators import TRANSIENT, Operator, new_id

from hmcore.api import STATE, StateRequest
from hmcore.apps.secrets import (
    FETCH,
    LIST_SECRETS,
    PUT_SECRET,
    UNLOCK,
    FetchRequest,
    PutSecretReply,
    PutSecretRequest,
    SecretsReply,
    SecretsRequest,
    UnlockRequest,
)
from hmcore.errors import InvalidRequest, PermissionDenied, SecretsLocked
from hmcore.pki import Kind
from hmcore.watch import TABLES, TablesRequest

T = TypeVar("T")
VALUE = b"correct horse battery staple"


async def put(operator: Operator, name: str, value: bytes, *, dry: bool = False) -> PutSecretReply:
    """By the leader, once there is one that can open the vault."""
    request = PutSecretRequest(id=new_id(), sort="secret", name=name, value=value, dry=dry)

    async def ask() -> PutSecretReply | None:
        try:
            leader = (await operator.ask("node1", STATE, StateRequest())).leader
            return None if leader is None else await operator.ask(leader, PUT_SECRET, request)
        except (*TRANSIENT, SecretsLocked):
            return None

    return await until(ask, f"{name} is set")


async def until(ask: Callable[[], Awaitable[T | None]], what: str) -> T:
    try:
        async with asyncio.timeout(WAIT):
            while True:
                if (found := await ask()) is not None:
                    return found
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not within {WAIT} s: {what}") from None


async def listed(operator: Operator, node: str = "node2", *, later_than: int = 0) -> SecretsReply:
    """Once the vault's key is a later one than that."""

    async def ask() -> SecretsReply | None:
        try:
            found = await operator.ask(node, LIST_SECRETS, SecretsRequest())
        except TRANSIENT:  # agents are killed, and with them connections
            return None
        return found if found.epoch > later_than else None

    return await until(ask, f"{node} tells of a key later than {later_than}")


def holding(folder: Path, value: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and value in path.read_bytes()]


async def test_secrets_outlive_their_keepers_and_stand_on_no_disk(cluster: ClusterOfProcesses) -> None:
    async with Operator(cluster, "tester") as operator:
        first = await put(operator, "db", VALUE)
        before = await listed(operator)
        assert (before.keepers, [each.name for each in before.secrets]) == (("node1", "node2", "node3"), ["db"])
        for node in cluster.nodes.values():
            node.kill()
        cluster.start()
        await cluster.until_whole("all were killed and started again")
        again = await put(operator, "db", VALUE, dry=True)
        assert (again.changed, again.digest) == (False, first.digest), "it was opened and compared"

        victim = cluster.nodes["node3"]
        victim.kill()
        (victim.config.data_dir / "secrets.key").unlink()
        victim.start()
        await cluster.until_whole("one has lost its key")

        assert not (await listed(operator, later_than=before.epoch)).secrets[0].lost
        for node in cluster.nodes.values():
            node.kill()
        cluster.start()
        await cluster.until_whole("all were killed again")
        assert (await put(operator, "db", VALUE, dry=True)).digest == first.digest
        assert holding(next(iter(cluster.nodes.values())).directory.parent, VALUE) == []


async def test_nobody_is_told_what_is_not_theirs(cluster: ClusterOfProcesses) -> None:
    fetch = FetchRequest(sort="secret", source="db", public=bytes(range(32)), allocation="shop/web.1.1")
    async with Operator(cluster, "tester") as operator, Operator(cluster, "looker", Kind.VIEWER) as viewer:
        await put(operator, "db", VALUE)
        for caller in (operator, viewer):
            for method, request in ((FETCH, fetch), (UNLOCK, UnlockRequest(epoch=1))):
                with pytest.raises(PermissionDenied):
                    await caller.ask("node1", method, request)  # type: ignore[arg-type]
        with pytest.raises(PermissionDenied):
            await viewer.ask("node1", PUT_SECRET, PutSecretRequest(id=new_id(), sort="secret", name="db", value=b"x"))
        for table in ("secrets", "vault"):
            with pytest.raises(InvalidRequest):
                await viewer.ask("node1", TABLES, TablesRequest(tables=(table,)))
        whole = await operator.ask("node1", TABLES, TablesRequest())
        assert not [change for change in whole.records if change.table in ("secrets", "vault")]
        assert [each.name for each in (await listed(viewer)).secrets] == ["db"]
        epoch = (await listed(viewer, "node1")).epoch
    async with Operator(cluster, "node4", Kind.NODE) as worker:
        with pytest.raises(PermissionDenied, match="runs no replica"):
            await worker.ask("node1", FETCH, fetch)
        with pytest.raises(PermissionDenied, match="no control node whose key is known"):
            await worker.ask("node1", UNLOCK, UnlockRequest(epoch=epoch))
