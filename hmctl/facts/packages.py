"""Which package manager a host has, and which of the packages that we may need it already has."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hmctl.facts.base import Topic

COMMAND = r"""
command -v apt-get >/dev/null && echo "manager apt"
dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' docker.io docker-ce python3-bpfcc nftables 'linux-headers-*' 2>/dev/null
"""


@dataclass(frozen=True, slots=True)
class Packages:
    manager: str | None  # "apt", or None: packages are then the owner's business
    installed: frozenset[str]


def parse(text: str) -> Packages:
    return Packages(
        "apt" if re.search(r"^manager apt$", text, re.MULTILINE) else None,
        frozenset(re.findall(r"^ii\s+(\S+)$", text, re.MULTILINE)),
    )


TOPIC = Topic("packages", COMMAND, parse)
