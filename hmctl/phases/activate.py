"""`current` onto the new release: one rename, so that there is always exactly one. Older releases go, but for the one before."""

from __future__ import annotations

from dataclasses import dataclass

from hmctl import layout
from hmctl.phases.base import Say, Target
from hmctl.remote.base import Remote, Script, check

# Arguments: the link, the releases' directory, the digest, the digest to keep beside it (may be empty). What is deleted loses its name
# first, so that half a release is never taken for one; nobody waits for slow disks, and what stays behind goes with the next upload.
SWITCH = Script(
    "hm-switch",
    'set -e; ln -sfn -- "releases/$3" "$1.hm-new"; mv -T -- "$1.hm-new" "$1"; '
    'for d in "$2"/*; do case "${d##*/}" in "$3"|"$4") ;; *) mv -T -- "$d" "$2/.${d##*/}.partial";; esac; done; '
    'rm -rf -- "$2"/.*.partial </dev/null >/dev/null 2>&1 &',
)


@dataclass(frozen=True, slots=True)
class SwitchRelease:
    title = "Switch release"
    doing = "switching to the release"

    def plan(self, target: Target) -> tuple[str, ...]:
        release, current = target.desired.release, target.facts.agent.current
        if current == release.digest:
            return ()
        return (f"switch to release {release.short}{f' (now {current[:12]})' if current else ''}",)

    async def run(self, target: Target, remote: Remote, say: Say) -> str | None:
        digest, current = target.desired.release.digest, target.facts.agent.current
        await check(remote, SWITCH.argv(layout.CURRENT, layout.RELEASES, digest, current or ""), timeout=60.0)
        return None

    async def undo(self, target: Target, remote: Remote) -> None:
        """One rename: it happened, or it did not."""
