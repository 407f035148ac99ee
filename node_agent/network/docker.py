"""What Docker is asked for so that it makes our bridge and leaves its traffic to us: a body for `POST /networks/create`, and what to do
about a network that is there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hmcore.apps.subnets import gateway
from node_agent.network.facts import BRIDGE

NAME = "hypermesh"
CLUSTER = "hypermesh.cluster"  # the label that says whose network it is
_OPTION = "com.docker.network."


@dataclass(frozen=True, slots=True)
class Make:
    """The network. `instead`: why the one that is there is of no use; it is removed before, which Docker refuses while somebody uses it."""

    instead: str = ""


@dataclass(frozen=True, slots=True)
class Attach:
    """Containers to a bridge that was made anew, by id with their addresses: their links ended with the old one."""

    containers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Strange:
    """There is a network of our name that we did not make. `reason` in words."""

    reason: str


def step(inspected: object | None, subnet: str, *, bridge: bool) -> Make | Attach | Strange | None:
    """What to do about what Docker says of our network (`GET /networks/hypermesh`; None: there is none); None: nothing. `bridge`: it is
    there. Total."""
    if inspected is None:
        return Make()
    if reason := differs(inspected, subnet):
        labels = inspected.get("Labels") if isinstance(inspected, dict) else None
        return Make(reason) if isinstance(labels, dict) and CLUSTER in labels else Strange(reason)
    return None if bridge else Attach(_attached(inspected))


def _attached(inspected: object) -> dict[str, str]:
    containers = inspected.get("Containers") if isinstance(inspected, dict) else None
    found = {}
    for id, entry in containers.items() if isinstance(containers, dict) else ():
        match entry:
            case {"IPv4Address": str(address)} if isinstance(id, str) and address:
                found[id] = address.partition("/")[0]
    return found


def creation(subnet: str, mtu: int, cluster: str) -> dict[str, object]:
    """`mtu` in bytes, `cluster` its id. Raises UsageError where `subnet` is none.

    Without masquerade: ruleset.py knows what leaves the cluster. `nat-unprotected`: since version 28 Docker otherwise drops what
    comes from other nodes' containers; who may come is for ruleset.py to say. Older versions do not know that option, nor need it.
    Docker publishes no ports on its own: a container has none unless its creation says so (PortBindings).
    """
    return {
        "Name": NAME,
        "CheckDuplicate": True,
        "Driver": "bridge",
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Config": [{"Subnet": subnet, "Gateway": gateway(subnet)}]},
        "Options": {
            f"{_OPTION}bridge.name": BRIDGE,
            f"{_OPTION}bridge.enable_ip_masquerade": "false",
            f"{_OPTION}bridge.enable_icc": "true",
            f"{_OPTION}bridge.gateway_mode_ipv4": "nat-unprotected",
            f"{_OPTION}driver.mtu": str(mtu),
        },
        "Labels": {CLUSTER: cluster},
    }


def differs(inspected: object, subnet: str) -> str:
    """Why a network that is there under our name (`GET /networks/hypermesh`) cannot be used, in words; empty if it can. Total. Another MTU
    is no reason: changing it would take every container off the network."""
    wanted = creation(subnet, 0, "")
    match inspected:
        case {"Driver": str(driver)} if driver != "bridge":
            return f"its driver is {driver}, not bridge"
        case {"IPAM": {"Config": [{"Subnet": str(other)}]}, "Options": dict(options)}:
            if other != subnet:
                return f"its subnet is {other}, not {subnet}"
            expected = wanted["Options"]
            assert isinstance(expected, dict)
            wrong = [name for name, value in expected.items() if not name.endswith("mtu") and options.get(name) != value]
            return f"it was not made with {wrong[0]}={expected[wrong[0]]}" if wrong else ""
    return "it was not made by us"
