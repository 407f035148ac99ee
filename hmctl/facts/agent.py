"""What of ours is on the host already: files, releases, the unit, and what the running agent was started with."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from hmctl import layout
from hmctl.facts.base import Topic, content, decimal, number, pairs

_FILES = {
    "config": layout.CONFIG,
    "ca": layout.CA,
    "certificate": layout.CERTIFICATE,
    "unit": layout.UNIT_FILE,
    "wrapper": layout.WRAPPER,
    "slice": layout.SLICE_FILE,
    "fence": layout.FENCE_FILE,
    "packages": layout.PACKAGES,
    "tried": layout.TRIED,
}
_PROPERTIES = "LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload,MainPID,ActiveEnterTimestampMonotonic,NRestarts,Result"

# One word for all that deploy may change: whether a host still is as it was when the plan was made.
FINGERPRINT = (
    f"{{ cat {' '.join(list(_FILES.values())[:7])}; ls -A {layout.RELEASES}; readlink {layout.CURRENT}; }} 2>/dev/null"
    " | sha256sum | cut -d ' ' -f 1"
)

COMMAND = f"""
for f in {" ".join(f"{name}:{path}" for name, path in _FILES.items())}; do
  [ -f "${{f#*:}}" ] && echo "file_${{f%%:*}}=$(base64 -w 0 "${{f#*:}}")"
done
[ -f {layout.KEY} ] && echo key=yes
[ -n "$(ls -A {layout.JOURNAL} 2>/dev/null)" ] && echo journal=yes
for d in {layout.OPT} {layout.ETC} {layout.STATE}; do [ -e "$d" ] && echo "present=$d"; done
ls -A {layout.RELEASES} 2>/dev/null | sed 's/^/release=/'
echo "current=$(readlink {layout.CURRENT})"
systemctl show {layout.UNIT} -p {_PROPERTIES} 2>/dev/null
sed 's/^/started=/' {layout.STARTED} 2>/dev/null
echo "fingerprint=$({FINGERPRINT})"
echo "uptime=$(cut -d ' ' -f 1 /proc/uptime)"
"""

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Unit:
    """The systemd unit as systemd sees it."""

    loaded: bool = False
    active: str = "inactive"  # active | reloading | inactive | failed | activating | deactivating
    enabled: bool = False
    stale: bool = False  # changed on disk since systemd read it
    pid: int | None = None
    up_seconds: float | None = None
    restarts: int = 0
    result: str = ""

    @property
    def running(self) -> bool:
        return self.active == "active"


@dataclass(frozen=True, slots=True)
class Agent:
    """Contents are None when the file is not there. `started` maps each file that the agent read at its start to its SHA-256 then."""

    config: bytes | None = None
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bool = False
    unit_file: bytes | None = None
    wrapper: bytes | None = None
    slice_file: bytes | None = None
    fence_file: bytes | None = None
    packages: tuple[str, ...] = ()  # installed by an earlier deploy
    tried: frozenset[tuple[str, str]] = frozenset()  # kernel and package: what an earlier deploy could not install
    releases: frozenset[str] = frozenset()  # digests
    leftovers: frozenset[str] = frozenset()  # other entries beside the releases: uploads that were cut short
    current: str | None = None  # digest
    journal: bool = False
    present: tuple[str, ...] = ()  # our directories that exist
    unit: Unit = field(default_factory=Unit)
    started: dict[str, str] = field(default_factory=dict)
    started_release: str | None = None
    fingerprint: str = ""

    @property
    def traces(self) -> bool:
        """Whether anything of ours is on the host."""
        return bool(self.present or self.unit_file or self.wrapper or self.slice_file or self.fence_file or self.unit.loaded)


def parse(text: str) -> Agent:
    found = pairs(text)
    names = set(re.findall(r"^release=(\S+)$", text, re.MULTILINE))
    releases = frozenset(name for name in names if _DIGEST.fullmatch(name))
    started = [line.split(None, 1) for line in re.findall(r"^started=(.*)$", text, re.MULTILINE)]
    checksums = {path: digest for digest, path in (row for row in started if len(row) == 2) if _DIGEST.fullmatch(digest)}
    tried = (content(found.get("file_tried", "")) or b"").decode(errors="replace")
    return Agent(
        config=content(found.get("file_config", "")),
        ca=content(found.get("file_ca", "")),
        certificate=content(found.get("file_certificate", "")),
        key=found.get("key") == "yes",
        unit_file=content(found.get("file_unit", "")),
        wrapper=content(found.get("file_wrapper", "")),
        slice_file=content(found.get("file_slice", "")),
        fence_file=content(found.get("file_fence", "")),
        packages=tuple((content(found.get("file_packages", "")) or b"").decode(errors="replace").split()),
        tried=frozenset((words[0], words[1]) for words in map(str.split, tried.splitlines()) if len(words) == 2),
        releases=releases,
        leftovers=frozenset(names - releases),
        current=_digest(found.get("current", "")),
        journal=found.get("journal") == "yes",
        present=tuple(re.findall(r"^present=(\S+)$", text, re.MULTILINE)),
        unit=_unit(found),
        started=checksums,
        fingerprint=found.get("fingerprint", ""),
        started_release=next((digest for row in started if len(row) == 1 and (digest := _digest(row[0]))), None),
    )


def checksum(file: bytes) -> str:
    return hashlib.sha256(file).hexdigest()


def _digest(path: str) -> str | None:
    name = path.rstrip("/").rpartition("/")[2]
    return name if _DIGEST.fullmatch(name) else None


def _unit(found: dict[str, str]) -> Unit:
    entered, uptime = number(found.get("ActiveEnterTimestampMonotonic", "")), decimal(found.get("uptime", ""))
    active = found.get("ActiveState", "inactive")
    return Unit(
        loaded=found.get("LoadState") == "loaded",
        active=active,
        enabled=found.get("UnitFileState") == "enabled",
        stale=found.get("NeedDaemonReload") == "yes",
        pid=number(found.get("MainPID", "")) or None,
        up_seconds=max(0.0, uptime - entered / 1e6) if entered and uptime is not None and active == "active" else None,
        restarts=number(found.get("NRestarts", "")),
        result=found.get("Result", ""),
    )


TOPIC = Topic("agent", COMMAND, parse)
