"""The process that speaks to the kernel: begun when it is needed, let go when nobody asks, ended when it hangs or says nonsense."""

from __future__ import annotations

import asyncio
import io
import sys
from typing import get_args

import msgspec
import pytest

from hmcore.errors import LayerDown
from node_agent.network import actions, netlink
from node_agent.network.actions import Action
from node_agent.network.facts import Forwarding, Link, Neighbour, Route, Seen, Tunnel
from node_agent.network.kernel import Refused
from node_agent.network.links import Links
from node_agent.network.netlink_messages import LENGTH, Answer, Question, framed, named

TUNNEL = Tunnel(vni=1, port=4789, local="", mac="02:48:0a:00:00:01", mtu=1450)
ROUTE = Route("10.77.1.0/24", "eth0", "192.0.2.2", "10.77.0.1", onlink=True)
EVERY: tuple[Action, ...] = (
    actions.MakeBridge("hm0", 1500),
    actions.PutAddress("hm0", "10.77.0.1/24"),
    actions.MakeTunnel("hmvx", TUNNEL),
    actions.DropTunnel("hmvx"),
    actions.RaiseLink("hmvx"),
    actions.PutNeighbour(Neighbour("10.77.1.1", "02:48:0a:00:00:02")),
    actions.DropNeighbour(Neighbour("10.77.1.1", "02:48:0a:00:00:02")),
    actions.PutForwarding(Forwarding("02:48:0a:00:00:02", "192.0.2.2")),
    actions.DropForwarding(Forwarding("02:48:0a:00:00:02", "192.0.2.2")),
    actions.PutRoute(ROUTE),
    actions.DropRoute(ROUTE),
    actions.LetReflect("veth1"),
    actions.SetSysctl("net.ipv4.ip_forward", "1"),
)
SEEN = Seen(
    links=(Link("eth0", addresses=("192.0.2.1/24",)), Link("hmvx", tunnel=TUNNEL)),
    routes=(ROUTE,),
    neighbours=frozenset({Neighbour("10.77.1.1", "02:48:0a:00:00:02")}),
    forwardings=frozenset({Forwarding("02:48:0a:00:00:02", "192.0.2.2")}),
    sysctls={"net.ipv4.ip_forward": "1"},
)
ANSWER = framed(Answer(seen=SEEN))


def served(monkeypatch: pytest.MonkeyPatch, *questions: Question) -> tuple[list[Answer], list[Action]]:
    done: list[Action] = []
    monkeypatch.setattr(netlink.kernel, "observe", lambda sysctls: SEEN)
    monkeypatch.setattr(netlink.kernel, "carry_out", lambda planned, sysctls: done.extend(planned))
    out = io.BytesIO()
    netlink.serve(io.BytesIO(b"".join(map(framed, questions))), out)
    answers, rest = [], out.getvalue()
    while rest:
        length = int.from_bytes(rest[:LENGTH], "big")
        answers.append(msgspec.msgpack.decode(rest[LENGTH : LENGTH + length], type=Answer))
        rest = rest[LENGTH + length :]
    return answers, done


def test_every_action_arrives_as_it_was_decided_and_what_is_there_comes_back(monkeypatch):
    assert {type(each) for each in EVERY} == set(get_args(Action))
    answers, done = served(monkeypatch, Question("/proc/sys", [named(each) for each in EVERY]), Question("/proc/sys"))
    assert tuple(done) == EVERY
    assert answers == [Answer(), Answer(seen=SEEN)]


def test_what_the_kernel_refuses_is_said_and_the_next_question_is_answered(monkeypatch):
    def refuse(planned: object, sysctls: object) -> None:
        raise Refused("Operation not permitted", 1)

    monkeypatch.setattr(netlink.kernel, "carry_out", refuse)
    assert netlink.answer(Question("/proc/sys", [])) == Answer(refused="Operation not permitted", errno=1)


def program(body: str) -> tuple[str, ...]:
    """A process that has read a question's length as `n` before it does `body`."""
    loop = (
        "import sys, time, os\ni, o = sys.stdin.buffer, sys.stdout.buffer\n"
        "while head := i.read(4):\n    i.read(int.from_bytes(head, 'big'))\n"
    )
    return (sys.executable, "-c", loop + "".join(f"    {line}\n" for line in body.splitlines()))


ANSWERING = program(f"o.write({ANSWER!r}); o.flush()")


async def test_it_is_begun_when_it_is_needed_and_ends_when_nobody_asks():
    links = Links(idle=0.2, program=ANSWERING)
    assert await links.observe() == SEEN
    first = links._process
    assert first is not None
    assert await links.observe() == SEEN
    assert links._process is first, "it is kept while questions come"
    assert await asyncio.wait_for(first.wait(), 10) == 0
    assert await links.observe() == SEEN
    assert links._process is not first
    await links.close()


@pytest.mark.long
async def test_one_that_hangs_is_ended_and_the_next_question_has_another():
    links = Links(timeout=1.0, program=program("time.sleep(60)"))
    with pytest.raises(LayerDown, match="does not answer questions about the network within 1 s"):
        await links.observe()
    assert links._process is None
    await links.close()
    links = Links(timeout=5.0, program=program("os._exit(3)"))
    with pytest.raises(LayerDown, match="what asks the kernel has ended"):
        await links.observe()
    await links.close()
    links = Links(timeout=5.0, program=program("o.write(bytes([0, 0, 0, 1, 0xc1])); o.flush()"))
    with pytest.raises(LayerDown):
        await links.observe()
    await links.close()


async def test_who_does_not_wait_for_the_answer_leaves_none_for_the_next():
    links = Links(program=program(f"time.sleep(0.3); o.write({ANSWER!r}); o.flush()"))
    asking = asyncio.create_task(links.observe())
    await asyncio.sleep(0.1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert links._process is None
    assert await links.observe() == SEEN
    await links.close()
