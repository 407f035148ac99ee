"""One tree over another, as the Compose Specification has it: mappings are merged, lists are joined (what is there already is not
repeated), anything else is replaced; what differs from that is in RULES. Pure. https://github.com/compose-spec/compose-spec/blob/main/13-merge.md

Both have the forms of forms.py. `!reset` and `!override` of the upper tree take effect and stay, since the result may lie over a third one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from hmcore.config.problems import Path as Where
from hmctl.compose import keys
from hmctl.compose.forms import SECTIONS, kind
from hmctl.compose.tree import OVERRIDE, RESET, Node
from hmctl.compose.trouble import Trouble

Rule = Callable[[Node | None, Node], Node]  # how the one becomes part of the other; in a mapping under "": whether it does at all


def merge(below: Node | None, above: Node, trouble: Trouble, where: Where = ()) -> Node:
    """`above` over `below`, which is settled (no tags). `where`: of what they are, such as ("services", "web")."""
    return _Merge(trouble).part(below, above, where, _rules(where))


def _rules(where: Where) -> Any:
    rules: Any = RULES
    for key in where:
        rules = _below(rules, key)
    return rules


def _below(rules: Any, key: str | int) -> Any:
    if not isinstance(rules, Mapping):
        return {}
    return rules.get(key) or rules.get("*") or {}


class _Merge:
    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble

    def part(self, below: Node | None, above: Node, path: Where, rules: Any) -> Node:
        if above.tag == RESET:
            return above
        if above.tag == OVERRIDE:
            below = None
        if below and isinstance(rules, Mapping) and "" in rules and not rules[""](below, above):
            below = None
        if callable(rules):
            merged: Node = rules(below, above)
            return merged
        if above.value is None and not above.tag:
            return below or above
        match (below.value if below else None), above.value:
            case dict(), dict():
                return self.mapping(below, above, path, rules)
            case tuple(old), tuple(new):
                known = set(map(keys.written, old))
                return above.holding((*old, *(item for item in new if item.tag != RESET and keys.written(item) not in known)))
            case None, dict():
                return self.mapping(None, above, path, rules)
            case None, _:
                return above
            case ((dict() | tuple()), _):
                assert below
                self.trouble.wrong(
                    above.place, path, f"{kind(above)} cannot take the place of {kind(below)}", "!override before it, if that is meant"
                )
                return below
            case _, dict():
                return self.mapping(None, above, path, rules)
            case _:
                return above

    def mapping(self, below: Node | None, above: Node, path: Where, rules: Any) -> Node:
        merged = dict(below.entries) if below else {}
        for key, child in above.entries.items():
            merged[key] = self.part(merged.get(key), child, (*path, key), _below(rules, key))
        return above.holding(merged)


def _replaced(_: Node | None, above: Node) -> Node:
    return above


def _pairs(below: Node | None, above: Node) -> Node:
    """By name; also one without a value counts."""
    return above.holding({**(below.entries if below else {}), **above.entries})


def _unique(key: Callable[[Node], Hashable]) -> Rule:
    """Joined; of entries with the same key the last, where the first stood."""

    def rule(below: Node | None, above: Node) -> Node:
        if not isinstance(above.value, tuple):
            return above if below is None or above.value is not None else below
        seen: dict[Hashable, Node] = {}
        for item in (*(below.items if below else ()), *above.items):
            if item.tag != RESET:
                seen[key(item)] = item
        return above.holding(tuple(seen.values()))

    return rule


def _subnets(below: Node | None, above: Node) -> Node:
    """Address pools of a network, merged where they are of the same subnet."""
    pools: dict[Hashable, Node] = {}
    for item in (*(below.items if below else ()), *above.items):
        subnet = keys.written(item.entries["subnet"]) if "subnet" in item.entries else len(pools)
        pools[subnet] = item.holding({**pools[subnet].entries, **item.entries}) if subnet in pools else item
    return above.holding(tuple(pools.values())) if isinstance(above.value, tuple) else above


def _one_driver(below: Node, above: Node) -> bool:
    drivers = [str(node.entries["driver"].value) for node in (below, above) if "driver" in node.entries]
    return len(set(drivers)) < 2


_texts = _unique(keys.named)
_ULIMITS = {"*": _replaced}
_SERVICE: dict[str, Any] = {
    **dict.fromkeys(("command", "entrypoint"), _replaced),
    **dict.fromkeys(("environment", "labels", "annotations", "sysctls"), _pairs),
    **dict.fromkeys(("cap_add", "cap_drop", "dns", "dns_opt", "dns_search", "links", "profiles"), _texts),
    **dict.fromkeys(("expose", "extra_hosts", "label_file"), _unique(keys.written)),
    "ports": _unique(keys.port),
    "volumes": _unique(keys.volume),
    "devices": _unique(keys.device),
    "tmpfs": _unique(keys.tmpfs),
    "secrets": _unique(keys.mount("/run/secrets")),
    "configs": _unique(keys.mount("")),
    "env_file": _unique(keys.by("path")),
    "build": {
        **dict.fromkeys(("args", "labels", "additional_contexts"), _pairs),
        "tags": _texts,
        "platforms": _texts,
        "extra_hosts": _unique(keys.written),
        "ulimits": _ULIMITS,
    },
    "deploy": {"labels": _pairs},
    "healthcheck": {"test": _replaced},
    "logging": {"": _one_driver},  # options of one driver mean nothing to another
    "networks": {"*": {"aliases": _texts, "link_local_ips": _texts}},
    "ulimits": _ULIMITS,
}
RULES: dict[str, Any] = {
    **{section: {"*": {"labels": _pairs}} for section in SECTIONS},
    "services": {"*": _SERVICE},
    "networks": {"*": {"labels": _pairs, "ipam": {"config": _subnets}}},
}
