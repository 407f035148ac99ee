"""The process that speaks to the kernel about links and routes, for links.py: questions on its standard input, answers on its output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, BinaryIO, get_args

import msgspec

from node_agent.network import kernel
from node_agent.network.actions import Action
from node_agent.network.netlink_messages import LENGTH, Answer, Question, framed

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Action)}

_questions = msgspec.msgpack.Decoder(Question)


def answer(question: Question) -> Answer:
    sysctls = Path(question.sysctls)
    try:
        if question.do is None:
            return Answer(seen=kernel.observe(sysctls))
        kernel.carry_out([msgspec.convert(fields, _KINDS[name]) for name, fields in question.do], sysctls)
    except kernel.Refused as error:
        return Answer(refused=str(error), errno=error.errno)
    return Answer()


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    while len(length := questions.read(LENGTH)) == LENGTH:
        question = _questions.decode(questions.read(int.from_bytes(length, "big")))
        answers.write(framed(answer(question)))
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
