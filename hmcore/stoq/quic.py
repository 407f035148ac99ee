"""One QUIC connection as the wire of a Connection: drives aioquic's sans-io QuicConnection with datagrams and timers.

What aioquic's own asyncio layer does not do, and why this takes its place: one transmission per turn of the event loop, acknowledgements
that ride on data (an idle cluster is mostly acknowledgements), noticing within seconds that the other end is gone, and telling why.
The clock is time.monotonic, which event loops agree with; uvloop's own counts whole milliseconds, too coarse for round-trip times.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aioquic import tls
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketSpace

from hmcore.errors import AnotherNode, ConnectionLost, HandshakeRefused, HyperMeshError, NothingListens, PeerUnreachable
from hmcore.pki import Identity
from hmcore.stoq.connection import Connection
from hmcore.stoq.mtls import ALPN, IDLE_TIMEOUT, Verdict, brief, judge

ACK_DELAY = 0.25  # seconds; longer than a Raft heartbeat, so that on an idle cluster every acknowledgement rides on the next one
BULK = 1200  # unacknowledged bytes from which the other end may be waiting for room to send more
BULK_ACK_DELAY = 0.001  # seconds; one acknowledgement for many datagrams
KEEP_ALIVE = IDLE_TIMEOUT / 3
SILENCE = 2.5  # seconds: a peer that acknowledges nothing for so long, while it should, is gone
SECOND_LOOK = 0.25  # seconds granted after the network said that nothing listens there: such a message may be forged or stale
CLOSED, REFUSED = 0, 1  # our error codes in CONNECTION_CLOSE

Address = Any  # as the socket gives it: (host, port) or IPv6's four

log = logging.getLogger("hypermesh.stoq")


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What a wire tells whoever made it. `stopped` is called once, also when `established` never was."""

    send: Callable[[bytes, Address], None]
    established: Callable[[Identity], Connection]
    stopped: Callable[[HyperMeshError], None]
    connection_id: Callable[[bytes, bool], None] = lambda cid, issued: None


def outgoing(
    setup: QuicConfiguration, authority: bytes, callbacks: Callbacks, *, cluster: str, server: Identity, silence: float
) -> QuicWire:
    """The wire of a connection that we make, to `server` and nobody else; QuicWire.dial sends its first packet."""
    quic = QuicConnection(configuration=setup)
    verdict = judge(quic, authority, cluster=cluster, server=server)
    return QuicWire(quic, verdict, callbacks, dialer=True, silence=silence)


class QuicWire:
    """See hmcore.stoq.wire.Wire."""

    def __init__(self, quic: QuicConnection, verdict: Verdict, callbacks: Callbacks, *, dialer: bool, silence: float = SILENCE) -> None:
        self._quic = quic
        self._verdict = verdict
        self._callbacks = callbacks
        self._dialer = dialer
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._stopped = False
        self._space: QuicPacketSpace | None = None  # of application data, once the handshake is complete
        self._data_waiting = False
        self._unacknowledged = 0  # bytes
        self._waiting_since: float | None = None  # since when the other end owes us an acknowledgement and has sent nothing
        self._rtt: float | None = None
        self._answered = False
        self._heard = 0.0
        self._flushing: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._silence_timer: asyncio.TimerHandle | None = None
        self._keep_alive_timer: asyncio.TimerHandle | None = None
        self._second_look: asyncio.TimerHandle | None = None

    # for the connection

    @property
    def backlog(self) -> int:
        return sum(stream.sender._buffer_stop - stream.sender._buffer_start for stream in self._quic._streams.values())

    @property
    def rtt(self) -> float | None:
        return self._rtt

    def write(self, stream: int, data: bytes, end: bool) -> None:
        state = self._quic._streams.get(stream)
        if state is not None and state.sender._reset_error_code is not None:
            return  # the other end stopped the stream in the datagram we are just reading: the session will hear of it next
        self._quic.send_stream_data(stream, data, end)
        self._data_waiting = True
        self._flush_soon()

    def abort(self, stream: int) -> None:
        self._quic.reset_stream(stream, CLOSED)
        state = self._quic._streams.get(stream)
        if state is not None and not state.receiver.is_finished:
            self._quic.stop_stream(stream, CLOSED)
        self._flush_soon()

    def hang_up(self, *, refused: bool, reason: str) -> None:
        if not self._stopped:
            self._flush()
            self._quic.close(error_code=REFUSED if refused else CLOSED, reason_phrase=brief(reason))
            self._connection = None  # it knows
            self._stop(ConnectionLost(reason))

    async def wait_released(self) -> None:
        """Nothing to wait for: the socket belongs to the endpoint."""

    # for the endpoint

    def dial(self, address: Address) -> None:
        self._quic.connect(address, now=time.monotonic())
        self._flush()

    @property
    def heard(self) -> bool:
        """Whether the other end ever sent a packet that could be read."""
        return self._answered

    def receive(self, data: bytes, address: Address) -> None:
        if self._stopped:
            return
        now = time.monotonic()
        try:
            self._quic.receive_datagram(data, address, now)
            self._heed(now)
            self._process_events()
            self._acknowledge(len(data), now)
        except Exception:
            log.exception("reading a datagram failed: the connection is closed")
            self.fail(ConnectionLost("internal error"))

    def suspect(self, said: Exception) -> None:
        """The network says that nothing listens at the other end, or that there is no way to it. Believed if it stays silent."""
        if self._connection is None and isinstance(said, ConnectionRefusedError):
            self.fail(NothingListens("nothing listens there"))
        elif self._connection is None:
            self.fail(PeerUnreachable((getattr(said, "strerror", None) or str(said)).lower()))
        elif self._second_look is None:
            asked = time.monotonic()
            self._second_look = self._loop.call_later(SECOND_LOOK, self._look_again, asked)

    def fail(self, error: HyperMeshError) -> None:
        """Stop with `error`; the other end is told its message."""
        if not self._stopped:
            self._quic.close(error_code=REFUSED if isinstance(error, HandshakeRefused) else CLOSED, reason_phrase=brief(error.message))
            self._stop(error)

    # inside

    def _process_events(self) -> None:
        quic = self._quic
        while not self._stopped and (event := quic.next_event()) is not None:
            match event:
                case events.StreamDataReceived(data, end, stream):
                    if self._connection is not None:
                        self._connection.wire_received(stream, data, end)
                case events.StreamReset(_, stream) | events.StopSendingReceived(_, stream):
                    if self._connection is not None:
                        self._connection.wire_aborted(stream)
                case events.ConnectionIdIssued(cid):
                    self._callbacks.connection_id(cid, True)
                case events.ConnectionIdRetired(cid):
                    self._callbacks.connection_id(cid, False)
                case events.HandshakeCompleted(alpn, _, resumed):
                    self._handshake_completed(alpn, resumed)
                case _:
                    pass
        if self._stopped:
            return
        if (end_event := quic._close_event) is not None:
            self._stop(self._why(end_event, ours=quic._close_pending))
            return
        if self._connection is not None:
            self._connection.wire_advanced()
        self._flush_soon()

    def _handshake_completed(self, alpn: str | None, resumed: bool) -> None:
        identity = self._verdict.identity
        if identity is None or alpn != ALPN or resumed:
            self.fail(HandshakeRefused("the handshake ended without a certificate that we judged"))
            return
        self._space = self._quic._spaces[tls.Epoch.ONE_RTT]
        self._acknowledge_late()
        self._connection = self._callbacks.established(identity)
        self._connection.start(self)
        if self._dialer:
            self._keep_alive_timer = self._loop.call_later(KEEP_ALIVE, self._keep_alive)

    def _why(self, event: events.ConnectionTerminated, *, ours: bool) -> HyperMeshError:
        reason = brief(event.reason_phrase)
        if self._verdict.refused is not None:
            message = f"its certificate is refused: {self._verdict.refused}"
            other = self._verdict.instead
            return AnotherNode(message, found=other.name) if other is not None else HandshakeRefused(message)
        if QuicErrorCode.CRYPTO_ERROR <= event.error_code <= QuicErrorCode.CRYPTO_ERROR + 0xFF:
            alert = event.error_code - QuicErrorCode.CRYPTO_ERROR
            return HandshakeRefused(f"{'TLS failed' if ours else 'it refuses us'}: {reason or f'TLS alert {alert}'}")
        if event.frame_type is None and event.error_code == REFUSED:
            return HandshakeRefused(f"it refuses us: {reason}")
        if event.error_code == QuicErrorCode.CONNECTION_REFUSED:
            return PeerUnreachable(reason or "it accepts no connections now")
        if event.error_code == QuicErrorCode.APPLICATION_ERROR:  # all that RFC 9000 (10.2.3) lets an end say before the handshake is over
            return ConnectionLost("the peer gave up before the handshake was over")
        if event.frame_type is None:
            return ConnectionLost(f"the peer closed the connection: {reason or 'no reason given'}")
        return ConnectionLost(reason or f"QUIC error {event.error_code:#x}")

    def _stop(self, error: HyperMeshError) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._flush()
        for handle in (self._flushing, self._timer, self._silence_timer, self._keep_alive_timer, self._second_look):
            if handle is not None:
                handle.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.wire_lost(error)
        self._callbacks.stopped(error)

    def _flush_soon(self) -> None:
        if self._flushing is None and not self._stopped:
            self._flushing = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = None
        quic = self._quic
        if not quic._network_paths:
            return  # nothing readable has come yet: nobody to send to
        now = time.monotonic()
        space = self._space
        if space is not None and self._data_waiting and space.ack_at is not None:
            space.ack_at = now  # what goes out anyway takes the acknowledgement along
        self._data_waiting = False
        for data, address in quic.datagrams_to_send(now):
            self._callbacks.send(data, address)
        if self._stopped:
            return
        if space is not None:
            if space.ack_at is None:
                self._unacknowledged = 0
            if space.ack_eliciting_in_flight == 0:
                self._waiting_since = None
            elif self._waiting_since is None:
                self._waiting_since = now
                if self._silence_timer is None:
                    self._silence_timer = self._loop.call_at(now + self._silence, self._listen)
        at = quic.get_timer()
        if self._timer is not None and self._timer_at != at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and at is not None:
            self._timer_at = at
            self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._quic.handle_timer(max(self._timer_at, time.monotonic()))
        self._process_events()

    def _heed(self, now: float) -> None:
        """Note whether a packet was read: a forged one does not count."""
        if self._space is None:
            self._answered = self._answered or self._quic._remote_initial_source_connection_id is not None
        elif self._space.largest_received_time == now:
            self._heard = now
            self._waiting_since = None

    def _acknowledge(self, size: int, now: float) -> None:
        """Decide when to acknowledge what was just read: by the next thing we send, but soon if it may be one of many, and at once if
        something before it is missing (RFC 9000 section 13.2.1)."""
        space = self._space
        if space is None or space.ack_at is None:
            return
        self._unacknowledged += size
        if len(space.ack_queue) > 1:
            space.ack_at = now
        elif self._unacknowledged >= BULK:
            space.ack_at = min(space.ack_at, now + BULK_ACK_DELAY)

    def _acknowledge_late(self) -> None:
        """Let acknowledgements wait, on both ends of STOQ alike, instead of QUIC's 25 ms.

        An idle link then carries half the packets and wakes each end half as often. The price: the last packet of a burst, when lost, is
        sent again that much later. aioquic cannot tell a round trip of under a millisecond from the delay of its acknowledgement (it takes
        no round trip for shorter than one), so the delay is taken off here, by moving the time at which the packet was sent.
        """
        loss = self._quic._loss
        loss.max_ack_delay = ACK_DELAY * 1.1
        self._quic._ack_delay = ACK_DELAY
        received = loss.on_ack_received

        def on_ack_received(*, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace) -> None:
            packet = space.sent_packets.get(ack_rangeset.bounds().stop - 1)
            if packet is not None and packet.sent_time is not None:
                packet.sent_time += max(0.0, min(ack_delay, now - packet.sent_time))
                sample = now - packet.sent_time
                self._rtt = sample if self._rtt is None else self._rtt + (sample - self._rtt) / 8  # RFC 9002 section 5.3
            received(ack_rangeset=ack_rangeset, ack_delay=0.0, now=now, space=space)

        loss.on_ack_received = on_ack_received  # type: ignore[method-assign]

    def _listen(self) -> None:
        self._silence_timer = None
        if self._waiting_since is None:
            return
        due = self._waiting_since + self._silence
        if time.monotonic() >= due:
            self.fail(ConnectionLost(f"the peer has been silent for {self._silence:g} s"))
        else:
            self._silence_timer = self._loop.call_at(due, self._listen)

    def _look_again(self, asked: float) -> None:
        self._second_look = None
        if self._heard < asked:
            self.fail(ConnectionLost("nothing listens there any more"))

    def _keep_alive(self) -> None:
        now = time.monotonic()
        due = self._quic._loss._time_of_last_sent_ack_eliciting_packet + KEEP_ALIVE
        if now >= due:
            self._quic.send_ping(0)
            self._flush_soon()
            due = now + KEEP_ALIVE
        self._keep_alive_timer = self._loop.call_at(due, self._keep_alive)
