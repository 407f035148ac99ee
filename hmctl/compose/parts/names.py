"""The grammar of names. They come from files and reach Docker, DNS, paths and shells, so each may hold little and all of it is checked."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hmcore.apps import names


@dataclass(frozen=True, slots=True)
class Rule:
    """`says`: what is allowed, in words."""

    pattern: re.Pattern[str]
    says: str

    def holds(self, text: str) -> bool:
        return self.pattern.fullmatch(text) is not None


def _rule(pattern: str, says: str) -> Rule:
    return Rule(re.compile(pattern, re.ASCII), says)


_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DIGEST = r"sha256:[0-9a-f]{64}"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REGISTRY = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:]{2,45}\])(?::[0-9]{1,5})?"

APP = Rule(names.APP, names.APP_SAYS)
SERVICE = Rule(names.SERVICE, names.SERVICE_SAYS)
KEY = _rule(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,126}", "1 to 127 letters, digits, _ . -, a letter or digit first")
SECRET = _rule(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", "1 to 64 letters, digits, _ . -, a letter or digit first")
VOLUME = _rule(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,253}", "2 to 254 letters, digits, _ . -, a letter or digit first")
HOST = _rule(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*", "letters, digits, - and _, in parts of up to 63 with dots between")
IMAGE = _rule(
    rf"(?=.{{1,500}}\Z)(?:(?:{_REGISTRY}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@{_DIGEST})?|{_DIGEST})",
    "[REGISTRY/]NAME[:TAG][@sha256:DIGEST], the name in small letters",
)
VARIABLE = _rule(r"[^=\x00-\x20\x7f]{1,512}", "no blanks, and no =")
LABEL = _rule(r"[^=\x00-\x20\x7f]{1,512}", "no blanks, and no =")
OPTION = _rule(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,254}", "letters, digits, _ . : / -")
DRIVER = OPTION
SIGNAL = _rule(r"[1-9][0-9]?|(?:SIG)?[A-Z][A-Z0-9]{1,9}(?:[+-][0-9]{1,2})?", "a signal's name or number: SIGTERM")
CAPABILITY = _rule(r"(?:CAP_)?[A-Z][A-Z0-9_]{1,40}", "a capability's name: NET_ADMIN")
SYSCTL = _rule(r"[a-z][A-Za-z0-9_-]*(?:[./][A-Za-z0-9_-]+)+", "a kernel parameter's name: net.core.somaxconn")
ULIMIT = _rule(r"[a-z]{2,20}", "a limit's name: nofile")
USER = _rule(
    r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,127}(?::(?:[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,127})?)?", "USER or USER:GROUP, by name or number"
)
GROUP = _rule(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,127}", "a group's name or number")
DEVICE = _rule(r"/[^:\x00-\x20\x7f]{1,500}", "an absolute path")
PATH = _rule(r"/[^\x00-\x1f\x7f]{0,4000}", "an absolute path")
URL_PATH = _rule(r"/[\x21-\x7e]{0,1000}", "a path on the server, such as /healthz")
