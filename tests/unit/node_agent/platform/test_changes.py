"""Operators' changes: only where the leader is, only of what there is, in the operator's name, once."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hmcore.api import MaintainRequest, MuteRequest
from hmcore.errors import InvalidRequest, NoQuorum, NotLeader
from hmcore.pki import Identity, Kind
from hmcore.records import Instance, Mute, Node, Registration, Role
from node_agent.consensus.statemachine.commands import Noop, Proposal, Receipt, Refused, encode_batch, encode_result
from node_agent.consensus.statemachine.machine import apply_batch
from node_agent.consensus.statemachine.state import State
from node_agent.platform.changes import MAX_REASON, Changes

ANN = Identity("hm-abc123defg", Kind.OPERATOR, "ann")
NODE = Node(name="node1", address="10.0.0.1", port=7443, role=Role.CONTROL, release="r1")
WEB = Instance(id="node1/web-1", service="shop/web", node="node1", address="10.0.0.1")


class Log:
    """A replicated log that accepts everything at once."""

    def __init__(self, *, leads: bool = True) -> None:
        self.state = State(nodes={"node1": NODE}, registrations={"node1": Registration(revision=1, incarnation=1, instances=(WEB,))})
        self.is_leader = self.caught_up = leads
        self.leader = "node1" if leads else "node2"
        self.refuses = ""
        self.no_quorum: NoQuorum | None = None

    nodes = property(lambda self: self.state.nodes)
    registrations = property(lambda self: self.state.registrations)
    maintenance = property(lambda self: self.state.maintenance)
    mutes = property(lambda self: self.state.mutes)

    def receipt(self, request_id: str) -> Receipt | None:
        return self.state.receipts.get(request_id)

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        if self.refuses:
            return self.state.index, encode_result(Refused(self.refuses))
        batch = encode_batch([Proposal(request_id, command, 0.0, author)])
        self.state, (receipt,), _ = apply_batch(self.state, batch, self.state.index + 1)
        return receipt.index, receipt.result


def request(target: str = "node1/web-1", *, on: bool = True, reason: str = "", id: str = "request-1") -> MaintainRequest:
    return MaintainRequest(id=id, target=target, on=on, reason=reason)


def changes(log: Log) -> Changes:
    return Changes("node1", log, log, timeout=1.0)  # type: ignore[arg-type]


async def test_maintenance_begins_and_ends_in_the_operators_name():
    log = Log()
    reply = await changes(log).maintain(request(reason="disk\nswap"), ANN)
    assert reply.changed
    kept = log.state.maintenance["node1/web-1"]
    assert (kept.author, kept.reason, kept.index) == ("ann", "disk swap", reply.index)
    assert log.state.events[-1].author == "ann"
    assert (await changes(log).maintain(request(on=False, id="request-2"), ANN)).changed
    assert not log.state.maintenance


async def test_a_retry_is_the_same_change_and_another_operators_id_is_not():
    log = Log()
    first = await changes(log).maintain(request(), ANN)
    await changes(log).maintain(request(on=False, id="request-2"), ANN)
    assert await changes(log).maintain(request(), ANN) == first
    assert not log.state.maintenance, "the retry was carried out again"
    bob = replace_name(ANN, "bob")
    assert (await changes(log).maintain(request(), bob)).changed
    assert log.state.maintenance["node1/web-1"].author == "bob"


async def test_a_retry_is_answered_even_when_what_it_was_about_has_gone():
    log = Log()
    await changes(log).maintain(request(), ANN)
    ended = await changes(log).maintain(request(on=False, id="request-2"), ANN)
    log.state = replace(log.state, registrations={})
    assert await changes(log).maintain(request(on=False, id="request-2"), ANN) == ended
    with pytest.raises(InvalidRequest, match="nothing is called"):
        await changes(log).maintain(request(on=False, id="request-3"), ANN)
    with pytest.raises(InvalidRequest, match="nothing is called"):
        await changes(log).maintain(request(on=False, id="request-2"), replace_name(ANN, "bob"))

    muted = await changes(log).mute(muting(node="node1", id="request-4"), ANN)
    log.state = replace(log.state, nodes={}, mutes={})  # the node was removed, its mutes with it
    assert await changes(log).mute(muting(node="node1", id="request-4"), ANN) == muted
    log.is_leader = False
    with pytest.raises(NotLeader):
        await changes(log).mute(muting(node="node1", id="request-4"), ANN)


def replace_name(identity: Identity, name: str) -> Identity:
    return Identity(identity.cluster, identity.kind, name)


async def test_who_does_not_lead_names_who_does():
    with pytest.raises(NotLeader, match="node1 does not lead; node2 does") as caught:
        await changes(Log(leads=False)).maintain(request(), ANN)
    assert caught.value.leader == "node2"
    with pytest.raises(NotLeader):
        await Changes("worker1", Log(leads=False), None, timeout=1.0).maintain(request(), ANN)  # type: ignore[arg-type]


async def test_a_leader_that_has_yet_to_carry_out_what_was_decided_before_judges_nothing():
    log = Log()
    log.caught_up, log.state = False, State()
    with pytest.raises(NotLeader, match="node1 leads since a moment ago") as caught:  # not that there is no such instance
        await changes(log).maintain(request(), ANN)
    assert caught.value.leader is None
    with pytest.raises(NotLeader):
        changes(log).answered("request-1", ANN)
    assert (await changes(log).carry_out(Noop(), request="request-2", author=ANN)).index == 1  # which asks for no judgement
    log.caught_up, log.state = True, Log().state
    assert (await changes(log).maintain(request(id="request-3"), ANN)).changed


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("node1/web-2", "did you mean node1/web-1"),
        ("node9/", "no node is called node9$"),  # and no other is suggested
        ("node9/web-1", "no node is called node9$"),
        ("node1", "neither an instance"),
        ("node1/web 1", "neither an instance"),
        ("node1/../x", "neither an instance"),
        ("/web", "neither an instance"),
        ("x" * 5000, "neither an instance"),
    ],
)
async def test_a_target_must_be_well_formed_and_exist(target, why):
    log = Log()
    with pytest.raises(InvalidRequest, match=why):
        await changes(log).maintain(request(target), ANN)
    assert log.state.index == 0


async def test_what_has_gone_can_still_be_given_back():
    log = Log()
    await changes(log).maintain(request(), ANN)
    log.state = replace(log.state, registrations={})
    assert (await changes(log).maintain(request(on=False, id="request-2"), ANN)).changed


@pytest.mark.parametrize("bad", ["", "short", "with space in it", "x" * 65, "a/b/c/d/e/f"])
async def test_a_requests_id_is_of_a_tight_grammar(bad):
    with pytest.raises(InvalidRequest, match="a request's id"):
        await changes(Log()).maintain(request(id=bad), ANN)


async def test_reasons_are_bounded_and_refusals_are_told():
    log = Log()
    with pytest.raises(InvalidRequest, match="longer than"):
        await changes(log).maintain(request(reason="x" * (MAX_REASON + 1)), ANN)
    log.refuses = "not now"
    with pytest.raises(InvalidRequest, match="not now"):
        await changes(log).maintain(request(), ANN)


def muting(check: str = "disk", node: str = "", *, on: bool = True, reason: str = "", id: str = "request-1") -> MuteRequest:
    return MuteRequest(id=id, check=check, node=node, on=on, reason=reason)


async def test_a_check_is_muted_and_unmuted_in_the_operators_name():
    log = Log()
    assert (await changes(log).mute(muting(node="node1", reason="new disk\ncomes"), ANN)).changed
    (mute,) = log.state.mutes.values()
    assert (mute.key, mute.author, mute.reason) == ("disk@node1", "ann", "new disk comes")
    assert not (await changes(log).mute(muting(on=False, id="request-2"), ANN)).changed  # everywhere is another mute
    assert (await changes(log).mute(muting(node="node1", on=False, id="request-3"), ANN)).changed
    assert log.state.mutes == {}


@pytest.mark.parametrize(
    ("check", "node", "why"),
    [
        ("dsk", "", "no check is called 'dsk'; did you mean disk"),
        ("component.contaner", "node1", "did you mean component.container"),
        ("disk", "node2", "no node is called 'node2'; did you mean node1"),
        ("cluster.nodes", "node1", "is a check of the cluster"),
        ("", "", "no check is called ''"),
    ],
)
async def test_only_what_there_is_can_be_muted(check, node, why):
    log = Log()
    with pytest.raises(InvalidRequest, match=why):
        await changes(log).mute(muting(check, node), ANN)
    assert log.state.mutes == {}


async def test_a_mute_of_a_check_that_has_gone_can_be_taken_back():
    log = Log()
    log.state = replace(log.state, mutes={"old": Mute(check="old")})
    assert (await changes(log).mute(muting("old", on=False), ANN)).changed


async def test_a_node_that_is_sure_that_there_is_no_quorum_says_so_at_once():
    log = Log(leads=False)
    with pytest.raises(NotLeader):
        await changes(log).maintain(request(), ANN)
    log.leader = None
    log.no_quorum = NoQuorum("no quorum: 1 of 3 voters reachable")
    with pytest.raises(NoQuorum, match="no quorum: 1 of 3 voters reachable"):
        await changes(log).maintain(request(), ANN)
    with pytest.raises(NoQuorum):
        await changes(log).mute(MuteRequest(id="request-9", check="disk"), ANN)
