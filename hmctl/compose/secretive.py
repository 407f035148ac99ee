"""Which values of an environment, or of labels, and which commands look like secrets: those are not shown in plans. Pure.

A secret belongs into `secrets:`; in files that people have it stands in `environment:` all the same. By its name, or by how it looks; in
doubt it is one: what is hidden without need costs a look into the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

_LONGEST = 4096  # characters; what is longer is nothing to read in a plan
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_WITHIN = re.compile(r"pass|secret|token|credential|private|connectionstring|webhook|licen[cs]e", re.IGNORECASE)
_WHOLE = {"pwd", "pw", "auth", "authorization", "basicauth", "salt", "pepper", "dsn", "pin", "otp", "jwt", "cookie", "hmac", "seed"}
_PLACE = re.compile(r"/[^\s:@?]*")
_SAID = re.compile(
    r"://[^/\s@]+@"  # of a URL: user:password@, or token@
    r"|-----BEGIN "
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}"  # a JSON web token
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk[-_]|AKIA|AIza)[A-Za-z0-9_-]{8,}"
    r"|\$(?:apr1|1|2[abxy]|5|6|argon2[id]{1,2}|y)\$"  # crypt's
    r"|(?:pass\w*|pwd|secret\w*|token|key|credentials?|auth\w*|sig)[\"']?\s*[=:]"  # within a longer text
    r"|\b(?:bearer|basic)\s+\S",
    re.IGNORECASE,
)
_SHORT = re.compile(r"-[pau]")
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_DIGITS = 3
_RANDOM = re.compile(r"[A-Za-z0-9+/=_-]{20,}")


def secretive(name: str, value: str) -> bool:
    """Whether `value`, called `name`, may be a secret. A path in the container where one is found is none."""
    if not value:
        return False
    if _PLACE.fullmatch(value) and re.search(r"(?:_file|_path|_dir)\Z", name, re.IGNORECASE):
        return False
    return _named(name) or len(value) > _LONGEST or _SAID.search(value) is not None or _random(value)


def secretive_command(words: Sequence[str]) -> bool:
    """Whether a command may hold a secret: by any of its words, those within a shell's script too, or by an option of one letter that often
    has one (-p, -a, -u), unless that is a number, as ports are."""
    said = [word for text in words for word in text.split()]
    if any(secretive(word, text) for text in words for word in ("", *text.split()) if text):
        return True
    return any(_SHORT.match(word) and not _PORT.fullmatch(word[2:] or after) for word, after in zip(said, [*said[1:], ""], strict=True))


def _named(name: str) -> bool:
    if _WITHIN.search(name.replace("_", "").replace("-", "")):
        return True
    words = [word.lower() for word in _WORDS.findall(name)]
    return any(word in _WHOLE or word.endswith(("key", "keys")) for word in words)


def _random(value: str) -> bool:
    """A long word of letters and digits, as nobody would think of: keys, digests."""
    words = _RANDOM.findall(value)
    return any(sum(map(str.isdigit, word)) >= _DIGITS and any(map(str.isalpha, word)) and _changes(word) * 5 >= len(word) for word in words)


def _changes(word: str) -> int:
    """How often it goes from letters to digits, from small to capital, or back."""
    kinds = ["d" if char.isdigit() else "u" if char.isupper() else "l" for char in word if char.isalnum()]
    return sum(one != other for one, other in pairwise(kinds))
