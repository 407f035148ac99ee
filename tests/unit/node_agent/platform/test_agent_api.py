"""The table of who may call what, written down a second time, so that no right is given by accident."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from hmcore import api
from hmcore.apps.calls import (
    AppsReply,
    AppsRequest,
    DeployRequest,
    LeaseReply,
    LeaseRequest,
    RebalanceReply,
    RebalanceRequest,
    RemoveRequest,
    RestartRequest,
    RollbackRequest,
    ScaleRequest,
    TellRequest,
)
from hmcore.apps.records import Image
from hmcore.apps.secrets import (
    EnrolRequest,
    FetchReply,
    FetchRequest,
    PutSecretReply,
    PutSecretRequest,
    RemoveSecretRequest,
    SecretsReply,
    SecretsRequest,
    UnlockReply,
    UnlockRequest,
)
from hmcore.apps.spec import AppSpec
from hmcore.errors import InvalidRequest, NoQuorum, PeerUnreachable, PermissionDenied
from hmcore.images.calls import (
    HoldImageRequest,
    ImagesReply,
    ImagesRequest,
    NameImageRequest,
    RemoveImageRequest,
    ResolveReply,
    ResolveRequest,
)
from hmcore.locks import AcquireReply, AcquireRequest, LocksReply, LocksRequest, ReleaseRequest, RenewReply, RenewRequest
from hmcore.pki import Identity, Kind
from hmcore.records import Cluster, Event, Node, NodeReport, RaftReport, Registration, Role
from hmcore.stoq.greeting import Peer
from hmcore.store import DeleteKeyRequest, KeyRequest, KeysRequest, PutKeyRequest
from hmcore.voters import ConfigureRequest
from node_agent.consensus.leading.handover import Handed
from node_agent.consensus.statemachine.commands import Applied, encode_result
from node_agent.consensus.statemachine.history import History
from node_agent.consensus.statemachine.state import State
from node_agent.orchestration.advance import Known
from node_agent.platform.api import routes
from node_agent.platform.changes import Changes
from node_agent.platform.consistency import Consistency
from node_agent.platform.forwarding import Forwarding
from node_agent.platform.keys import Keys
from node_agent.platform.raising import Raising
from node_agent.platform.voting import Voting
from node_agent.platform.watches import Watches
from node_agent.security.journal import Waiters

MAY = {
    "node.ping": {Kind.NODE, Kind.OPERATOR, Kind.VIEWER},
    "node.report": {Kind.NODE, Kind.OPERATOR, Kind.VIEWER},
    "cluster.reports": {Kind.OPERATOR, Kind.VIEWER},
    "cluster.formation": {Kind.NODE, Kind.OPERATOR, Kind.VIEWER},
    "cluster.state": {Kind.NODE, Kind.OPERATOR, Kind.VIEWER},
    "cluster.barrier": {Kind.NODE, Kind.OPERATOR, Kind.VIEWER},
    "cluster.transfer": {Kind.OPERATOR},
    "cluster.configure": {Kind.OPERATOR},
    "cluster.raft": {Kind.NODE, Kind.OPERATOR, Kind.VIEWER},
    "security.flows": {Kind.OPERATOR, Kind.VIEWER},
    "node.events": {Kind.OPERATOR, Kind.VIEWER},
    "cluster.form": {Kind.OPERATOR},
    "registry.maintain": {Kind.OPERATOR},
    "registry.instances": {Kind.NODE},
    "registry.list": {Kind.OPERATOR, Kind.VIEWER},
    "health.mute": {Kind.OPERATOR},
    "cluster.raise": {Kind.OPERATOR},
    "keys.put": {Kind.OPERATOR},
    "keys.delete": {Kind.OPERATOR},
    "keys.get": {Kind.OPERATOR, Kind.VIEWER},
    "keys.list": {Kind.OPERATOR, Kind.VIEWER},
    "cluster.watch": {Kind.NODE, Kind.OPERATOR, Kind.VIEWER},
    "cluster.tables": {Kind.NODE, Kind.OPERATOR, Kind.VIEWER},
    "locks.acquire": {Kind.NODE, Kind.OPERATOR},
    "locks.renew": {Kind.NODE, Kind.OPERATOR},
    "locks.release": {Kind.NODE, Kind.OPERATOR},
    "locks.list": {Kind.NODE, Kind.OPERATOR, Kind.VIEWER},
    "apps.deploy": {Kind.OPERATOR},
    "apps.rollback": {Kind.OPERATOR},
    "apps.scale": {Kind.OPERATOR},
    "apps.restart": {Kind.OPERATOR},
    "apps.remove": {Kind.OPERATOR},
    "apps.rebalance": {Kind.OPERATOR},
    "apps.list": {Kind.OPERATOR, Kind.VIEWER},
    "apps.tell": {Kind.NODE},
    "apps.lease": {Kind.NODE},
    "images.name": {Kind.OPERATOR},
    "images.remove": {Kind.OPERATOR},
    "images.hold": {Kind.NODE},
    "images.list": {Kind.OPERATOR, Kind.VIEWER},
    "images.resolve": {Kind.OPERATOR},
    "secrets.put": {Kind.OPERATOR},
    "secrets.remove": {Kind.OPERATOR},
    "secrets.list": {Kind.OPERATOR, Kind.VIEWER},
    "secrets.enrol": {Kind.NODE},
    "secrets.unlock": {Kind.NODE},
    "secrets.fetch": {Kind.NODE},
}
BODIES = {
    "apps.deploy": DeployRequest(id="request-8", name="shop", spec=AppSpec(services={})),
    "apps.rollback": RollbackRequest(id="request-9", name="shop"),
    "apps.scale": ScaleRequest(id="request-a", name="shop", replicas={"web": 2}),
    "apps.restart": RestartRequest(id="request-b", name="shop"),
    "apps.remove": RemoveRequest(id="request-c", name="shop"),
    "apps.rebalance": RebalanceRequest(id="request-j"),
    "apps.list": AppsRequest(),
    "apps.tell": TellRequest(incarnation=1, allocations=()),
    "apps.lease": LeaseRequest(),
    "images.name": NameImageRequest(id="request-d", image=Image(name="web:1", id="sha256:1")),
    "images.remove": RemoveImageRequest(id="request-e", name="web:1"),
    "images.hold": HoldImageRequest(id="request-f", image_id="sha256:1"),
    "images.list": ImagesRequest(),
    "images.resolve": ResolveRequest(names=()),
    "secrets.put": PutSecretRequest(id="request-g", sort="secret", name="password", value=b"1"),
    "secrets.remove": RemoveSecretRequest(id="request-h", sort="secret", name="password"),
    "secrets.list": SecretsRequest(),
    "secrets.enrol": EnrolRequest(public=bytes(32)),
    "secrets.unlock": UnlockRequest(epoch=1),
    "secrets.fetch": FetchRequest(sort="secret", source="password", public=bytes(32)),
    "cluster.reports": api.ReportsRequest(nodes=["node2"]),
    "cluster.form": api.FormRequest(bootstrap="b1", voters=["node1"]),
    "health.mute": api.MuteRequest(id="request-2", check="disk"),
    "cluster.raise": api.RaiseRequest(id="request-5"),
    "registry.maintain": api.MaintainRequest(id="request-1", target="node1/", on=True),
    "keys.put": PutKeyRequest(id="request-3", key="a", value=b"1"),
    "keys.delete": DeleteKeyRequest(id="request-4", key="a"),
    "keys.get": KeyRequest(key="a"),
    "keys.list": KeysRequest(),
    "locks.acquire": AcquireRequest(id="request-5", name="deploy", holder="caller", ttl=30.0),
    "locks.renew": RenewRequest(name="deploy", token=1),
    "locks.release": ReleaseRequest(id="request-6", name="deploy", token=1),
    "locks.list": LocksRequest(),
    "cluster.configure": ConfigureRequest(id="request-7", add="node2"),
}
FORMATION = api.Formation(bootstrap="b1", voters=["node1"], empty=False, permitted=True, formed=True, term=3)
RAFT = RaftReport(role="leader", leader="node1", term=3)
NODE = Node(name="node1", address="10.0.0.1", port=7443, role=Role.CONTROL, release="r1")
EVENT = Event(index=1, kind="node.joined", subject="node1", message="joined")


class View:
    index = 7
    cluster = Cluster(id="hm-abc123defg", bootstrap="b1")
    nodes = {"node2": msgspec.structs.replace(NODE, name="node2"), "node1": NODE}  # noqa: RUF012
    events = (EVENT,)
    registrations = {}  # noqa: RUF012
    maintenance = {}  # noqa: RUF012
    mutes = {}  # noqa: RUF012
    leader = "node1"
    is_leader = caught_up = True
    no_quorum: NoQuorum | None = None
    formed = True

    def formation(self) -> api.Formation:
        return FORMATION

    def report(self) -> RaftReport:
        return RAFT


class Log(View):
    def receipt(self, request_id: str) -> None:
        return None

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        return 8, encode_result(Applied())

    async def barrier(self, timeout: float) -> int:
        return 7

    async def transfer(self, to: str | None, timeout: float) -> Handed:
        return Handed(to or "node2", 4, 0.25)

    async def change_voters(self, *, add: str, remove: str, request_id: str, timeout: float, author: str) -> int:
        return 8

    def status(self) -> None:
        return None


async def nobody_to_ask(name: str, timeout: float) -> int:
    raise AssertionError(f"{name} was asked")


class Registry:
    def instances(self) -> api.InstancesReply:
        return api.InstancesReply(revision=1, incarnation=1, instances=[])

    def everything(self) -> api.RegistryReply:
        return api.RegistryReply(index=7, instances=[])


class Events:
    async def flows(self) -> api.FlowsReply:
        return api.FlowsReply(flows=[], unix_time=1234.5)

    async def events(self, request: api.EventsRequest) -> api.EventsReply:
        return api.EventsReply(events=[], last=request.limit)


class Locks:
    async def acquire(self, request: AcquireRequest, author: Identity) -> AcquireReply:
        return AcquireReply(index=8, token=1)

    async def renew(self, request: RenewRequest, author: Identity) -> RenewReply:
        return RenewReply(index=8)

    async def release(self, request: ReleaseRequest, author: Identity) -> api.ChangeReply:
        return api.ChangeReply(index=8, changed=True)

    async def list(self, request: LocksRequest) -> LocksReply:
        return LocksReply(index=8, locks=[])


class Answers:
    """Answers every call of its kind that changes something; `lists`: and the one that does not."""

    def __init__(self, lists: object) -> None:
        self._lists = lists

    def __getattr__(self, name: str) -> object:
        async def answer(request: object, author: Identity) -> object:
            return GIVEN.get(name, api.ChangeReply(index=8, changed=True))

        return answer

    async def list(self, request: object) -> object:
        return self._lists

    async def resolve(self, request: ResolveRequest) -> ResolveReply:
        return ResolveReply()


GIVEN = {
    "rebalance": RebalanceReply(index=8),
    "put": PutSecretReply(index=8, changed=True),
    "unlock": UnlockReply(sealed=b"1"),
    "fetch": FetchReply(),
}


class Apps:
    calls = Answers(AppsReply(index=7))
    image_calls = Answers(ImagesReply(index=7))
    secret_calls = Answers(SecretsReply(index=7, secrets=[]))

    async def told(self, request: TellRequest, node: str) -> api.ChangeReply:
        assert node == "caller", "a node tells of itself, whatever it says"
        return api.ChangeReply(index=8, changed=True)

    async def granted(self, request: LeaseRequest, node: str) -> LeaseReply:
        assert node == "caller"
        return LeaseReply(index=8, seconds=5.0)


async def unreachable(name: str, timeout: float) -> NodeReport:
    raise PeerUnreachable("nobody is connected", host=name)


class Agent:
    name = "node1"
    forwarding = Forwarding(unreachable, links=list, wall_clock=lambda: 1234.5)
    chronicle = Events()
    cluster = View()
    news = Waiters(most=2)
    consistency = Consistency("node1", View(), Log(), nobody_to_ask, timeout=1.0)
    changes = Changes("node1", View(), Log(), timeout=1)
    keys = Keys("node1", changes, keys=lambda: (7, {}), leader=lambda: "node1", barrier=consistency.wait)
    locks = Locks()
    apps = Apps()
    voting = Voting("node1", View(), Log())
    raising = Raising(changes, lambda: Known(2, (), (("node1", 2),)))
    watches = Watches("node1", state=lambda: (State(), History()), leader=lambda: ("node1", 3))
    registry = Registry()
    formed: str | None = None

    def wall_clock(self) -> float:
        return 1234.5

    def report(self) -> NodeReport:
        return NodeReport(
            cluster="hm-abc123defg",
            name="node1",
            address="10.0.0.1",
            role=Role.CONTROL,
            release="r1",
            uptime_seconds=1.0,
            health_score=1.0,
            reasons=[],
            containers=0,
            components={},
            raft=RAFT,
            formed=True,
            members=[NODE],
        )

    async def form(self, request: api.FormRequest) -> api.Formation:
        self.formed = request.bootstrap
        return FORMATION


def peer(kind: Kind) -> Peer:
    return Peer(Identity("hm-abc123defg", kind, "caller"), role="client", release="r1", protocol=1)


def body(method: str) -> bytes:
    return msgspec.msgpack.encode(BODIES.get(method, api.Empty()))


@pytest.mark.parametrize("method", MAY)
@pytest.mark.parametrize("kind", Kind)
async def test_everybody_may_call_what_the_table_says_and_refusals_are_logged(method, kind, caplog):
    agent = Agent()
    router = routes(agent)
    if kind in MAY[method]:
        assert await router.call(peer(kind), method, body(method))
        return
    with pytest.raises(PermissionDenied, match=f"{kind} caller may not call {method}"):
        await router.call(peer(kind), method, body(method))
    assert agent.formed is None
    assert f"refused: {kind} caller may not call {method}" in caplog.text


def test_every_call_that_is_answered_is_in_the_table():
    served = set(routes(Agent())._routes)
    assert served == set(MAY)


@pytest.mark.parametrize("method", ["cluster.propose", "node.destroy", ""])
async def test_what_is_not_in_the_table_is_not_served(method):
    with pytest.raises(InvalidRequest):
        await routes(Agent()).call(peer(Kind.OPERATOR), method, body(method))


async def test_answers():
    router = routes(Agent())
    operator, node = peer(Kind.OPERATOR), peer(Kind.NODE)
    ping = msgspec.msgpack.decode(await router.call(node, "node.ping", body("node.ping")), type=api.PingReply)
    assert ping == api.PingReply(name="node1", unix_time=1234.5)
    state = msgspec.msgpack.decode(await router.call(operator, "cluster.state", body("cluster.state")), type=api.StateReply)
    assert (state.index, state.leader, state.term, [each.name for each in state.nodes]) == (7, "node1", 3, ["node1", "node2"])
    assert state.events == [EVENT]
    state = msgspec.msgpack.decode(await router.call(node, "cluster.state", body("cluster.state")), type=api.StateReply)
    assert state.events == []


@pytest.mark.parametrize(("kind", "partial", "since", "told"), [
    (Kind.NODE, True, -1, {"node1", "node2"}),
    (Kind.NODE, True, 4, {"node2"}),
    (Kind.NODE, False, 4, {"node1", "node2"}),
    (Kind.OPERATOR, True, 4, set()),
])  # fmt: skip
async def test_nodes_get_the_registry_or_the_part_of_it_that_they_do_not_have(kind, partial, since, told):
    class Registered(View):
        registrations = {name: Registration(revision=1, incarnation=1, index=index) for name, index in (("node1", 4), ("node2", 6))}  # noqa: RUF012

    agent = Agent()
    agent.cluster = Registered()
    asked = msgspec.msgpack.encode(api.StateRequest(since=since, partial=partial))
    state = msgspec.msgpack.decode(await routes(agent).call(peer(kind), "cluster.state", asked), type=api.StateReply)
    assert set(state.registrations) == told
    assert state.partial == (partial and kind is Kind.NODE)


async def test_a_node_that_has_the_latest_waits_for_what_is_newer_and_others_do_not():
    agent = Agent()
    agent.cluster = View()
    agent.news = Waiters(most=1)
    router = routes(agent)

    async def ask(since: int, kind: Kind = Kind.NODE, wait: float = 60.0) -> api.StateReply:
        request = api.StateRequest(since=since, partial=True, wait=wait)
        return msgspec.msgpack.decode(await router.call(peer(kind), "cluster.state", msgspec.msgpack.encode(request)), type=api.StateReply)

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        assert not (await ask(View.index - 1)).unchanged
        assert (await ask(View.index, Kind.OPERATOR)).unchanged
        follower = tasks.create_task(ask(View.index))
        await asyncio.sleep(0)
        assert len(agent.news) == 1
        assert (await ask(View.index)).unchanged, "one waits already: there must be no more"
        agent.news.wake()
        await asyncio.sleep(0)
        assert not follower.done()
        agent.cluster.index += 1  # type: ignore[misc]
        agent.news.wake()
        reply = await follower
    assert (reply.index, reply.unchanged) == (View.index + 1, False)
    assert (await ask(reply.index, wait=0.02)).waited >= 0.02


async def test_a_consistent_state_is_asked_for_and_what_keeps_it_away_is_told():
    agent = Agent()
    waited: list[bool] = []

    class Sure(Consistency):
        async def wait(self) -> None:
            waited.append(True)
            if len(waited) > 1:
                raise NoQuorum("no quorum: 1 of 3 voters reachable")

    agent.consistency = Sure("node1", View(), Log(), nobody_to_ask, timeout=1.0)
    router, operator = routes(agent), peer(Kind.OPERATOR)
    asked = msgspec.msgpack.encode(api.StateRequest(consistent=True))
    assert await router.call(operator, "cluster.state", body("cluster.state"))
    assert waited == []
    assert not msgspec.msgpack.decode(await router.call(operator, "cluster.state", body("cluster.state")), type=api.StateReply).consistent
    state = msgspec.msgpack.decode(await router.call(operator, "cluster.state", asked), type=api.StateReply)
    assert (state.index, state.consistent, waited) == (7, True, [True])
    with pytest.raises(NoQuorum, match="1 of 3"):
        await router.call(operator, "cluster.state", asked)


async def test_that_there_is_no_quorum_is_in_the_state():
    class Alone(View):
        leader = None
        no_quorum = NoQuorum("no quorum: 1 of 3 voters reachable")

    agent = Agent()
    agent.cluster = Alone()
    for request in (api.StateRequest(), api.StateRequest(since=7)):
        said = await routes(agent).call(peer(Kind.OPERATOR), "cluster.state", msgspec.msgpack.encode(request))
        assert msgspec.msgpack.decode(said, type=api.StateReply).no_quorum == "no quorum: 1 of 3 voters reachable"


async def test_the_leadership_is_handed_to_whom_the_operator_names():
    asked = msgspec.msgpack.encode(api.TransferRequest(to="node3"))
    said = await routes(Agent()).call(peer(Kind.OPERATOR), "cluster.transfer", asked)
    assert msgspec.msgpack.decode(said, type=api.TransferReply) == api.TransferReply(leader="node3", term=4, seconds=0.25, index=7)
