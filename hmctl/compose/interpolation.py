"""Variables put into the texts of a file, and what then stands where a number or a truth value belongs read as one. Pure.

Keys are left alone. What came from a variable is marked (`FromEnvironment`), so that no message shows it where something else is wanted:
it may be a secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from hmcore.config.problems import FromEnvironment, describe
from hmcore.config.problems import Path as Where
from hmctl.compose import substitution
from hmctl.compose.substitution import Malformed, Outcome
from hmctl.compose.tree import Node, Scalar
from hmctl.compose.trouble import Trouble

MAX_TOTAL = 16_777_216  # characters of all texts of a file with variables, once these are put in

_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_TRUE, _FALSE = {"true", "y", "yes", "on"}, {"false", "n", "no", "off"}

Cast = Callable[[str], Scalar]  # raises ValueError


def interpolated(root: Node, environment: Mapping[str, str], trouble: Trouble) -> Node:
    """`root` with every variable put in. One that is not set is empty, and spoken of once."""
    return _Walk(environment, trouble).part(root, (), CASTS)


class _Walk:
    def __init__(self, environment: Mapping[str, str], trouble: Trouble) -> None:
        self.environment, self.trouble = environment, trouble
        self.spoken_of: set[str] = set()
        self.total = 0

    def part(self, node: Node, path: Where, casts: Any) -> Node:
        """`casts`: the part of CASTS that concerns `node`."""
        match node.value:
            case dict(entries):
                return node.holding({key: self.part(child, (*path, key), _below(casts, key)) for key, child in entries.items()})
            case tuple(items):
                return node.holding(tuple(self.part(child, (*path, index), _below(casts, "[]")) for index, child in enumerate(items)))
            case str(text):
                return self.text(node, text, path, casts)
            case _:
                return node

    def text(self, node: Node, text: str, path: Where, casts: Any) -> Node:
        try:
            outcome = substitution.substitute(text, self.environment.get)
        except Malformed as error:
            self.trouble.wrong(node.place, path, str(error), "${NAME}, ${NAME:-default}, ${NAME:?message}; $$ for a literal $")
            return node
        if outcome.text is not text:
            self.total += len(outcome.text)
        if self.total > MAX_TOTAL:
            self.trouble.wrong(node.place, path, "too much text, once the variables are put in")
            return node
        self.report(outcome, node, path)
        cast = casts.get("") if isinstance(casts, dict) else casts
        if cast:
            return self.cast(node, outcome, path, cast)
        if outcome.used:
            return node.holding(FromEnvironment(outcome.text))
        return node if outcome.text == text else node.holding(outcome.text)

    def report(self, outcome: Outcome, node: Node, path: Where) -> None:
        for name, said in outcome.missing:
            self.trouble.wrong(
                node.place,
                path,
                f"the variable {name} must be set{f': {said[:200]}' if said else ''}",
                f"export {name}=..., or put it into .env",
            )
        for name in outcome.unset:
            if name not in self.spoken_of:
                self.spoken_of.add(name)
                self.trouble.odd(
                    node.place, path, f"the variable {name} is not set, so it is empty", f"${{{name}:-default}}; $${name} is text as it is"
                )

    def cast(self, node: Node, outcome: Outcome, path: Where, cast: Cast) -> Node:
        try:
            meant = cast(outcome.text)
        except ValueError as error:
            if not outcome.missing:
                shown = describe(FromEnvironment(outcome.text) if outcome.used else outcome.text)
                self.trouble.wrong(node.place, path, f"{error}, not {shown}")
            return node.holding(None)
        if isinstance(meant, bool) and outcome.text.lower() not in ("true", "false"):
            self.trouble.odd(
                node.place, path, f"{outcome.text} is text in YAML 1.2, taken for {str(meant).lower()}", f"write {str(meant).lower()}"
            )
        return node.holding(meant)


def _below(casts: Any, key: str) -> Any:
    return ((casts.get(key) if key else None) or casts.get("*")) if isinstance(casts, dict) else None


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError("must be a whole number")
    return int(text)


def _number(text: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    if not math.isfinite(value):
        raise ValueError("must be a number")
    return value


def _truth(text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError("must be true or false")
    return text.lower() in _TRUE


# Where the specification wants no text; "*": under any key, "[]": in a list, "": the part itself if it is text.
_ROLLING = {"parallelism": _whole, "max_failure_ratio": _number}
_SERVICE = {
    **dict.fromkeys(("cpu_count", "cpu_period", "cpu_quota", "cpu_rt_period", "cpu_rt_runtime", "cpu_shares"), _whole),
    **dict.fromkeys(("oom_score_adj", "pids_limit", "scale"), _whole),
    **dict.fromkeys(("cpus", "cpu_percent"), _number),
    **dict.fromkeys(("init", "oom_kill_disable", "privileged", "read_only", "stdin_open", "tty"), _truth),
    "depends_on": {"*": {"required": _truth, "restart": _truth}},
    "deploy": {
        "replicas": _whole,
        "update_config": _ROLLING,
        "rollback_config": _ROLLING,
        "restart_policy": {"max_attempts": _whole},
        "placement": {"max_replicas_per_node": _whole},
    },
    "env_file": {"[]": {"required": _truth}},
    "healthcheck": {"retries": _whole, "disable": _truth},
    "ports": {"[]": {"target": _whole}},
    "ulimits": {"*": {"": _whole, "soft": _whole, "hard": _whole}},
    "volumes": {"[]": {"read_only": _truth, "volume": {"nocopy": _truth}, "bind": {"create_host_path": _truth}}},
}
_EXTERNAL = {"*": {"external": _truth}}
CASTS: dict[str, Any] = {
    "services": {"*": _SERVICE},
    "networks": {"*": dict.fromkeys(("external", "internal", "attachable", "enable_ipv4", "enable_ipv6"), _truth)},
    "volumes": _EXTERNAL,
    "secrets": _EXTERNAL,
    "configs": _EXTERNAL,
}
