"""What a session knows of one stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from hmcore.stoq.frames import FrameReader
from hmcore.stoq.window import Window


class Use(Enum):
    NEW = auto()  # opened by the other end, its first frame has not come
    HELLO = auto()
    CALLER = auto()
    CALLEE = auto()
    MESSAGES = auto()
    ASKING = auto()  # our lane
    ANSWERING = auto()  # the other end's lane
    APART = auto()  # our answer to a call on its lane
    ARRIVED = auto()  # its answer to a call on our lane


@dataclass(slots=True)
class Stream:
    id: int
    use: Use
    reader: FrameReader = field(default_factory=FrameReader)
    sent_end: bool = False
    got_end: bool = False
    method: str = ""  # of the call that we made
    answered: bool = False  # that call
    held: int = 0  # bytes of the call that we have not answered
    window: Window | None = None  # of a stream of messages
    number: int = 0  # of the call whose answer is apart
