"""A way through Docker's own packet filter for what is forwarded to our containers, as text for iptables-restore. Pure.

Docker may drop whatever is forwarded and not of its own making (chain FORWARD, policy DROP), and no table of ours can undo that: a packet
must be accepted in every table. Docker keeps a chain for others, DOCKER-USER, which it asks first and does not clear. From there we
jump to a chain of our own. Docker 28 and newer has further rules of that kind in other tables, from which a network is exempt by an option
(docker.py). docs/adr/0095 says what we looked at.
"""

from __future__ import annotations

from node_agent.network.facts import BRIDGE
from node_agent.network.ruleset import Base, checked_network

CHAIN = "HM-FORWARD"
THEIRS = "DOCKER-USER"


def accepting(base: Base) -> str:
    """Our chain, in the place of what it held: containers' traffic over the nodes, and what published ports lead to. The rest is for the
    rules that follow to judge."""
    cidr = checked_network(base.cidr)
    rules = (
        f"-o {BRIDGE} -s {cidr} -j ACCEPT",
        f"-m conntrack --ctstate DNAT -d {cidr} -j ACCEPT",
        f"-m conntrack --ctstate DNAT -s {cidr} -j ACCEPT",
    )
    return "\n".join(("*filter", f":{CHAIN} - [0:0]", *(f"-A {CHAIN} {rule}" for rule in rules), "COMMIT", ""))


def accepted(listing: str, base: Base) -> bool:
    """Whether `iptables -S` shows our chain as it shall be, and the jump to it."""
    lines = set(listing.splitlines())
    wanted = [line for line in accepting(base).splitlines() if line.startswith("-A ")]
    found = [line for line in listing.splitlines() if line.startswith(f"-A {CHAIN} ")]
    return f"-A {THEIRS} -j {CHAIN}" in lines and sorted(map(_plain, found)) == sorted(map(_plain, wanted))


def _plain(rule: str) -> tuple[str, ...]:
    """iptables writes options in an order of its own."""
    return tuple(sorted(rule.split()))


def has_place(listing: str) -> bool:
    """Whether Docker's chain for others is there."""
    return f"-N {THEIRS}" in listing.splitlines()
