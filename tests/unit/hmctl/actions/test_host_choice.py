"""Which hosts a workflow is about."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory_cluster import make

from hmcore.errors import UsageError
from hmctl.actions.hosts import select


@pytest.mark.parametrize(
    ("limit", "chosen"),
    [(None, "1234"), ("node2", "2"), ("node[34]", "34"), (" node4, node1 ,", "14"), ("node*,node1", "1234"), ("node1,nodee2", "1")],
)
def test_a_limit_is_patterns_and_the_order_the_inventorys(tmp_path: Path, limit: str | None, chosen: str) -> None:
    hosts = make(tmp_path, count=4).inventory.hosts
    assert [host.name for host in select(hosts, limit)] == [f"node{number}" for number in chosen]


@pytest.mark.parametrize("limit", ["nodee1", "NODE1", "", ","])
def test_a_limit_that_matches_nobody_is_a_mistake(tmp_path: Path, limit: str) -> None:
    with pytest.raises(UsageError, match="matches none of node1, node2 and node3"):
        select(make(tmp_path).inventory.hosts, limit)
