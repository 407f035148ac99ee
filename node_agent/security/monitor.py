"""The ring buffer's reader: records from the kernel, in batches, at a bounded pace.

libbpf reads the buffer: its order of memory accesses is right on every architecture, which Python's cannot be. After each batch the reader
rests; meanwhile the buffer fills, and when it is full the kernel counts what it drops. So 10,000 events a second cost no more than a few
hundred batches a minute do.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable

from hmcore.errors import LayerDown, LayerMissing
from node_agent.security.maps import Record, parse_record

LIBRARY = "libbpf.so.1"
BATCH = 512  # records: with REST, more a second than the kernel may send of both kinds (maps.RATE)
REST = 0.1  # seconds between two batches
_FULL = -1  # ends one round of libbpf's

_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class Monitor:
    """`open` and `close` as often as needed; `on_records` gets each batch on the event loop."""

    def __init__(self, on_records: Callable[[list[Record]], None]) -> None:
        self._on_records = on_records
        self._library: ctypes.CDLL | None = None
        self._ring: int | None = None
        self._epoll = -1
        self._batch: list[Record] = []
        self._sample = _SAMPLE(self._take)  # libbpf holds no reference to it
        self._resting: asyncio.TimerHandle | None = None

    def open(self, ring_fd: int) -> None:
        """Read the ring buffer from now on. Raises LayerMissing without libbpf, LayerDown if it does not accept the buffer."""
        self._library = library = load_library()
        self._ring = library.ring_buffer__new(ring_fd, self._sample, None, None)
        if not self._ring:
            raise LayerDown(f"{LIBRARY} cannot read the ring buffer: {ctypes.get_errno()}", fix="journalctl -k")
        self._epoll = library.ring_buffer__epoll_fd(self._ring)
        asyncio.get_running_loop().add_reader(self._epoll, self._ready)

    def close(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._ring is not None and self._library is not None:
            asyncio.get_running_loop().remove_reader(self._epoll)
            self._library.ring_buffer__free(self._ring)
        self._ring, self._epoll = None, -1

    def _ready(self) -> None:
        assert self._library is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._epoll)
        self._resting = loop.call_later(REST, self._rested)
        self._library.ring_buffer__consume(self._ring)
        batch, self._batch = self._batch, []
        if batch:
            self._on_records(batch)

    def _rested(self) -> None:
        self._resting = None
        asyncio.get_running_loop().add_reader(self._epoll, self._ready)

    def _take(self, _: object, address: int, size: int) -> int:
        record = parse_record(ctypes.string_at(address, size))
        if record is not None:
            self._batch.append(record)
        return _FULL if len(self._batch) >= BATCH else 0


def load_library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY, use_errno=True)
    except OSError as error:
        raise LayerMissing(f"{LIBRARY} cannot be loaded: {error}", fix="apt-get install libbpf1") from error
    library.ring_buffer__new.restype = ctypes.c_void_p
    library.ring_buffer__new.argtypes = [ctypes.c_int, _SAMPLE, ctypes.c_void_p, ctypes.c_void_p]
    for function in (library.ring_buffer__free, library.ring_buffer__consume, library.ring_buffer__epoll_fd):
        function.argtypes = [ctypes.c_void_p]
    return library
