"""Bytes that do harm when they are unpickled, loaded as YAML with tags, or decoded without bounds; and how to see that nothing did.

Each pickle makes a directory when it is opened (test_hostile_bytes.py shows that they do), and Python's own audit events tell of every
global that any unpickler looks up, in C or in Python, wherever it was imported from.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import os
import pickle
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Reduces:
    """Runs os.mkdir by way of __reduce__."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (self.marker,)


def _assembled(marker: str) -> dict[str, bytes]:
    """By hand, what pickle's own writer does not make: opcodes that call without REDUCE, and globals found by way of others."""
    name = marker.encode()
    text = b"S'" + name + b"'\n"
    plain = b"cposix\nmkdir\n(" + text + b"tR."
    return {
        "global and reduce": plain,
        "inst": b"(" + text + b"iposix\nmkdir\n.",
        "obj": b"(cposix\nmkdir\n" + text + b"o.",
        "stack global": b"\x80\x04\x8c\x05posix\x8c\x05mkdir\x93(" + text + b"tR.",
        "getattr": b"cbuiltins\ngetattr\n(cos\n__dict__\nS'__getitem__'\ntR(S'mkdir'\ntR(" + text + b"tR.",
        "memo": b"cposix\nmkdir\np0\n0g0\n(" + text + b"tR.",
        "framed": b"\x80\x04\x95" + len(plain).to_bytes(8, "little") + plain,
    }


def pickles(marker: Path) -> dict[str, bytes]:
    """By name. Opening any of them makes the directory `marker`."""
    bomb = Reduces(str(marker))
    made: dict[str, bytes] = {}
    for protocol in PROTOCOLS:
        made[f"reduce, protocol {protocol}"] = pickle.dumps(bomb, protocol)
        made[f"nested, protocol {protocol}"] = pickle.dumps({"type": "append_entries", "entries": [(b"\x00", 2, (bomb,))]}, protocol)
        made[f"behind bytes, protocol {protocol}"] = pickle.dumps((b"\xff\x00raw", bomb), protocol)  # up to 2, through _codecs.encode
    return made | {f"assembled: {name}": data for name, data in _assembled(str(marker)).items()}


def wrapped(data: bytes) -> dict[str, bytes]:
    """A pickle as somebody may have packed it: as it is, compressed as pysyncobj does, or as a value of msgpack."""
    return {
        "bare": data,
        "gzip": gzip.compress(data),
        "zlib": zlib.compress(data),
        "bz2": bz2.compress(data),
        "base64": base64.b64encode(data),
        "msgpack bytes": msgspec.msgpack.encode(data),
        "msgpack extension": msgspec.msgpack.encode(msgspec.msgpack.Ext(5, data)),
    }


def everything(marker: Path) -> dict[str, bytes]:
    """Every pickle in every wrapping, and what is too deep or no text for decoders that believe in bounds and UTF-8."""
    packed = {f"{name}; {how}": done for name, data in pickles(marker).items() for how, done in wrapped(data).items()}
    return packed | {
        "deep arrays": b"\x91" * 100_000 + b"\xc0",
        "deep maps": b"\x81\xa0" * 100_000 + b"\xc0",
        "no UTF-8": b"\xa4\xff\xfe\xff\xfe",
        "deep JSON": b"[" * 100_000,
        "deep JSON objects": b'{"a":' * 100_000,
        "JSON that is no UTF-8": b'{"cluster": "\xff\xfe"}',
        "nothing": b"",
        "zeros": bytes(64),
    }


def yamls(marker: Path) -> dict[str, bytes]:
    """Documents that an unsafe loader obeys."""
    return {
        "apply": f"!!python/object/apply:os.mkdir ['{marker}']".encode(),
        "apply, keyed": f"name: !!python/object/apply:os.mkdir {{args: ['{marker}']}}".encode(),
        "new": f"hosts: [!!python/object/new:os.mkdir ['{marker}']]".encode(),
        "tag": f"!<tag:yaml.org,2002:python/object/apply:os.mkdir> ['{marker}']".encode(),
        "handle": f"%TAG !p! tag:yaml.org,2002:python/\n---\n!p!object/apply:os.mkdir ['{marker}']".encode(),
        "aliased": f"a: &x !!python/object/apply:os.mkdir ['{marker}']\nb: *x".encode(),
        "name": b"!!python/name:os.system",
        "module": b"!!python/module:this",
    }


_looked_up: list[str] | None = None  # None: nobody listens


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _looked_up is not None and event == "pickle.find_class":
        _looked_up.append(".".join(map(str, arguments)))


sys.addaudithook(_audit)  # for the life of this process: they cannot be removed


@contextmanager
def nothing_is_opened(marker: Path) -> Iterator[None]:
    """Fails the test if a pickle is opened within, even one that then does no harm."""
    global _looked_up
    _looked_up = []
    try:
        yield
        assert _looked_up == [], f"an unpickler looked for {_looked_up[0]}"
        assert not marker.exists(), "hostile bytes were executed"
    finally:
        _looked_up = None
