"""Answering the other end, without a connection: what it asks is answered, or cancelled when it is no longer wanted."""

from __future__ import annotations

import asyncio

from stoq_world import Recorder, identity, until

from hmcore.stoq.frames import Fault, Reply
from hmcore.stoq.greeting import Peer
from hmcore.stoq.service import Serving


class Asked:
    """The connection to n2, which asks."""

    peer = Peer(identity("n2"), "control", "r1", 1)

    def __init__(self) -> None:
        self.answers: dict[int, Reply | Fault] = {}
        self.failures: list[BaseException] = []

    def answer(self, stream: int, answer: Reply | Fault) -> None:
        self.answers[stream] = answer

    def stream_end(self, stream: int) -> None:
        raise AssertionError("no stream is opened here")

    stream_abandon = stream_end


async def test_calls_are_answered_side_by_side_and_one_may_be_cancelled() -> None:
    asked, service = Asked(), Recorder(hold=asyncio.Event())
    assert service.hold is not None
    serving = Serving(service, asked, asked.failures.append)
    for stream, method in ((4, "wait"), (8, "echo"), (12, "wait")):
        serving.call(stream, method, b"body")
    await until(lambda: 8 in asked.answers and len(service.calls) == 3)
    serving.cancel(4)
    serving.cancel(400)  # of which nothing is known, or which has ended
    await until(lambda: service.cancelled)
    service.hold.set()
    await until(lambda: 12 in asked.answers)
    assert asked.answers == {8: Reply(b"body"), 12: Reply(b"body")}
    serving.stop()
    await serving.wait()
    assert asked.failures == []


async def test_once_stopped_nothing_runs_and_nothing_begins() -> None:
    asked, service = Asked(), Recorder(hold=asyncio.Event())
    serving = Serving(service, asked, asked.failures.append)
    serving.call(4, "wait", b"")
    await until(lambda: service.calls)
    serving.stop()
    await serving.wait()
    assert service.cancelled == 1
    serving.call(8, "echo", b"")
    await serving.wait()
    assert (len(service.calls), asked.answers) == (1, {})


async def test_a_handler_that_waits_for_the_end_of_its_own_connection_does_not_wait_for_itself() -> None:
    asked = Asked()

    class Closing(Recorder):
        async def call(self, peer: Peer, method: str, body: bytes) -> bytes:
            await serving.wait()
            return b"waited"

    serving = Serving(Closing(), asked, asked.failures.append)
    serving.call(4, "close", b"")
    await until(lambda: asked.answers)
    assert asked.answers == {4: Reply(b"waited")}
    serving.stop()
    await serving.wait()


async def test_what_fails_in_answering_is_reported_once() -> None:
    asked = Asked()

    def broken(stream: int, answer: Reply | Fault) -> None:
        raise ValueError("a mistake of ours")

    asked.answer = broken  # type: ignore[method-assign]
    serving = Serving(Recorder(), asked, asked.failures.append)
    serving.call(4, "echo", b"")
    await until(lambda: asked.failures)
    await serving.wait()
    assert len(asked.failures) == 1
