"""Two sessions and the wire between them, which delivers when told to."""

from __future__ import annotations

from collections.abc import Callable

from stoq_world import identity, local

from hmcore.pki import Identity
from hmcore.stoq.events import Abort, Event, Write
from hmcore.stoq.greeting import Acceptor, Dialer, certified
from hmcore.stoq.session import Session


def acceptor(**options: object) -> Session:
    return Session(Acceptor(local("n1"), certified(identity("n2")), **options))  # type: ignore[arg-type]


def dialer(expected: Identity | None = None, **options: object) -> Session:
    return Session(Dialer(local("n2"), expected or identity("n1"), **options))  # type: ignore[arg-type]


class Talk:
    def __init__(
        self, left: Session | None = None, right: Session | None = None, cut: Callable[[bytes], list[bytes]] = lambda d: [d]
    ) -> None:
        self.dialer, self.acceptor = left or dialer(), right or acceptor()
        self.cut = cut
        self.events: dict[Session, list[Event]] = {self.dialer: [], self.acceptor: []}
        self.writes: list[Write | Abort] = []  # all that was delivered
        self.run()

    def run(self) -> None:
        """Deliver until both have nothing to say."""
        ends = ((self.dialer, self.acceptor), (self.acceptor, self.dialer))
        while any([self.deliver(*end) for end in ends]):
            pass

    def deliver(self, sender: Session, receiver: Session) -> bool:
        writes = sender.take_writes()
        for write in writes:
            self.writes.append(write)
            match write:
                case Write(stream, data, end):
                    *first, last = self.cut(data)
                    for piece in first:
                        receiver.receive(stream, piece, False, 0.0)
                    receiver.receive(stream, last, end, 0.0)
                case Abort(stream):
                    receiver.aborted(stream)
            self.events[receiver] += receiver.take_events()
        self.events[sender] += sender.take_events()
        return bool(writes)

    def heard(self, session: Session) -> list[Event]:
        events, self.events[session] = self.events[session], []
        return events


def greeted(left: Session | None = None, right: Session | None = None) -> Talk:
    talk = Talk(left, right)
    talk.heard(talk.dialer)
    talk.heard(talk.acceptor)
    talk.writes.clear()
    return talk
