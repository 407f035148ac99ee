"""Who is busy with what, while a lab comes up. The command line's own Progress (hmctl/live.py) has this shape."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def update(self, key: str, text: str, *, detail: str = "") -> None: ...

    def finish(self, key: str, text: str) -> None: ...


class Silent:
    """For callers that show nothing."""

    def update(self, key: str, text: str, *, detail: str = "") -> None:
        return

    def finish(self, key: str, text: str) -> None:
        return
