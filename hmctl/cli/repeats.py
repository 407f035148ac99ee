"""Options that take one value and are given twice: the parser would keep the last and say nothing."""

from __future__ import annotations

from typing import Any

from hmcore.errors import UsageError


def refusing_repeats(parser: Any, ctx: Any) -> Any:
    """`parser` (the one that a command of typer makes for each parse), which from now on raises UsageError for such an option."""
    parse = parser.parse_args

    def parse_args(args: list[str]) -> Any:
        options, rest, order = parse(args)
        if not ctx.resilient_parsing:  # a shell that completes words
            _check(order, ctx)
        return options, rest, order

    parser.parse_args = parse_args
    return parser


def _check(order: list[Any], ctx: Any) -> None:
    single = [one for one in order if one.param_type_name == "option" and not (one.multiple or one.count or one.is_flag)]
    for option in single:
        if single.count(option) > 1:
            name = max(option.opts, key=len)
            raise UsageError(f"{name} is given twice, and takes one value", fix=f"give {name} once; {ctx.command_path} --help says more")
