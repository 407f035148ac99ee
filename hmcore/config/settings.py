"""Every tunable of a cluster: its default (the preset `balanced`), its unit, and what one trades by changing it.

The models check each value by itself; conflicts.py checks the values against each other. Presets (presets.py) and the inventory's
`settings:` change values, never the set of them, and a node's agent.yaml holds all of them resolved.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hmcore.config.kinds import Batch, Cidr, Fixed, HmctlOnly, IpAddress, Port, Seconds, Unit


class Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Membership(Group):
    """How fast a silent node is noticed (design section 7)."""

    heartbeat: Annotated[
        Seconds, Field(description="Each node tells every control node that it lives, this often. Shorter notices sooner and costs CPU.")
    ] = 0.5
    suspect: Annotated[
        Seconds, Field(description="Silence after which a node is suspect: nothing new is placed on it. Covers a few lost heartbeats.")
    ] = 2.0
    down: Annotated[
        Seconds,
        Field(description="Silence after which a node is down. Shorter notices a dead node sooner, and calls a slow one dead."),
    ] = 4.0


class Fencing(Group):
    """Exclusive services: never two of a replica, also where a node is cut off (docs/adr/0083)."""

    lease: Annotated[
        float,
        Field(
            ge=2.5,
            le=86_400,
            allow_inf_nan=False,
            description="A node's exclusive containers are killed unless the leader has answered it within this time. Must outlast an "
            "election, or they end whenever a leader dies.",
        ),
        Unit("s"),
    ] = 6.5
    after: Annotated[
        Seconds,
        Field(
            description="Exclusive replicas of a silent node are started elsewhere only after this. Covers the lease, the kill, and "
            "clocks that do not run alike."
        ),
    ] = 9.5


class Raft(Group):
    """How fast a lost leader is replaced (Ongaro & Ousterhout 2014, section 9.3)."""

    heartbeat: Annotated[
        Seconds, Field(description="The leader's sign of life to each voter. Shorter finds a dead leader sooner and costs idle CPU.")
    ] = 0.2
    election_min: Annotated[
        Seconds,
        Field(description="A voter that hears no leader for this long stands for election. Must outlast lost heartbeats and slow disks."),
    ] = 1.0
    election_max: Annotated[
        Seconds, Field(description="Each voter draws its patience between election_min and this. A wide range avoids split votes.")
    ] = 2.0


class Calls(Group):
    """Calls between agents."""

    timeout: Annotated[
        Seconds, Field(description="How long a call may take. Must outlast an election, or writes fail whenever a leader dies.")
    ] = 10.0
    retries: Annotated[
        int,
        Field(
            ge=0,
            le=100,
            description="How often a call is tried again. Only setting up a connection is repeated, never a call already sent.",
        ),
    ] = 3


class Health(Group):
    """Each agent's checks of its own components."""

    interval: Annotated[
        Seconds, Field(description="Time between two checks of a component. Shorter finds a sick one sooner and costs idle CPU.")
    ] = 10.0
    timeout: Annotated[
        Seconds, Field(description="A check of a component, or a call of the container engine, that takes longer has failed.")
    ] = 5.0


class Registry(Group):
    """Which instances of a service may get traffic."""

    ttl: Annotated[
        Seconds,
        Field(description="An instance that is not renewed for this long gets no traffic. Longer survives slow nodes."),
    ] = 60.0
    refresh: Annotated[Seconds, Field(description="Each node renews its instances this often.")] = 20.0


class Metrics(Group):
    """/metrics of each agent, for Prometheus. Figures are collected when somebody asks for them."""

    interval: Annotated[
        Seconds,
        Field(description="What cannot be read when asked (how late the event loop is, the room on the disk) is sampled this often."),
    ] = 10.0
    address: Annotated[
        IpAddress,
        Field(description="IP address that nodes serve /metrics on: loopback, or 0.0.0.0 (:: for IPv6, too) for all that a node has."),
    ] = "127.0.0.1"
    port: Annotated[Port, Field(description="TCP port of /metrics on every node.")] = 7444
    tls: Annotated[
        Literal["off", "mutual"],
        Field(description="off: plain HTTP, for who can reach the address. mutual: only for holders of a certificate of the cluster."),
    ] = "off"


class Security(Group):
    mode: Annotated[
        Literal["off", "audit", "enforce"],
        Field(
            description="eBPF programs in the kernel: off loads none, audit and enforce count flows and report events. The two differ only "
            "once there are network policies: reported, or enforced. This release has none yet."
        ),
    ] = "enforce"


class Upgrade(Group):
    """Rolling upgrades. Control nodes always go one by one."""

    batch: Annotated[
        Batch,
        Field(description='Workers upgraded or restarted at once: a number, a share such as "25%", or all. More is faster and riskier.'),
        HmctlOnly(),
    ] = 1
    soak: Annotated[
        float,
        Field(ge=0, le=86_400, allow_inf_nan=False, description="A batch must stay healthy this long before the next begins."),
        Unit("s"),
        HmctlOnly(),
    ] = 0.0

    def workers_at_once(self, workers: int) -> int:
        """How many of `workers` are upgraded together: at least one."""
        if self.batch == "all":
            return max(1, workers)
        if isinstance(self.batch, str):
            return max(1, workers * int(self.batch.removesuffix("%")) // 100)
        return max(1, min(self.batch, workers))


class Transport(Group):
    """STOQ, the connections between agents."""

    port: Annotated[
        Port,
        Field(description="Port of every agent, unless a host says otherwise: UDP for calls, TCP for bulk content such as images."),
        Fixed(),
    ] = 7443
    high_water_bytes: Annotated[
        int,
        Field(
            ge=65_536,
            le=1_073_741_824,
            description="Unacknowledged bytes per connection above which senders wait: bounds memory per slow peer.",
        ),
        Unit("bytes"),
    ] = 4_194_304
    reconnect_min: Annotated[Seconds, Field(description="First pause before a lost peer is dialled again; doubles, with jitter.")] = 0.1
    reconnect_max: Annotated[
        Seconds, Field(description="Longest such pause. Shorter finds a returning peer sooner, and knocks more often at a dead one.")
    ] = 2.0
    circuit_failures: Annotated[
        int,
        Field(
            ge=1, le=1000, description="Failures in a row after which calls to a peer fail at once instead of waiting for their timeout."
        ),
    ] = 5
    circuit_open: Annotated[Seconds, Field(description="How long such calls fail at once before one is let through to try.")] = 3.0


class Network(Group):
    """The network of containers: each node has a subnet of it (docs/adr/0095)."""

    mode: Annotated[
        Literal["on", "off"],
        Field(
            description="off leaves the nodes' own network alone: containers are on Docker's bridge, without names, published ports or a "
            "way to other nodes' containers."
        ),
        Fixed(),
    ] = "on"
    cidr: Annotated[
        Cidr,
        Field(
            description="IPv4 network of all containers' addresses. Must be in use nowhere else that a node or a container has to reach."
        ),
        Fixed(),
    ] = "10.77.0.0/16"
    subnet_prefix: Annotated[
        int,
        Field(
            ge=16,
            le=28,
            description="Length of each node's part of cidr: 24 has room for 253 containers on a node. Longer makes room for more nodes.",
        ),
        Fixed(),
    ] = 24
    encapsulation: Annotated[
        Literal["auto", "plain", "vxlan"],
        Field(
            description="Between nodes: auto routes plainly where they share a link and tunnels (VXLAN) elsewhere; plain leaves the way to "
            "nodes elsewhere to the network's routers; vxlan tunnels always, as clouds need that drop containers' addresses."
        ),
    ] = "auto"
    vxlan_port: Annotated[
        Port,
        Field(description="UDP port of the tunnels on every node. Another one where firewalls or hypervisors keep 4789 for themselves."),
        Fixed(),
    ] = 4789


class Settings(Group):
    """All settings of a cluster. Times are in seconds."""

    initialization_timeout: Annotated[
        Seconds, Field(description="An agent whose required layers are not up by then gives up with the reason, and is started anew.")
    ] = 60.0
    optional_layers: Annotated[
        Literal["degrade", "refuse"],
        Field(description="What an agent does when an optional layer cannot start: go on degraded, or not start."),
    ] = "degrade"
    membership: Membership = Membership()
    fencing: Fencing = Fencing()
    raft: Raft = Raft()
    calls: Calls = Calls()
    health: Health = Health()
    registry: Registry = Registry()
    metrics: Metrics = Metrics()
    security: Security = Security()
    upgrade: Upgrade = Upgrade()
    transport: Transport = Transport()
    network: Network = Network()
