"""hmctl completion: the script that makes a shell complete hmctl's commands and options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def command(
    shell: Annotated[Shell, typer.Argument(help="The shell that you use.")],
) -> None:
    """Print the completion script of your shell.

    For bash: hmctl completion bash > ~/.local/share/bash-completion/completions/hmctl
    """
    from typer._completion_shared import get_completion_script  # typer has no public name for it

    from hmctl.cli.main import COMPLETING, PROGRAM

    typer.echo(get_completion_script(prog_name=PROGRAM, complete_var=COMPLETING, shell=shell.value))
