"""What a container's /etc/resolv.conf says: that the agent is asked for names, and nobody before it (docs/adr/0096). Pure.

Docker's own file names its own server in the container, which answers first: by the names of all containers of the node, and by what each
calls its host. All else that Docker would have written stays: search domains and options, the node's own where a service says nothing.
"""

from __future__ import annotations

import posixpath

from hmcore.apps.spec import ContainerSpec

TARGET = "/etc/resolv.conf"
STUB = "127.0.0.53"  # where systemd-resolved answers, on its node alone
_FIRST_AS_IT_IS = "ndots:0"  # a name is asked for before search domains are put behind it: Docker's own file has that, too


def is_ours(spec: ContainerSpec, dns: str) -> bool:
    """Whether a container's file is for us to write. `dns`: where the agent answers; empty: nowhere. A service that mounts one of its own
    has that."""
    if not dns or spec.network_mode:
        return False
    targets = [*(mount.target for mount in spec.mounts), *(file.target for file in spec.files)]
    return TARGET not in [f"/{posixpath.normpath(target).lstrip('/')}" for target in targets]


def content(spec: ContainerSpec, dns: str, node: str) -> str:
    """`node`: the text of the node's own file. The service's servers come after ours, as Docker was told: for what we cannot answer."""
    search = spec.dns_search or _last(node, "search", "domain")
    options = [option for option in spec.dns_options or _all(node, "options") if option != "rotate"]  # ours goes first, each time
    if not any(option.startswith("ndots:") for option in options):
        options.append(_FIRST_AS_IT_IS)
    lines = [f"nameserver {address}" for address in (dns, *spec.dns)]
    if search not in ((), (".",)):
        lines.insert(0, f"search {' '.join(search)}")
    return "".join(f"{line}\n" for line in (*lines, f"options {' '.join(options)}"))


def is_stub(node: str) -> bool:
    """Whether a node's file only leads to systemd-resolved, which has written down elsewhere what it goes by. Docker reads that, too."""
    return _all(node, "nameserver") == (STUB,)


def _last(text: str, *keywords: str) -> tuple[str, ...]:
    """What the last of such lines says: it counts alone, by resolv.conf(5)."""
    found = [values for keyword, values in _lines(text) if keyword in keywords]
    return found[-1] if found else ()


def _all(text: str, keyword: str) -> tuple[str, ...]:
    return tuple(value for found, values in _lines(text) if found == keyword for value in values)


def _lines(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Keywords and what follows them, without comments."""
    split = [line.partition("#")[0].partition(";")[0].split() for line in text.splitlines()]
    return [(words[0], tuple(words[1:])) for words in split if words]
