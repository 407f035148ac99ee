"""Where packages come from: whatever this machine's pip or uv is set up with. We name no index ourselves."""

from __future__ import annotations

import configparser
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

# uv's own settings, wherever they stand, win over pip's.
_UV = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX", "UV_CONFIG_FILE")
# pip's option -> uv's variable, and what separates several values there.
_SAME = {
    "index-url": ("UV_DEFAULT_INDEX", ""),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", ""),
    "no-index": ("UV_NO_INDEX", ""),
}


def environment(environ: Mapping[str, str], home: Path) -> dict[str, str]:
    """The variables to run uv with."""
    ours = {**environ, "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    if any(environ.get(name) for name in _UV) or any(path.is_file() for path in (config / "uv" / "uv.toml", Path("/etc/uv/uv.toml"))):
        return ours
    return {**translate(pip_options(environ, pip_files(environ, home, config))), **ours}


def pip_files(environ: Mapping[str, str], home: Path, config: Path) -> list[Path]:
    """pip's configuration files, the weakest first."""
    system = [Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf")]
    user = [home / ".pip" / "pip.conf", config / "pip" / "pip.conf", Path(sys.prefix) / "pip.conf"]
    named = [Path(environ["PIP_CONFIG_FILE"])] if environ.get("PIP_CONFIG_FILE") else []
    return system + user + named


def pip_options(environ: Mapping[str, str], files: Iterable[Path]) -> dict[str, str]:
    """The options that concern us, from pip's files and PIP_ variables. A file that cannot be read is none."""
    options: dict[str, str] = {}
    for path in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                options |= {name: value for name in _SAME if (value := parser.get(section, name, fallback=""))}
    return options | {name: value for name in _SAME if (value := environ.get(f"PIP_{name.upper().replace('-', '_')}"))}


def translate(options: Mapping[str, str]) -> dict[str, str]:
    """pip's options as uv's variables. Several indexes: the best version of any counts, as it does for pip."""
    variables = {}
    for name, value in options.items():
        variable, separator = _SAME[name]
        variables[variable] = separator.join(value.split()) if separator else value.strip()
    if "UV_INDEX" in variables:
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return variables
