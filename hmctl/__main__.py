"""The program: the console script `hmctl`, and `python -m hmctl`."""

from __future__ import annotations

import gc
import sys

GARBAGE = 200_000  # objects made before any are looked at again; asking a few agents makes 90,000, nearly all of them imports


def main() -> None:
    """Runs hmctl and ends the process.

    A command lives for seconds, and then everything goes. Looking for garbage among all that was imported, and among hundreds of
    connections, finds next to none: it is hardly done while we run, and at the end not at all (docs/adr/0065).
    """
    gc.set_threshold(GARBAGE, 50, 100)
    from hmctl.cli.main import run

    status = run(sys.argv[1:])
    gc.freeze()  # the interpreter looks three times before it ends; what is frozen it passes over
    sys.exit(status)


if __name__ == "__main__":
    main()
