"""What deploy, config apply and reset have in common: the cluster's lock, and how long to wait for it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from hmctl.cli.context import Context

if TYPE_CHECKING:
    from collections.abc import Callable

    from hmcore.lease import Lease
    from hmcore.locks import HeldLock
    from hmctl.actions.claim import Claim

LockWait = Annotated[
    float,
    typer.Option(
        "--lock-wait",
        min=0.0,
        metavar="SECONDS",
        help="How long to wait while another operator changes this cluster.  [default: 0]",
        show_default=False,
    ),
]


def claim(context: Context, doing: str, wait: float) -> Claim:
    """The lock for one run of `doing`, for the inventory in use. Nothing is asked before it is taken."""
    from hmctl.actions.claim import NAME, PATIENCE, Claim

    inventory = context.inventory(warn=False)
    store = context.store(inventory)

    def hold(waiting: Callable[[HeldLock], None]) -> AbstractAsyncContextManager[Lease]:
        from hmctl.actions.locks import lock

        return lock(inventory, store, NAME, note=doing, wait=wait, patience=PATIENCE, waiting=waiting)

    return Claim(hold, wait=wait, say=context.output.note, warn=context.output.warn)
