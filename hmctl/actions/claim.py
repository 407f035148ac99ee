"""The cluster's lock `deploy`: one operator at a time changes the hosts of a cluster, from whichever machine (docs/adr/0074).

The locks on the hosts (hmctl/phases/hostlock.py) protect each host; this one tells the second operator at once who is at work, since when
and what for. A cluster that cannot give it must not keep anybody from repairing it: then the hosts' locks are all there is, as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType

from hmcore.errors import HyperMeshError, InvalidRequest, LockHeld, LockUnavailable
from hmcore.lease import Lease
from hmcore.locks import HeldLock
from hmctl.text import duration

NAME = "deploy"
PATIENCE = 6.0  # seconds for the cluster to give the lock: an election fits in, and a repair does not wait long

Hold = Callable[[Callable[[HeldLock], None]], AbstractAsyncContextManager[Lease]]  # gets what is to be called of each other holder


class Claim:
    """Of one run of a command. `hold` takes the lock; None: there is no cluster to ask, as in tests."""

    def __init__(
        self,
        hold: Hold | None = None,
        *,
        wait: float = 0.0,
        say: Callable[[str], None] = lambda words: None,
        warn: Callable[[str], None] = lambda words: None,
    ) -> None:
        """`wait`: seconds that `hold` waits for another holder."""
        self.wait = wait
        self._hold = hold
        self._say = say
        self._warn = warn
        self._stack = AsyncExitStack()
        self._asked = False
        self._lease: Lease | None = None

    async def __aenter__(self) -> Claim:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    async def take(self) -> None:
        """Harmless if it was tried already. Raises LockHeld, saying who is at work."""
        if self._asked or self._hold is None:
            return
        self._asked = True
        try:
            self._lease = await self._stack.enter_async_context(self._hold(self._waiting))
        except LockHeld as error:
            raise LockHeld(f"{words(error.held)}; nothing was changed", held=error.held, fix=self._fix(error.held)) from error
        except (LockUnavailable, InvalidRequest):  # an older release, or not yet: the hosts' locks are what that has
            return
        except HyperMeshError as error:
            self._warn(f"going on without the cluster's lock, which nobody gives now ({error.message}): only the hosts are locked")

    def check(self) -> None:
        """Raises LeaseLost if the lock was ours and is so no longer. Before each step that changes anything."""
        if self._lease is not None:
            self._lease.check()

    @property
    def lost(self) -> bool:
        return self._lease is not None and not self._lease.held

    def abandon(self) -> None:
        """The cluster that gave it is about to end, and the lock with it: it is neither renewed nor given back."""
        if self._lease is not None:
            self._lease.lose("the cluster ends")
            self._lease = None

    def _waiting(self, other: HeldLock) -> None:
        if self.wait:
            self._say(f"{words(other)}; waiting up to {duration(self.wait)} until it is done")

    def _fix(self, other: HeldLock) -> str:
        more = "wait longer" if self.wait else "wait until it is done, with --lock-wait SECONDS"
        return f"{more}; if it has died, its lock ends within {other.lock.ttl:g} s (hmctl lock status)"


def words(other: HeldLock) -> str:
    """Who holds it, since when and what for."""
    lock = other.lock
    since = time.strftime("%H:%M:%S", time.localtime(lock.unix_time))
    return f"{lock.holder} is changing this cluster (`hmctl {lock.note or NAME}`, since {since})"
