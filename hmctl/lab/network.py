"""The wires of a lab: a switch in a network namespace of its own, a cable to every host, and one to this machine.

Nothing is forwarded or translated, and no setting of the machine's own network is touched. What the switch drops (a partition, a
blocked port) is one nftables table, replaced as a whole whenever the lab's state changes.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from hmcore.errors import LabError
from hmctl.lab import shell
from hmctl.lab.plan import GATEWAY, OPERATOR, Address, Names, uplink
from hmctl.lab.state import LabState

_NAMESPACES = Path("/run/netns")
_BRIDGE = "br0"
_CABLE = "uplink"  # the switch's end of the cable to this machine


def ruleset(state: LabState) -> str:
    """The switch's nftables rules, for `nft -f`. Hosts in no group of the partition keep all their links, and so does this machine."""
    rules = []
    for side, group in enumerate(state.partition):
        others = [node for other, nodes in enumerate(state.partition) if other != side for node in nodes]
        for node in group:
            rules += [f'iifname "{node}" oifname "{other}" drop' for other in others]
    rules += [f'oifname "{block.node}" {block.protocol} dport {block.port} drop' for block in state.blocks]
    body = "".join(f"    {rule}\n" for rule in rules)
    chain = f"  chain cables {{\n    type filter hook forward priority 0;\n{body}  }}\n"
    return f"table bridge lab\ndelete table bridge lab\ntable bridge lab {{\n{chain}}}\n"  # made, so that it can be deleted and made anew


def taken_addresses() -> list[str]:
    """This machine's IPv4 addresses."""
    links = json.loads(shell.run(["ip", "-json", "-4", "address", "show"]))
    return [str(info["local"]) for link in links for info in link.get("addr_info", []) if "local" in info]


def namespaces() -> set[str]:
    """Named network namespaces, as `ip netns` keeps them."""
    return {entry.name for entry in _NAMESPACES.iterdir()} if _NAMESPACES.is_dir() else set()


def switch_is_up(state: LabState) -> bool:
    """Whether the switch is complete: bringing up this machine's end of the cable is the last step of making it."""
    return (
        Names(state.name).switch in namespaces()
        and Path(f"/sys/class/net/{uplink(state.subnet)}").exists()
        and _is_up(uplink(state.subnet))
    )


def _is_up(interface: str) -> bool:
    flags = Path(f"/sys/class/net/{interface}/flags").read_text()
    return bool(int(flags, 16) & 1)


def make_switch(state: LabState) -> None:
    """Make it anew. Hosts that were cabled to an older one are cut off: restart them."""
    switch, near = Names(state.name).switch, uplink(state.subnet)
    remove_switch(state.name, state.subnet)
    gateway, operator = Address(state.subnet, GATEWAY), Address(state.subnet, OPERATOR)
    shell.run(["ip", "netns", "add", switch])
    shell.run(
        ["ip", "-netns", switch, "-batch", "-"],
        stdin=f"link set lo up\nlink add {_BRIDGE} type bridge\nlink set {_BRIDGE} address {gateway.mac}\n"
        f"address add {gateway}/24 dev {_BRIDGE}\nlink set {_BRIDGE} up\nroute add unreachable default\n",
    )
    # Answers "no route" to what leads out of the lab: silence would cost every caller a timeout.
    shell.run(["ip", "netns", "exec", switch, "sysctl", "-qw", "net.ipv4.ip_forward=1"])
    shell.run(["ip", "link", "add", near, "address", operator.mac, "type", "veth", "peer", "name", _CABLE, "netns", switch])
    shell.run(["ip", "-netns", switch, "link", "set", _CABLE, "master", _BRIDGE, "up"])
    apply_rules(state)
    shell.run(["ip", "-batch", "-"], stdin=f"address add {operator}/24 dev {near}\nlink set {near} up\n")


def apply_rules(state: LabState) -> None:
    """Make the switch drop what the state says, in one transaction."""
    shell.run(["ip", "netns", "exec", Names(state.name).switch, "nft", "-f", "-"], stdin=ruleset(state))


def is_cabled(state: LabState, node: str) -> bool:
    """Whether the host's network namespace exists and its cable is plugged into the present switch."""
    names = Names(state.name)
    return {names.host(node), names.switch} <= namespaces() and shell.succeeds(["ip", "-netns", names.switch, "link", "show", node])


def connect(state: LabState, node: str) -> None:
    """Give the host a fresh network namespace, cabled to the switch."""
    names = Names(state.name)
    disconnect(state.name, node)
    address, gateway = state.address(node), Address(state.subnet, GATEWAY)
    shell.run(["ip", "netns", "add", names.host(node)])
    shell.run(
        [
            "ip",
            "-netns",
            names.switch,
            "link",
            "add",
            node,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "address",
            address.mac,
            "netns",
            names.host(node),
        ]
    )
    shell.run(["ip", "-netns", names.switch, "link", "set", node, "master", _BRIDGE, "up"])
    shell.run(
        ["ip", "-netns", names.host(node), "-batch", "-"],
        stdin=f"link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {gateway}\n",
    )


def disconnect(lab: str, node: str) -> None:
    """Remove the host's cable and namespace, if they are there."""
    names = Names(lab)
    existing = namespaces()
    if names.switch in existing:  # at once: with the namespace it would go too, but some time later
        shell.succeeds(["ip", "-netns", names.switch, "link", "delete", node])
    if names.host(node) in existing:
        shell.run(["ip", "netns", "delete", names.host(node)])


def remove_switch(lab: str, subnet: int | None) -> None:
    """Remove the switch and this machine's cable, if they are there."""
    if subnet is not None:
        shell.succeeds(["ip", "link", "delete", uplink(subnet)])
    switch = Names(lab).switch
    if switch in namespaces():
        shell.succeeds(["ip", "-netns", switch, "link", "delete", _CABLE])
        shell.run(["ip", "netns", "delete", switch])


def tidy_namespace_folder() -> None:
    """`ip netns add` mounts /run/netns on itself and leaves that behind: undo it when nobody uses it any more."""
    if _NAMESPACES.is_dir() and not namespaces():
        with contextlib.suppress(LabError):  # not mounted, or somebody makes a namespace right now: then it is theirs
            shell.run(["umount", str(_NAMESPACES)])
