"""Of the forms that the specification allows for a part, the one in which files can be merged: mappings instead of lists of `NAME=value`,
lists instead of a single text. The others (ports, volumes, commands, healthchecks ...) stay as they are written. Pure.

A part of the wrong kind is a mistake, and left out. So is, without a word, whatever is empty where that says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hmcore.config.problems import Path as Where
from hmcore.config.problems import describe
from hmctl.compose.tree import RESET, Node
from hmctl.compose.trouble import Trouble

Form = Callable[[Node, Where, Trouble], Node | None]
SECTIONS = ("services", "networks", "volumes", "secrets", "configs", "models")


def shaped(root: Node, trouble: Trouble) -> Node:
    """A whole file. What is no mapping becomes an empty one."""
    if not isinstance(root.value, dict):
        if root.value is not None:
            trouble.wrong(root.place, (), f"must be a mapping, not {kind(root)}", "services:")
        return root.holding({})
    return _shaped(root, (), FORMS, trouble) or root.holding({})


def kind(node: Node) -> str:
    return "a list" if isinstance(node.value, tuple) else describe(node.value)


def _shaped(node: Node, path: Where, forms: Any, trouble: Trouble) -> Node | None:
    """`forms`: a form, or the forms of what is in a mapping, by key; "*": of any key; "": of the mapping itself, first."""
    if node.tag == RESET:
        return node
    if node.value is None and node.tag:
        return Node(None, node.place, RESET)
    if callable(forms):
        alone: Form = forms
        return alone(node, path, trouble) if node.value is not None else None
    if form := forms.get(""):
        if node.value is None:
            return node
        shaped: Node | None = form(node, path, trouble)
        if shaped is None or not isinstance(shaped.value, dict):
            return shaped
        node = shaped
    entries = {}
    for key, child in node.entries.items():
        wanted = (forms.get(key) if key else None) or forms.get("*")
        part = _shaped(child, (*path, key), wanted, trouble) if wanted else child
        if part is not None:
            entries[key] = part
    return node.holding(entries) if isinstance(node.value, dict) else node


def _refused(node: Node, path: Where, wanted: str, trouble: Trouble) -> Node | None:
    """Nothing, once it was said."""
    trouble.wrong(node.place, path, f"must be {wanted}, not {kind(node)}")
    return None


def _mapping(node: Node, path: Where, trouble: Trouble) -> Node | None:
    return node if isinstance(node.value, dict) else _refused(node, path, "a mapping", trouble)


def _services(node: Node, path: Where, trouble: Trouble) -> Node | None:
    if not isinstance(node.value, dict):
        return _refused(node, path, "a mapping", trouble)
    for name, service in node.entries.items():
        if service.value is None and not service.tag:
            _refused(service, (*path, name), "a mapping", trouble)
    return node.holding({name: service for name, service in node.entries.items() if service.value is not None or service.tag})


def _service(node: Node, path: Where, trouble: Trouble) -> Node | None:
    if not isinstance(node.value, dict):
        return _refused(node, path, "a mapping", trouble)
    return node.holding({key: child for key, child in node.entries.items() if child.value is not None or child.tag or key in _MAY_BE_EMPTY})


def _resource(node: Node, path: Where, trouble: Trouble) -> Node | None:
    """`external: {name: X}` is an old way to say `external: true` and `name: X`."""
    if not isinstance(node.value, dict):
        return _refused(node, path, "a mapping", trouble)
    external = node.entries.get("external")
    if external is None or not isinstance(external.value, dict):
        return node
    trouble.odd(external.place, (*path, "external"), "external.name is deprecated", "name: NAME, external: true")
    name = {"name": external.entries["name"]} if "name" in external.entries and "name" not in node.entries else {}
    return node.having(external=Node(True, external.place), **name)


def _list(node: Node, path: Where, trouble: Trouble) -> Node | None:
    return node if isinstance(node.value, tuple) else _refused(node, path, "a list", trouble)


def _texts(node: Node, path: Where, trouble: Trouble) -> Node | None:
    """A list, or one text."""
    if isinstance(node.value, str):
        return node.holding((Node(node.value, node.place),))
    return node if isinstance(node.value, tuple) else _refused(node, path, "text or a list", trouble)


def _pairs(alone: str | None) -> Form:
    """A mapping, or a list of NAME=value; `alone`: the value of a NAME without one."""

    def form(node: Node, path: Where, trouble: Trouble) -> Node | None:
        if isinstance(node.value, dict):
            pairs = node.entries
        elif isinstance(node.value, tuple):
            pairs = {name: value for index, item in enumerate(node.items) for name, value in pair(item, (*path, index), trouble)}
        else:
            return _refused(node, path, "a mapping or a list of NAME=value", trouble)
        kept = {}
        for name, value in pairs.items():
            if isinstance(value.value, dict | tuple):
                _refused(value, (*path, name), "text or a number", trouble)
            elif value.value is None and alone is not None and not value.tag:
                kept[name] = Node(alone, value.place)
            else:
                kept[name] = value
        return node.holding(kept)

    def pair(item: Node, path: Where, trouble: Trouble) -> tuple[tuple[str, Node], ...]:
        if item.tag == RESET:
            return ()
        if not isinstance(item.value, str | int | float) or isinstance(item.value, bool):
            _refused(item, path, "NAME=value", trouble)
            return ()
        name, equals, value = str(item.value).partition("=")
        return ((name, Node(value if equals else alone, item.place)),)

    return form


def _names(default: dict[str, Any] | None) -> Form:
    """A mapping by name, or a list of names; `default`: what each then has."""

    def form(node: Node, path: Where, trouble: Trouble) -> Node | None:
        if isinstance(node.value, dict):
            return node.holding(
                {name: held(child) if child.value is None and not child.tag else child for name, child in node.entries.items()}
            )
        if not isinstance(node.value, tuple):
            return _refused(node, path, "a mapping or a list of names", trouble)
        entries = {}
        for index, item in enumerate(node.items):
            if item.text is not None:
                entries[item.text] = held(item)
            elif item.tag != RESET:
                _refused(item, (*path, index), "a name", trouble)
        return node.holding(entries)

    def held(name: Node) -> Node:
        return Node(None if default is None else {key: Node(value, name.place) for key, value in default.items()}, name.place)

    return form


def _short(key: str) -> Form:
    """A mapping, or text, which is its `key`."""

    def form(node: Node, path: Where, trouble: Trouble) -> Node | None:
        if isinstance(node.value, str):
            return node.holding({key: Node(node.value, node.place)})
        return node if isinstance(node.value, dict) else _refused(node, path, "text or a mapping", trouble)

    return form


def _list_of(item: Form) -> Form:
    def form(node: Node, path: Where, trouble: Trouble) -> Node | None:
        found = _texts(node, path, trouble)
        if found is None:
            return None
        items = [child if child.tag == RESET else item(child, (*path, index), trouble) for index, child in enumerate(found.items)]
        return found.holding(tuple(child for child in items if child))

    return form


def _hosts(node: Node, path: Where, trouble: Trouble) -> Node | None:
    """A list of HOST=ADDRESS or HOST:ADDRESS, or a mapping by host of addresses, or of lists of them."""
    if not isinstance(node.value, dict):
        return _list(node, path, trouble)
    hosts = []
    for host, addresses in node.entries.items():
        for address in addresses.items or (addresses,):
            if address.text is None:
                _refused(address, (*path, host), "an address", trouble)
            else:
                hosts.append(Node(f"{host}={address.text}", address.place))
    return node.holding(tuple(hosts))


_MAY_BE_EMPTY = {"command", "entrypoint"}  # which says: what the image has, not what was there before
_VARIABLES, _LABELS = _pairs(None), _pairs("")
_LISTS = dict.fromkeys(
    (
        "ports",
        "volumes",
        "secrets",
        "configs",
        "cap_add",
        "cap_drop",
        "devices",
        "security_opt",
        "profiles",
        "links",
        "group_add",
        "dns_opt",
    ),
    _list,
)
_SERVICE = {
    "": _service,
    **_LISTS,
    "expose": _list,
    "environment": _VARIABLES,
    "labels": _LABELS,
    "annotations": _LABELS,
    "sysctls": _LABELS,
    "env_file": _list_of(_short("path")),
    "label_file": _texts,
    "dns": _texts,
    "dns_search": _texts,
    "tmpfs": _texts,
    "extra_hosts": _hosts,
    "depends_on": {"": _names({"condition": "service_started", "required": True}), "*": _mapping},
    "networks": {"": _names(None), "*": {"": _mapping, "aliases": _list, "link_local_ips": _list}},
    "build": {
        "": _short("context"),
        "args": _VARIABLES,
        "labels": _LABELS,
        "additional_contexts": _LABELS,
        "extra_hosts": _hosts,
    },
    "extends": _short("service"),
    "healthcheck": _mapping,
    "logging": _mapping,
    "ulimits": _mapping,
    "deploy": {"": _mapping, "labels": _LABELS},
}
_LABELLED = {"": _resource, "labels": _LABELS}
FORMS: dict[str, Any] = {
    "services": {"": _services, "*": _SERVICE},
    **{section: {"": _mapping, "*": _LABELLED} for section in SECTIONS if section != "services"},
    "include": _list_of(_short("path")),
}
