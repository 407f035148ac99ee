"""What the kernel offers: control groups, BPF, and headers to compile BPF programs against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hmctl.facts.base import Topic, pairs

COMMAND = r"""
echo "cgroup2=$([ -f /sys/fs/cgroup/cgroup.controllers ] && echo /sys/fs/cgroup || { [ -f /sys/fs/cgroup/unified/cgroup.controllers ] && echo /sys/fs/cgroup/unified; })"
echo "cgroup1=$([ -d /sys/fs/cgroup/memory ] && echo yes)"
echo "bpffs=$(sed -n 's/^[^ ]* \([^ ]*\) bpf .*/\1/p' /proc/mounts | head -n 1)"
k=/lib/modules/$(uname -r)
echo "headers=$(for h in "$k/build" /sys/kernel/kheaders.tar.xz; do [ -e "$h" ] && echo "$h" && break; done)"
echo "bpftool=$(command -v bpftool)"
"""  # noqa: E501  one test, one line


@dataclass(frozen=True, slots=True)
class Kernel:
    cgroups: Literal["v2", "hybrid", "v1", "none"]
    cgroup2: str | None  # where the unified tree is mounted
    bpffs: str | None
    headers: str | None
    bpftool: str | None = None


def parse(text: str) -> Kernel:
    found = pairs(text)
    unified, legacy = found.get("cgroup2") or None, found.get("cgroup1") == "yes"
    match unified, legacy:
        case str(), True:
            mode: Literal["v2", "hybrid", "v1", "none"] = "hybrid"
        case str(), False:
            mode = "v2"
        case None, True:
            mode = "v1"
        case _:
            mode = "none"
    return Kernel(mode, unified, found.get("bpffs") or None, found.get("headers") or None, found.get("bpftool") or None)


TOPIC = Topic("kernel", COMMAND, parse)
