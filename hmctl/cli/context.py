"""What every command gets: the operator's choices, the inventory on demand, and where to write.

A command module has either `app = group("what the group is for")` with `@app.command()` functions, or one function `command`.
Each takes `ctx: typer.Context` and asks `current(ctx)`. A command returns None, or its exit code.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from hmcore.errors import ConfigError, UsageError
from hmctl.output import Output

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory
    from hmctl.state import OperatorStore

T = TypeVar("T")

EPILOG = "Also -i FILE, -o table|json|yaml, -q, -v: see hmctl --help."
DEFAULT_INVENTORY = "cluster.yaml"
VARIABLE = "HMCTL_INVENTORY"


@dataclass(frozen=True)
class Context:
    """`inventory_path` is what -i said, if anything."""

    inventory_path: str | None
    output: Output
    verbose: bool
    environ: Mapping[str, str]

    def inventory(self, *, warn: bool = True) -> Inventory:
        """The inventory named by -i, $HMCTL_INVENTORY or ./cluster.yaml. Raises UsageError, ConfigError.

        Its warnings are said, unless the command only looks (`warn=False`): those who look often have read them.
        """
        from hmcore.config.inventory import load_inventory

        file = self.inventory_file()
        try:
            inventory, warnings = load_inventory(file, self.environ)
        except ConfigError as error:
            if self.inventory_path is None and file == self.environ.get(VARIABLE) and isinstance(error.__cause__, OSError):
                raise _named_by_variable(error) from error.__cause__
            raise
        for warning in warnings if warn or self.verbose else ():
            self.output.warn(str(warning))
        return inventory

    def inventory_file(self) -> str:
        """Its path, or "-" for stdin. Raises UsageError when none is named and there is no ./cluster.yaml."""
        named = self.inventory_path or self.environ.get(VARIABLE)
        if named is None and not Path(DEFAULT_INVENTORY).exists():
            raise UsageError(
                f"which cluster? There is no {DEFAULT_INVENTORY} here, and neither -i nor $HMCTL_INVENTORY names an inventory",
                fix="hmctl -i FILE ..., or write one: hmctl init HOST..., or hmctl lab up",
            )
        return named or DEFAULT_INVENTORY

    def store(self, inventory: Inventory) -> OperatorStore:
        """What the operator keeps for this cluster: CA, certificate, known hosts."""
        from hmctl.state import OperatorStore

        return OperatorStore.open(inventory.id)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Runs a command's async part. The first Ctrl-C cancels it, so that it can clean up; the second leaves at once. So does the end of
        the terminal that it runs in, or of the machine, but for the second: those come in pairs, from the kernel and from the shell."""
        import asyncio
        import signal
        import threading

        async def stoppable() -> T:
            task, loop = asyncio.current_task(), asyncio.get_running_loop()

            def stop() -> None:
                if task is not None and not task.cancelling():
                    task.cancel()

            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGTERM, signal.SIGHUP):
                    if signal.getsignal(number) is signal.SIG_DFL:  # nohup has SIGHUP ignored
                        loop.add_signal_handler(number, stop)
            return await main

        with asyncio.Runner() as runner:
            try:
                return runner.run(stoppable())
            except asyncio.CancelledError:
                raise KeyboardInterrupt from None

    def run_until_interrupted(self, main: Coroutine[Any, Any, int]) -> int:
        """The same for what goes on until Ctrl-C: that is its proper end, and no failure."""
        try:
            return self.run(main)
        except KeyboardInterrupt:
            self.output.note()  # the terminal has drawn ^C
            return 0


def _named_by_variable(error: ConfigError) -> ConfigError:
    """`error`, of a file that cannot be read, for somebody who may have forgotten what the shell still holds."""
    problems = tuple(replace(problem, message=f"{problem.message} (named by ${VARIABLE})") for problem in error.problems)
    fix = f"`hmctl init HOST...` or `hmctl lab up` writes one; -i names another file, and `unset {VARIABLE}` takes ./{DEFAULT_INVENTORY}"
    return ConfigError(problems, fix=fix)


def current(ctx: typer.Context) -> Context:
    """The context that main.py made for this run."""
    found = ctx.find_object(Context)
    if found is None:
        raise RuntimeError("a command ran outside hmctl's main()")
    return found


def group(help: str) -> typer.Typer:
    """A command group with the settings that all of them share. Plain help: drawing it with rich costs 0.1 s."""
    return typer.Typer(
        help=help, epilog=EPILOG, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )
