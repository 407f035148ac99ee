"""`python -m node_agent.container.fencing [FOLDER]`: the fence, until SIGTERM. Standard library only, and all of it imported at the start:
the release that it came from may be gone when it matters."""

from __future__ import annotations

import ctypes
import signal
import sys
from pathlib import Path

from node_agent.container.fencing.fence import FOLDER, Fence, say
from node_agent.container.fencing.killing import Killer, unified_tree
from node_agent.container.fencing.lease import boot_clock, boot_id
from node_agent.notify import notify

_TOUCHED = 7  # MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT, mlockall(2)
_STOP = (signal.SIGTERM, signal.SIGINT)


def main(arguments: list[str]) -> int:
    root = Path(arguments[0]) if arguments else FOLDER
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    if ctypes.CDLL(None).mlockall(_TOUCHED) != 0:
        say("its memory cannot be kept from being swapped: a machine short of memory may delay it")
    fence = Fence(root, boot_id(), Killer(tree=unified_tree(Path("/proc/self/mounts").read_text())), boot_clock, say)
    pause = fence.round()
    notify("READY=1")
    while signal.sigtimedwait(_STOP, pause) is None:
        pause = fence.round()
        notify("WATCHDOG=1")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
