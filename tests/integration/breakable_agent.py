"""An agent like any other, but that components fail their health check while the file `broken`, beside its agent.yaml, names them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from node_agent.__main__ import main
from node_agent.platform.lifecycle import Component, Managed


def make_breakable(broken: Path) -> None:
    genuine = Managed.__init__

    def is_broken(name: str) -> bool:
        return broken.exists() and name in broken.read_text().split()

    def init(self: Managed, component: Component, **options: Any) -> None:
        check = component.check

        async def judged() -> Any:
            if is_broken(component.name):
                raise RuntimeError("broken by a test")
            return await check()

        component.check = judged  # type: ignore[method-assign]
        genuine(self, component, **options)

    Managed.__init__ = init  # type: ignore[method-assign]


if __name__ == "__main__":
    make_breakable(Path(sys.argv[-1]).with_name("broken"))
    sys.exit(main())
