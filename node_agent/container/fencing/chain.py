"""The node's lease as its agent sees it: renewed without a gap, or begun anew. Pure; times are seconds by the boot clock (lease.py).

A lease is counted from when its question was sent, never from the answer. While one is renewed before it ends, the leader cannot have taken
this node for fenced. Whoever has none may have been: then a new one counts from a log index, and nothing is started under it before the
state is known as of that index, for what was decided meanwhile is in it (docs/adr/0083).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hmcore.apps.calls import LeaseReply

RENEW = 1 / 6  # of a lease, from one question to the next: half a dozen may go unanswered
ENOUGH = 1 / 2  # of a lease that must be left of it for something to be started: a start takes time, and the fence a second to see a gate


@dataclass(frozen=True, slots=True)
class Chain:
    """`index`: the log index that it begins with; no other lease, of any node, begins with the same one."""

    until: float
    index: int

    def lasts(self, now: float) -> bool:
        return now < self.until


@dataclass(frozen=True, slots=True)
class Permit:
    """`barred`: why no exclusive container may run here now; `held`: why none may be started; empty: it may. `lease`: Chain.index."""

    barred: str = ""
    held: str = ""
    lease: int = 0


def answered(before: Chain | None, reply: LeaseReply, *, anew: bool, sent: float, longest: float, now: float) -> Chain | None:
    """What the answer to a question that was sent at `sent` makes of it. `longest`: seconds, by our own settings."""
    until = sent + min(reply.seconds, longest)
    if now >= until:
        return before if before is not None and before.lasts(now) else None
    if anew:
        return Chain(until, reply.index)
    if before is None or not before.lasts(now):
        return None  # it ended before this came, and may have been counted as ended: only who asks anew is told what was decided since
    return replace(before, until=max(before.until, until))


def permit(chain: Chain | None, *, known: int, watched: bool, lease: float, now: float) -> Permit:
    """`known`: the log index as of which this node knows the state. `watched`: the fence is at work. `lease`: its full length, seconds."""
    if chain is None or not chain.lasts(now):
        return Permit("this node has no lease: the leader does not answer it", "this node has no lease: the leader does not answer it")
    if not watched:
        return Permit(held="the fence does not run on this node (systemctl restart hypermesh-fence)", lease=chain.index)
    if known < chain.index:
        return Permit(held="what was decided while this node had no lease is not known here yet", lease=chain.index)
    if chain.until - now < ENOUGH * lease:
        return Permit(held="the leader does not answer this node", lease=chain.index)
    return Permit(lease=chain.index)
