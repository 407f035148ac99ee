"""The fence: shuts all gates once the node's lease has ended, and kills what has passed them. Decides nothing else, and asks nobody.

It never trusts its own memory: each round reads the lease and the gates anew, so that a fence that was started again, or stood still, does
what one does that has run all along. Standard library only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node_agent.container.fencing import lease
from node_agent.container.fencing.gates import Gates
from node_agent.container.fencing.killing import Killer

FOLDER = Path("/run/hypermesh/fence")
LEASE, BEAT = "lease", "beat"  # files in it: the agent's word, and the fence's
AWAKE = 0.25  # seconds between two rounds while there are gates
ASLEEP = 1.0  # the same while there are none; less than the half of any lease, which is what a gate is opened with
AGAIN = 0.05  # the same while something that was killed is still there
LATE = 2.0  # the same once nothing is left behind gates that are shut
QUICK = 20  # rounds in a row of AGAIN, before AWAKE has to do: what does not die now waits for a disk


@dataclass(slots=True)
class Fence:
    """`root`: FOLDER. `boot`: the id of the boot. `say`: for the journal."""

    root: Path
    boot: str
    killer: Killer
    clock: Callable[[], float]
    say: Callable[[str], None]
    stubborn: int = 0
    checked: float = -LATE

    def round(self) -> float:
        """Returns in how many seconds the next one is due."""
        gates = Gates(self.root)
        rest = self._rest()
        if rest <= 0 and gates.shut():
            self.say("the lease of this node has ended: its exclusive containers are killed")
            self.stubborn, self.checked = 0, -LATE
        self._beat()
        pause = self._clear(gates)
        if pause is None:
            pause = AWAKE if gates.any else ASLEEP
        return min(pause, rest) if rest > 0 else pause

    def _clear(self, gates: Gates) -> float | None:
        """Kill what is listed behind gates that are shut. When to look again; None: whenever."""
        listed = gates.listed(shut=True)
        if not listed or self.clock() < self.checked + LATE:
            return None
        killed, gone = self.killer.kill(listed)
        if killed and not self.stubborn:
            self.say(f"killed {killed} processes of {len(listed)} containers")
        if gone:
            self.stubborn, self.checked = 0, self.clock()
            return None
        self.stubborn += 1
        if self.stubborn == QUICK:
            self.say("some processes of exclusive containers do not die: do they wait for a disk?")
        return AGAIN if self.stubborn < QUICK else AWAKE

    def _rest(self) -> float:
        """Seconds left of the lease. What cannot be read is none: rather no replica than two."""
        try:
            content = (self.root / LEASE).read_bytes()
        except OSError:
            return 0.0
        found = lease.parse(content)
        return 0.0 if found is None else found.rest(self.boot, self.clock())

    def _beat(self) -> None:
        """Tell the agent that somebody watches."""
        try:
            self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
            beside = self.root / f"{BEAT}.new"
            beside.write_bytes(lease.encode(lease.Lease(self.boot, self.clock())))
            os.replace(beside, self.root / BEAT)
        except OSError as error:
            self.say(f"{self.root / BEAT} cannot be written: {error.strerror}")


def watched(root: Path, boot: str, now: float) -> bool:
    """Whether a fence has been at work within the last seconds."""
    try:
        beat = lease.parse((root / BEAT).read_bytes())
    except OSError:
        return False
    return beat is not None and beat.boot == boot and -1.0 <= now - beat.until <= 3.0


def boot_of(root: Path) -> str:
    """What the fence calls this boot; empty while none is at work. Where the machine is a container itself (systemd-nspawn), a unit with
    its own /proc is told another boot id than the rest."""
    try:
        beat = lease.parse((root / BEAT).read_bytes())
    except OSError:
        return ""
    return "" if beat is None else beat.boot


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
