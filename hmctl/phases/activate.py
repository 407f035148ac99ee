"""`current` onto the new release: one rename, so that there is always exactly one. Older releases go, but for the one before."""

from __future__ import annotations

from dataclasses import dataclass

from hmctl import layout
from hmctl.phases.base import Say, Target
from hmctl.remote.base import Remote, Script, check

# Arguments: the link, the release's directory, its digest, the digest to keep beside it (may be empty).
SWITCH = Script(
    "hm-switch",
    'set -e; ln -sfn -- "releases/$3" "$1.hm-new"; mv -T -- "$1.hm-new" "$1"; '
    'for d in "$2"/*; do case "${d##*/}" in "$3"|"$4") ;; *) rm -rf -- "$d";; esac; done',
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
