"""An agent like any other, but that its wall clock is as many seconds ahead (or behind) as the file `clock`, beside its agent.yaml, says.

All of the process lives by that clock, libraries included: it is changed before anything else is imported. Monotonic clocks are real.
"""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path
from typing import Any, Self


def shift_the_clock(file: Path) -> None:
    genuine_time, genuine = time.time, datetime.datetime

    def ahead() -> float:
        return float(file.read_text()) if file.exists() else 0.0

    class Alike(type):
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, genuine)

    class Shifted(genuine, metaclass=Alike):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Self:
            return cls.fromtimestamp(genuine_time() + ahead(), tz)

    time.time = lambda: genuine_time() + ahead()
    datetime.datetime = Shifted  # type: ignore[misc]


if __name__ == "__main__":
    shift_the_clock(Path(sys.argv[-1]).with_name("clock"))
    from node_agent.__main__ import main

    sys.exit(main())
