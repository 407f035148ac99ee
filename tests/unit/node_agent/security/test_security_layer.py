"""Who is not counted although it should be."""

from __future__ import annotations

from pathlib import Path

from hmcore.config.settings import Security
from node_agent.security.layer import SecurityLayer

IN, OUT = "a" * 64, "b" * 64


async def test_containers_outside_the_parent_are_told_of_once_it_is_no_delay(tmp_path: Path) -> None:
    running = {IN}
    told: list[dict[str, str]] = []
    layer = SecurityLayer(
        Security(mode="audit"),
        node="node1",
        root=tmp_path,
        running=lambda: frozenset(running),
        on_unwatched=lambda: told.append(dict(layer.unwatched())),
    )
    parent = layer._parent = tmp_path / "hypermesh"
    (parent / IN).mkdir(parents=True)
    assert layer._strangers() is None
    running.add(OUT)
    assert layer._strangers() is None  # it may have ended, and Docker not have said so yet
    assert told == []
    found = layer._strangers()
    assert found is not None
    assert str(found) == "1 of 2 containers run outside /hypermesh and are not counted"
    assert "--cgroup-parent=/hypermesh" in (found.fix or "")
    assert layer._strangers() is not None
    running.discard(OUT)
    assert layer._strangers() is None
    assert told == [{OUT: "outside /hypermesh (--cgroup-parent)"}, {}]  # once each, for every telling is an entry of the log
