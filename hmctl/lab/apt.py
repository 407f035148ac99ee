"""This machine's own package sources: which archive a base image of the same release is made from. Parsers and choice are pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hmcore.errors import LabError

_LIST_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>.*)$")
_SETTING = re.compile(
    r'Acquire::(?P<name>\S*(Proxy|Proxy::[^:\s]+|Verify-Peer|Verify-Host|Check-Valid-Until|Check-Date|Retries|Timeout)) "(?P<value>.*)";',
    re.I,
)
# The archives' own keyrings. Others that carry `main` for our release (third parties) are signed by keys of their own.
_ARCHIVE_KEYRING = re.compile(r"(debian|ubuntu|raspbian)[-\w]*archive")
_FETCHABLE = ("http://", "https://")  # a file: archive cannot be reached from inside the image


@dataclass(frozen=True, slots=True)
class Source:
    """One archive and suite, as apt is told about it. `signed_by` is a key file's path, an inline key, or empty."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """The distribution that this machine runs, from os-release."""

    distribution: str  # debian | ubuntu | ...
    suite: str  # bookworm, noble ...


@dataclass(frozen=True, slots=True)
class AptSetup:
    """Where packages come from: the archive to bootstrap from, every suite of it that we use, and how to reach it."""

    release: Release
    archive: Source
    sources: tuple[Source, ...]
    settings: str  # apt.conf text: proxies, validity
    ca: Path | None  # certificates that https archives are judged by
    proxies: Mapping[str, str]  # http_proxy, https_proxy for tools other than apt


def parse_list(text: str) -> list[Source]:
    """The one-line format of sources.list(5)."""
    found = []
    for line in text.splitlines():
        match = _LIST_LINE.match(line.split("#", 1)[0].strip())
        if match:
            options = dict(option.split("=", 1) for option in shlex.split(match["options"] or "") if "=" in option)
            found.append(Source(match["uri"], match["suite"], tuple(match["components"].split()), options.get("signed-by", "")))
    return found


def parse_deb822(text: str) -> list[Source]:
    """The deb822 format of sources.list(5): stanzas of fields, one source for every URI and suite."""
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and name:
                fields[name] += "\n" + line.strip()
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        found += [
            Source(uri, suite, tuple(fields.get("components", "").split()), fields.get("signed-by", ""))
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return found


def parse_release(text: str) -> Release:
    """os-release(5). Raises LabError when it names no code name: then we do not know what to bootstrap."""
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    unquoted = {name: " ".join(shlex.split(value)) for name, value in fields.items()}
    suite = unquoted.get("VERSION_CODENAME", "")
    if not suite:
        raise LabError("this machine's os-release has no VERSION_CODENAME: the lab needs Debian or Ubuntu")
    return Release(unquoted.get("ID", ""), suite)


def parse_settings(dump: str) -> tuple[str, dict[str, str]]:
    """Of `apt-config dump`, the settings that say how to reach an archive, and the proxies among them as environment."""
    kept, proxies = [], {}
    for line in dump.splitlines():
        match = _SETTING.fullmatch(line)
        if match is None or not match["value"]:
            continue
        kept.append(line)
        if match["name"].lower() in ("http::proxy", "https::proxy") and match["value"] != "DIRECT":
            proxies[f"{match['name'].split(':')[0].lower()}_proxy"] = match["value"]
    return "".join(f"{line}\n" for line in kept), proxies


def choose(release: Release, sources: Iterable[Source]) -> tuple[Source, tuple[Source, ...]]:
    """The archive to bootstrap from, and all suites of the distribution itself (updates, security) to install from.

    Raises LabError if no source offers this release.
    """
    ours = {release.suite, f"{release.suite}-updates", f"{release.suite}-security", f"{release.suite}/updates"}
    offered = [s for s in sources if s.suite in ours and "main" in s.components and s.uri.startswith(_FETCHABLE)]
    # Ahead: signed by the distribution's keyring; then by whatever apt trusts by default; a key of its own means a third party.
    trusted = [s for s in offered if _ARCHIVE_KEYRING.search(s.signed_by)] or [s for s in offered if not s.signed_by] or offered
    archives = [s for s in trusted if s.suite == release.suite]
    if not archives:
        raise LabError(
            f"no apt source of this machine offers {release.distribution} {release.suite} (component main)",
            fix="add the distribution's archive to /etc/apt/sources.list.d and run apt-get update",
        )
    return archives[0], tuple(dict.fromkeys(trusted))


def one_line(source: Source, components: Sequence[str], keyring: str | None) -> str:
    """The source in the one-line format, with those of `components` that it has; `keyring` is where its key lies for who reads this."""
    options = f"[signed-by={keyring}] " if keyring else ""
    return f"deb {options}{source.uri} {source.suite} {' '.join(c for c in source.components if c in components)}"


def inline_key(field: str) -> bytes:
    """A key written into a deb822 field, where a single dot stands for an empty line."""
    return "".join(f"{'' if line.strip() == '.' else line}\n" for line in field.strip().splitlines()).encode()


def read_setup(root: Path, dump: str) -> AptSetup:
    """What the files under `root` (/) and `apt-config dump` say. Raises LabError when they name no usable archive."""
    folder = root / "etc/apt"
    lists = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*.list"))]
    sources = [source for file in lists if file.is_file() for source in parse_list(file.read_text())]
    for file in sorted((folder / "sources.list.d").glob("*.sources")):
        sources += parse_deb822(file.read_text())
    release = parse_release((root / "etc/os-release").read_text())
    archive, used = choose(release, sources)
    settings, proxies = parse_settings(dump)
    configured = re.search(r'^Acquire::https::CaInfo "(.+)";$', dump, re.I | re.M)
    ca = Path(configured[1]) if configured else root / "etc/ssl/certs/ca-certificates.crt"
    return AptSetup(release, archive, used, settings, ca if ca.exists() else None, proxies)
