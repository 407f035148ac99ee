"""Takes the place of `pickle` inside pysyncobj: msgpack, which cannot name code. Arrays decode to tuples, as pysyncobj expects.

The functions bear pickle's names because pysyncobj calls them by those names (see engine.install).
"""

from __future__ import annotations

from typing import IO, Any, TypeVar

import msgspec

# pysyncobj's first byte of a log entry (entries.py)
REGULAR = b"\x00"
NO_OP = b"\x01"

T = TypeVar("T")

_any: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()


def read(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    """What `data` holds. Raises msgspec.DecodeError, and nothing else: by itself the decoder also lets out UnicodeDecodeError, for text
    that is no UTF-8, and RecursionError, for what is nested too deeply. Either would stop every node that meets such bytes in the log."""
    try:
        return decoder.decode(data)
    except msgspec.DecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error


def dumps(value: object, protocol: object = None) -> bytes:
    return msgspec.msgpack.encode(value)


def loads(data: bytes) -> Any:
    """Raises msgspec.DecodeError, a ValueError, for whatever is not exactly one msgpack value."""
    return _tuples(read(_any, data))


def dump(value: object, file: IO[bytes], protocol: object = None) -> None:
    file.write(dumps(value))


def load(file: IO[bytes]) -> Any:
    return loads(file.read())


def to_bytes(data: bytes | str) -> bytes:
    return data if isinstance(data, bytes) else data.encode()


def _tuples(value: Any) -> Any:
    match value:
        case list():
            return tuple(map(_tuples, value))
        case dict():
            return {key: _tuples(item) for key, item in value.items()}
        case _:
            return value
