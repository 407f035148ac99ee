"""The release onto the host. Never touches `current`: switching is another phase's business."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hmcore.errors import CommandFailed, ReleaseError
from hmctl import layout
from hmctl.phases.base import Say, Target
from hmctl.remote.base import Remote, Script, check
from hmctl.text import size

_TIMEOUT = 600.0  # seconds: 18 MB over a thin line

# Unpacked while it arrives, beside its final place, tried by the node's own Python, and only then renamed: a release is whole and runs
# here, or does not exist. Flushed first, or a power cut could leave the name without the content.
UNPACK = Script(
    "hm-unpack",
    'set -e; umask 022; export LC_ALL=C; r="$1"; d="$r/.$2.partial"; py="$3"; mkdir -p -- "$r"; rm -rf -- "$r"/.*.partial; '
    'trap \'rm -rf -- "$d"\' EXIT; mkdir -- "$d"; tar -xzf - -C "$d" --no-same-owner; '
    'if [ "$4" = compile ]; then "$py" -m compileall -q --invalidation-mode unchecked-hash "$d" </dev/null >/dev/null; fi; '
    'cd /; PYTHONPATH="$d" "$py" -P -B -m node_agent check-release </dev/null >/dev/null; '
    'sync -f "$d"; mv -T -- "$d" "$r/$2"; trap - EXIT',
)
FULL = "No space left on device"  # strerror(ENOSPC), as every program says it in the C locale
_AFTERTHOUGHT = re.compile(r"tar: (Exiting with failure|Error is not recoverable|Child returned)")
DISCARD = Script("hm-discard", 'rm -rf -- "$1"/.*.partial')


def telling(stderr: str) -> str:
    """The line that names the cause: the last one, as of a traceback, but for what tar adds once it gives up. Pure."""
    said = [line for line in stderr.strip().splitlines() if not _AFTERTHOUGHT.match(line)]
    return said[-1] if said else ""


@dataclass(frozen=True, slots=True)
class UploadRelease:
    title = "Upload release"
    doing = "uploading the release"

    def plan(self, target: Target) -> tuple[str, ...]:
        release = target.desired.release
        if release.digest in target.facts.agent.releases:
            return ()
        return (f"upload release {release.short} ({size(release.size)})",)

    async def run(self, target: Target, remote: Remote, say: Say) -> str | None:
        release, python = target.desired.release, target.facts.python
        if python is None:
            raise ValueError(f"{target.name} passed preflight without Python")
        how = "as-it-is" if release.compiled else "compile"
        total = size(release.size)

        def sent(count: int) -> None:
            say(f"{size(count)} of {total}" if count < release.size else "unpacking and trying it")

        argv = UNPACK.argv(layout.RELEASES, release.digest, python.executable, how)
        try:
            await check(remote, argv, stdin=release.archive, timeout=_TIMEOUT, sent=sent)
        except CommandFailed as error:
            reason = telling(error.stderr) or f"status {error.status}"
            raise ReleaseError(
                f"release {release.short} cannot be unpacked and run there: {reason}",
                host=target.name,
                fix=f"make room on {target.name}: journalctl --vacuum-size=100M; docker system prune" if FULL in reason else None,
            ) from None
        return None

    async def undo(self, target: Target, remote: Remote) -> None:
        await check(remote, DISCARD.argv(layout.RELEASES), timeout=30.0)
