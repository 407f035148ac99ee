"""Last words of containers: for a while, and within bounds."""

from __future__ import annotations

from node_agent.container.info import ContainerInfo
from node_agent.container.lastwords import KEEP, LINES, MOST, SIZE, LastWords, latest
from node_agent.container.loglines import Entry


def info(id: str) -> ContainerInfo:
    return ContainerInfo(id, id, "shop/web")


def entry(number: int, text: bytes = b"x") -> Entry:
    return Entry(number, False, text)


def test_they_are_kept_for_a_while() -> None:
    now = 0.0
    words = LastWords(lambda: now)
    words.keep(info("c1"), [entry(1)])
    now = KEEP - 1
    assert words.all()["c1"].entries == (entry(1),)
    now = KEEP
    assert not words.all()


def test_of_containers_the_latest_are_kept_and_none_that_wrote_nothing() -> None:
    words = LastWords(lambda: 0.0)
    for number in range(MOST + 3):
        words.keep(info(f"c{number}"), [entry(number)])
    words.keep(info("c3"), [entry(99)])  # once more: it is among the latest
    words.keep(info("silent"), [])
    assert list(words.all()) == [*(f"c{number}" for number in range(4, MOST + 3)), "c3"]


def test_of_one_container_the_latest_lines_that_fit() -> None:
    assert latest(entry(number) for number in range(LINES + 7)) == tuple(entry(number) for number in range(7, LINES + 7))
    long = [entry(1, b"a" * SIZE), entry(2, b"b" * (SIZE - 1)), entry(3, b"c")]
    assert latest(long) == tuple(long[1:])
    assert latest([entry(1, b"a" * (SIZE + 1))]) == ()
