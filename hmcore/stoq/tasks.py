"""Owns the tasks of things whose life is not a `with` block: a connection lives until it is closed or lost, whoever made it.

This is the one place of the project that starts a task outside a TaskGroup: the task that holds the group.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any


class TaskScope:
    """A TaskGroup that can be entered without waiting. Its first failing task cancels the others and is reported once."""

    def __init__(self, name: str, on_failure: Callable[[BaseException], None]) -> None:
        self._name = name
        self._on_failure = on_failure
        self._root: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._queued: list[tuple[str, Coroutine[Any, Any, None], Callable[[asyncio.Task[None]], None] | None]] = []
        self._closed = False

    def spawn(self, name: str, work: Coroutine[Any, Any, None], started: Callable[[asyncio.Task[None]], None] | None = None) -> None:
        """Run `work` as a task called `name`; `started` gets the task as soon as it exists. Dropped when the scope is closed."""
        if self._closed:
            work.close()
        elif self._group is not None:
            self._start(self._group, name, work, started)
        else:
            self._queued.append((name, work, started))
            if self._root is None:
                self._root = asyncio.get_running_loop().create_task(self._run(), name=self._name)

    def cancel(self) -> None:
        """Cancel every task. A task may call this for its own scope: it is cancelled too."""
        self._closed = True
        for _, work, _ in self._queued:
            work.close()
        self._queued.clear()
        if self._root is not None:
            self._root.cancel()

    async def wait(self) -> None:
        """Until every task has ended after `cancel`."""
        if self._root is not None and asyncio.current_task() is not self._root:
            await asyncio.wait([self._root])

    def _start(
        self,
        group: asyncio.TaskGroup,
        name: str,
        work: Coroutine[Any, Any, None],
        started: Callable[[asyncio.Task[None]], None] | None,
    ) -> None:
        task = group.create_task(work, name=name)
        if started is not None:
            started(task)

    async def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # cancelled only by `cancel`: nobody else holds this task
            try:
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    for name, work, started in self._queued:
                        self._start(group, name, work, started)
                    self._queued.clear()
                    await asyncio.get_running_loop().create_future()  # until cancelled
            except BaseExceptionGroup as failures:
                self._closed = True
                self._on_failure(failures)
            finally:
                self._group = None
                self._closed = True


def cause(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """What failed first of the tasks of a group: the others were cancelled for it."""
    first: BaseException = failures
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
