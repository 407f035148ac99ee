"""Everything that deploy put on a host, off it again. Each part may be gone already: a reset that was cut short is simply run again."""

from __future__ import annotations

from dataclasses import dataclass

from hmctl import layout
from hmctl.facts.agent import Agent
from hmctl.phases.base import Known, Say
from hmctl.remote.base import Remote, Script, check

_DIRECTORIES = (layout.OPT, layout.ETC, layout.STATE, layout.RUN)
_TIMEOUT = 120.0  # seconds: stopping takes up to 15, deleting what a slow disk takes

# An agent that does not stop within systemd's own limit is killed by it. The lock's file goes last: until then we hold it.
REMOVE = Script(
    "hm-remove",
    'set -e; unit="$1"; file="$2"; wrapper="$3"; lock="$4"; slice="$5"; slicefile="$6"; pins="$7"; cgroups="$8"; shift 8; '
    'if [ -e "$file" ] || systemctl is-active -q "$unit"; then '
    'systemctl disable --quiet --now "$unit" 2>/dev/null || systemctl stop "$unit"; fi; '
    # Stopping a slice would stop the containers in it. What is pinned stays in the kernel until the pins go.
    '[ ! -e "$slicefile" ] || ls -d "$cgroups/$slice"/*/ >/dev/null 2>&1 || systemctl stop "$slice" 2>/dev/null || true; '
    'rm -rf -- "$file" "$file.d" "$wrapper" "$slicefile" "$slicefile.d" "$pins"; '
    'rmdir "$cgroups/hypermesh" "$cgroups/unified/hypermesh" 2>/dev/null || true; '
    'systemctl daemon-reload; systemctl reset-failed "$unit" 2>/dev/null || true; '
    'rm -rf -- "$@" "$lock"',
)
# Without its lease the fence ends what is exclusive here: the cluster will start it elsewhere. It goes once all gates are shut and what
# follows from that is done.
UNFENCE = Script(
    "hm-unfence",
    'unit="$1"; file="$2"; folder="$3"; agent="$4"; [ -e "$file" ] || exit 0; systemctl stop "$agent" 2>/dev/null; set -e; '
    'rm -f "$folder/lease"; if [ -n "$(ls -A "$folder/open" 2>/dev/null)" ]; then systemctl start "$unit"; '
    'for i in $(seq 50); do [ -n "$(ls -A "$folder/open")" ] || break; sleep 0.1; done; '
    '[ -z "$(ls -A "$folder/open")" ] || { echo "the fence does not end the exclusive containers here" >&2; exit 1; }; fi; '
    'systemctl stop "$unit"; rm -rf -- "$file" "$file.d"',
)
# What apps were made of here: their containers, and the network. Named volumes stay: they hold data. Docker may be gone, or stopped.
UNRUN = Script(
    "hm-unrun",
    'agent="$1"; systemctl stop "$agent" 2>/dev/null; set -e; '
    "if docker info >/dev/null 2>&1; then ids=$(docker ps -aq --filter label=hypermesh.allocation); "
    '[ -z "$ids" ] || docker rm --force --volumes $ids >/dev/null; '
    "! docker network inspect hypermesh >/dev/null 2>&1 || docker network rm hypermesh >/dev/null; fi; "
    "nft delete table ip hm_net 2>/dev/null || true; ip link del hmvx 2>/dev/null || true; ip route flush proto 210 2>/dev/null || true; "
    "if command -v iptables >/dev/null && iptables -D DOCKER-USER -j HM-FORWARD 2>/dev/null; then "
    "iptables -F HM-FORWARD; iptables -X HM-FORWARD; fi",
)
PURGE = Script(
    "hm-purge",
    # A name may stand on the list although it never came: deploy was killed between writing it down and installing it.
    'set -e; export DEBIAN_FRONTEND=noninteractive LC_ALL=C; ours=; for p in "$@"; do '
    "state=$(dpkg-query -W -f '${db:Status-Status}' \"$p\" 2>/dev/null) || continue; "
    '[ "$state" = not-installed ] || ours="$ours $p"; done; [ -n "$ours" ] || exit 0; '
    "apt-get -qq -o DPkg::Lock::Timeout=120 purge -y $ours >/dev/null; apt-get -qq autoremove --purge -y >/dev/null",
)


def losses(agent: Agent) -> tuple[str, ...]:
    """What a reset takes from this host, in words; empty when nothing of ours is there. Pure."""
    if not agent.traces:
        return ()
    lost = []
    if agent.unit.loaded or agent.unit_file:
        lost.append(f"stop and remove {layout.UNIT}, and all containers of apps here (their named volumes stay)")
    if agent.journal:
        lost.append(f"delete {layout.STATE} with its part of the cluster's state")
    elif layout.STATE in agent.present:
        lost.append(f"delete {layout.STATE}")
    if layout.ETC in agent.present:
        lost.append(f"delete {layout.ETC} with {'its key and certificate' if agent.key else 'its configuration'}")
    if layout.OPT in agent.present:
        lost.append(f"delete {layout.OPT} ({len(agent.releases)} release{'' if len(agent.releases) == 1 else 's'})")
    if agent.wrapper:
        lost.append(f"delete {layout.WRAPPER}")
    return tuple(lost)


@dataclass(frozen=True, slots=True)
class RemoveAll:
    """`packages`: also those that deploy installed."""

    packages: bool
    title = "Remove"
    doing = "removing the agent"

    def plan(self, target: Known) -> tuple[str, ...]:
        agent = target.facts.agent
        purge = (f"purge the packages that deploy installed: {', '.join(agent.packages)}",) if self.packages and agent.packages else ()
        return purge + losses(agent)

    async def run(self, target: Known, remote: Remote, say: Say) -> str | None:
        agent = target.facts.agent
        if self.packages and agent.packages:  # first: the list of them goes with the rest
            say("packages")
            await check(remote, PURGE.argv(*agent.packages), timeout=900.0)
        await check(remote, UNFENCE.argv(layout.FENCE, layout.FENCE_FILE, layout.FENCING, layout.UNIT), timeout=_TIMEOUT)
        if agent.traces:
            await check(remote, UNRUN.argv(layout.UNIT), timeout=_TIMEOUT)
        ours = (layout.UNIT, layout.UNIT_FILE, layout.WRAPPER, layout.LOCK, layout.SLICE, layout.SLICE_FILE, layout.PINS)
        argv = REMOVE.argv(*ours, "/sys/fs/cgroup", *_DIRECTORIES)
        await check(remote, argv, timeout=_TIMEOUT)
        return None

    async def undo(self, target: Known, remote: Remote) -> None:
        """What is removed is removed; running it again removes the rest."""
