"""Empty text where it says nothing: mostly what `${NAME:-}` came to. Such a key counts as not given, as with Docker Compose; an entry of a
list is no entry. Where Compose refuses empty text (amounts, truth values, files), it stays, and is refused. Pure.
"""

from __future__ import annotations

from typing import Any

from hmctl.compose.tree import Node

# What may be empty; "*": under any key, "[]": in a list.
TEXT, NAMES = "text", "names"  # the part itself, if it is empty text; of a mapping, an entry without a name that says nothing
_TEXTS = {"[]": TEXT}
_ROLLING = {"failure_action": TEXT}
_FILE = {"[]": {"uid": TEXT, "gid": TEXT}}
_SERVICE = {
    **dict.fromkeys(("hostname", "user", "restart", "working_dir", "stop_signal", "network_mode", "ipc", "pid", "platform"), TEXT),
    **dict.fromkeys(("cgroup_parent", "cpuset", "domainname", "isolation", "mac_address", "runtime", "userns_mode", "uts"), TEXT),
    **dict.fromkeys(("cap_add", "cap_drop", "group_add", "security_opt", "devices", "expose", "tmpfs", "profiles"), _TEXTS),
    **dict.fromkeys(("dns", "dns_search", "dns_opt", "external_links", "device_cgroup_rules"), _TEXTS),
    **dict.fromkeys(("environment", "labels", "annotations", "sysctls"), NAMES),
    "build": {
        **dict.fromkeys(("target", "network"), TEXT),
        **dict.fromkeys(("cache_from", "cache_to", "platforms", "tags"), _TEXTS),
        **dict.fromkeys(("args", "labels"), NAMES),
    },
    "deploy": {
        **dict.fromkeys(("mode", "endpoint_mode"), TEXT),
        "labels": NAMES,
        "restart_policy": {"condition": TEXT},
        "update_config": _ROLLING,
        "rollback_config": _ROLLING,
        "placement": {"constraints": _TEXTS, "preferences": {"[]": {"spread": TEXT}}},
    },
    "logging": {"driver": TEXT},
    "networks": {"*": {"aliases": _TEXTS, **dict.fromkeys(("ipv4_address", "ipv6_address", "mac_address", "interface_name"), TEXT)}},
    "ports": {"[]": dict.fromkeys(("mode", "protocol", "name", "app_protocol"), TEXT)},
    "volumes": {"[]": {"volume": {"subpath": TEXT}}},
    "secrets": _FILE,
    "configs": _FILE,
}
_CONTENT = {"*": dict.fromkeys(("name", "file", "environment", "driver", "template_driver"), TEXT)}
BLANKS: dict[str, Any] = {
    "services": {"*": _SERVICE},
    "networks": {"*": dict.fromkeys(("name", "driver"), TEXT)},
    "volumes": {"*": dict.fromkeys(("name", "driver"), TEXT)},
    "secrets": _CONTENT,
    "configs": _CONTENT,
}


def without_blanks(root: Node) -> Node:
    """A whole tree, merged: what is empty in the last file that has it is not given, whatever was there before."""
    return _filled(root, BLANKS) or root.holding({})


def _filled(node: Node, blanks: Any) -> Node | None:
    """None: nothing is said there. A list's entry of which nothing is left is none, nor is a list without entries; a mapping stays, for
    that it is there may say something."""
    match blanks, node.value:
        case "text", str(text):
            return node if text else None
        case "names", {"": Node(value=None | "")}:
            return node.without("")
        case dict(), dict(entries):
            found = {key: _filled(child, blanks.get(key) or blanks.get("*")) for key, child in entries.items()}
            return node.holding({key: child for key, child in found.items() if child is not None})
        case {"[]": inner}, tuple(items):
            kept = [child for item in items if (child := _filled(item, inner)) is not None and child.value != {}]
            return node.holding(tuple(kept)) if kept or not items else None
        case _:
            return node
