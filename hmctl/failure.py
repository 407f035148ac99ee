"""An exception as an operator reads it: what failed, where, why (each cause once), and the command that mends it; and its exit code."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from hmcore.errors import ConfigError, HyperMeshError
from hmctl.text import printable

MOST_PROBLEMS = 50  # of a document: past that, one root mistake explains the rest


def explain(error: BaseException) -> list[str]:
    """Lines without a prefix. The first says what failed and where; `  why:` and `  fix:` follow."""
    leaves = list(_leaves(error))
    return [printable(line) for leaf in leaves for line in _explain_one(leaf)]


def exit_code(error: BaseException) -> int:
    """The code of design section 10. Several failures at once that disagree on it are simply a failure."""
    codes = {leaf.exit_code if isinstance(leaf, HyperMeshError) else 1 for leaf in _leaves(error)}
    return codes.pop() if len(codes) == 1 else 1


def is_expected(error: BaseException) -> bool:
    """Whether all that failed is in our own tree: anything else is a bug, or a condition that nobody thought of."""
    return all(isinstance(leaf, HyperMeshError) for leaf in _leaves(error))


def surroundings(error: BaseException) -> HyperMeshError | None:
    """What is no mistake of ours, though nobody catches it: a disk without room, a terminal or file that cannot take our characters."""
    leaves = list(_leaves(error))
    full = [leaf for leaf in leaves if isinstance(leaf, OSError) and leaf.errno in (errno.ENOSPC, errno.EDQUOT)]
    mute = [leaf for leaf in leaves if isinstance(leaf, UnicodeEncodeError)]
    if full and len(full) == len(leaves):
        where = f"{full[0].filename} cannot be written" if full[0].filename else "not everything could be written"
        return HyperMeshError(
            f"{where}: {(full[0].strerror or 'the disk is full').lower()}",
            fix="make room where it goes (df -h says where), and run it again",
        )
    if mute and len(mute) == len(leaves):
        said = mute[0].object[mute[0].start : mute[0].start + 1].encode("unicode_escape").decode()
        message = f"the output's encoding, {mute[0].encoding}, has no {said}"
        return HyperMeshError(message, fix="set PYTHONIOENCODING=utf-8, or a locale that has it: LC_ALL=C.UTF-8")
    return None


def is_broken_pipe(error: BaseException) -> bool:
    """Whether all that happened is that nobody reads on, as in `hmctl logs | head`."""
    return all(isinstance(leaf, BrokenPipeError) for leaf in _leaves(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """What a TaskGroup bundles, one by one."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _explain_one(error: BaseException) -> Iterator[str]:
    if isinstance(error, ConfigError) and isinstance(error.__cause__, OSError):  # there is no document that could be mistaken
        yield from map(str, error.problems)
    elif isinstance(error, ConfigError) and error.problems:
        count = sum(not problem.warning for problem in error.problems)
        yield f"{count} mistake{'' if count == 1 else 's'} in the configuration; nothing was done"
        for problem in error.problems[:MOST_PROBLEMS]:
            yield f"  {problem.marked}"
        if len(error.problems) > MOST_PROBLEMS:
            yield f"  and {len(error.problems) - MOST_PROBLEMS} more"
        if error.unfinished:
            yield "  more may be found once these are mended"
    else:
        said = str(error) if isinstance(error, HyperMeshError) else f"{type(error).__name__}: {error}".rstrip(": ")
        yield said
        for cause in _causes(error):
            if cause not in said:  # a layer that repeats its cause in its own words says it once
                said += cause
                yield f"  why: {cause}"
    if isinstance(error, HyperMeshError) and (fix := _fix(error)):
        yield f"  fix: {fix}"


def _causes(error: BaseException) -> Iterator[str]:
    """The chain that `raise ... from` made, outermost first."""
    cause = error.__cause__
    while cause is not None:
        for leaf in _leaves(cause):
            if said := leaf.message if isinstance(leaf, HyperMeshError) else _reason(leaf):
                yield said
        cause = cause.__cause__


def _reason(error: BaseException) -> str:
    """What a library or the system said, without Python's decorations. Nothing of a deadline: the layer above it said that in its words."""
    from asyncio import CancelledError  # costs `hmctl --help` too much

    if isinstance(error, CancelledError) or (isinstance(error, TimeoutError) and not str(error)):
        return ""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return str(error).strip() or type(error).__name__


def _fix(error: HyperMeshError) -> str | None:
    """The error's own fix, or that of the nearest cause that knows one."""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, HyperMeshError) and current.fix:
            return current.fix
        current = current.__cause__
    return None
