"""Keys as a user meets them: put, read, listed and removed by commands, and watched by one that runs on while nodes fail."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from clusters import Cluster
from writing import WRITERS, writing

BYTES = bytes(range(256))  # no UTF-8


@pytest.fixture(autouse=True)
def healthy_before_and_after(cluster: Cluster) -> Iterator[None]:
    cluster.until_healthy()
    yield
    cluster.until_healthy()


def document(cluster: Cluster, *words: str) -> dict[str, Any]:
    """What `hmctl kv WORDS -o json` says."""
    found: dict[str, Any] = json.loads(cluster.run("kv", *words, "-o", "json").stdout)
    return found


def test_a_value_is_put_read_listed_and_removed(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "value").write_bytes(BYTES)
    made = document(cluster, "put", "kv/bytes", f"@{tmp_path / 'value'}")
    again = document(cluster, "put", "kv/bytes", f"@{tmp_path / 'value'}")
    assert (made["key"], made["changed"], again["changed"]) == ("kv/bytes", True, False)
    assert cluster.run("kv", "put", "kv/text", "-", stdin="first\n").stdout == "kv/text is put\n"
    assert cluster.run("kv", "get", "kv/text").stdout == "first\n", "byte for byte"

    got = document(cluster, "get", "kv/bytes")
    assert (got["created"], got["changed"], got["size"], got["value"]) == (made["revision"], made["revision"], 256, None)
    assert base64.b64decode(got["base64"]) == BYTES

    text = document(cluster, "get", "kv/text")
    refused = cluster.run("kv", "put", "kv/text", "second", "--expect", "0", check=False)
    assert refused.returncode == 1
    assert f"kv/text was changed last by revision {text['changed']}, expected was that it does not exist" in refused.stderr
    second = document(cluster, "put", "kv/text", "second", "--expect", str(text["changed"]))
    assert second["revision"] > text["changed"]

    listed = document(cluster, "ls", "kv/")
    told = [(each["key"], each["size"], each["created"], each["changed"]) for each in listed["keys"]]
    first, last = made["revision"], second["revision"]
    assert told == [("kv/bytes", 256, first, first), ("kv/text", len("second"), text["created"], last)]

    removed = document(cluster, "rm", "kv/text", "--expect", str(last))
    assert removed["changed"]
    gone = document(cluster, "rm", "kv/text")
    assert not gone["changed"]
    missing = cluster.run("kv", "get", "kv/text", check=False)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "there is no key kv/text" in missing.stderr

    indexes = [told["index"] for told in (made, again, got, text, second, listed, removed, gone)]
    assert indexes == sorted(indexes), "each answer is of a log index, and what is told later is no older"
    assert made["index"] > 0


def test_a_consistent_read_at_a_node_that_is_behind_has_what_was_written_elsewhere_or_fails(
    cluster: Cluster, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    leader = cluster.status()["leader"]
    behind = next(name for name in cluster.names if name != leader)
    there = cluster.alone(behind, tmp_path)

    def read(*words: str) -> Any:
        return cluster.hmctl("-i", there, "kv", "get", "far", *words, check=False)

    document(cluster, "put", "far", "old")
    eventually(lambda: read().stdout == "old")
    cluster.lab.partition([[behind], [name for name in cluster.names if name != behind]])
    try:
        written = document(cluster, "put", "far", "new")
        assert read().stdout == "old", "it is cut off, and yet it knows"
        told = read("--consistent")
        assert (told.returncode, told.stdout) == (1, ""), "it says what it cannot know"
    finally:
        cluster.lab.heal()
    told_after: list[Any] = []

    def answers() -> bool:
        """It may not know a leader again yet."""
        told_after.append(read("--consistent", "-o", "json"))
        return told_after[-1].returncode == 0

    eventually(answers, within=20)
    got = json.loads(told_after[-1].stdout)
    assert (got["value"], got["changed"]) == ("new", written["revision"])
    assert got["index"] >= written["index"]


def test_a_watch_tells_every_change_once_while_its_node_crashes_and_leaders_change(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """One of all keys: the revisions that it tells must be all that there are, one after the other. And one of our own keys."""
    watched, *others = cluster.names  # with --since it begins at the inventory's first
    cluster.run("raft", "transfer", watched, "--yes")
    begun = document(cluster, "put", "watch/begun", "1")
    since = "--since", str(begun["index"])
    mine: list[str] = []
    with watching(cluster, *since) as everything, watching(cluster, "watch/", *since) as ours:

        def put(key: str, within: float) -> int:
            """Its revision, once both have told of it."""
            revision: int = document(cluster, "put", key, "1")["revision"]
            mine.append(key)
            eventually(lambda: everything.tells(key) and ours.tells(key), within)
            return revision

        with writing(cluster, "watched") as work:
            put("watch/written", 10)

            cluster.lab.kill(watched)
            try:
                work.until_acknowledged(20, writers=WRITERS)
                put("watch/crashed", 30)
            finally:
                cluster.lab.start(watched)
            for watch in (everything, ours):
                assert f"{watched}: " in watch.said
                assert any(f"{name} is followed now" in watch.said for name in others), watch.said
            cluster.until_healthy()

            for name in cluster.names:  # among them whoever is watched by now
                cluster.run("raft", "transfer", name, "--yes")
                work.until_acknowledged(20, writers=WRITERS, by=name)
                put(f"watch/led-by-{name}", 10)
        ended = put("watch/ended", 10)
        listed = document(cluster, "ls")["keys"]
    told = everything.events()
    assert {event["kind"] for event in told} <= {"put", "deleted"}
    assert [event["index"] for event in told] == sorted(event["index"] for event in told)
    revisions = range(begun["revision"] + 1, ended + 1)  # each change is one
    assert len(revisions) > 200, "hardly anything was written"
    wrong = [(revision, event) for revision, event in zip(revisions, told, strict=False) if event["changed"] not in (None, revision)]
    assert wrong[:1] == [], "a gap, or told twice"
    assert len(told) == len(revisions)
    assert [event["key"] for event in ours.events()] == mine
    kept = {event["key"]: event["changed"] for event in told}
    assert {each["key"]: each["changed"] for each in listed if each["key"] in kept} == {key: at for key, at in kept.items() if at}


class watching:
    """`hmctl kv watch` in a process of its own, for the length of the block; it ends as with Ctrl-C. What it told outlives it."""

    def __init__(self, cluster: Cluster, *words: str) -> None:
        self._process = cluster.hmctl.start("-i", cluster.inventory, "kv", "watch", *words, "-o", "json")
        self._lines: list[str] = []
        self._said: list[str] = []
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._streams = self._process.stdout, self._process.stderr
        told = zip(self._streams, (self._lines, self._said), strict=True)
        self._readers = [threading.Thread(target=_read, args=each) for each in told]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> watching:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.send_signal(signal.SIGINT)
            assert self._process.wait(20) == 0, self.said
        except (AssertionError, subprocess.TimeoutExpired):
            self._process.kill()
            raise
        finally:
            for reader in self._readers:
                reader.join()
            for stream in self._streams:
                stream.close()

    def tells(self, key: str) -> bool:
        return any(f'"{key}"' in line for line in reversed(self._lines))

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._lines]

    @property
    def said(self) -> str:
        return "".join(self._said)


def _read(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line)  # at once, and not when there are many
