"""As much HTTP as a scrape needs (RFC 9112): the head of one request in, one response out. Pure: any bytes give a request or a refusal."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus

HEAD_LIMIT = 8192  # bytes of a request's first line and headers
HEAD_END = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.[01]")
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """`head`: only the headers of the answer are wanted."""

    path: str
    head: bool


@dataclass(frozen=True, slots=True)
class Response:
    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()


def parse(head: bytes) -> Request | Response:
    """What is asked by a request that begins with `head`; or the answer, when that is no question for us."""
    line = _REQUEST_LINE.fullmatch(head.partition(b"\r\n")[0])
    if line is None:
        return text(HTTPStatus.BAD_REQUEST, "this is no HTTP/1.1 request")
    if line[1] not in (b"GET", b"HEAD"):
        return text(HTTPStatus.METHOD_NOT_ALLOWED, "only GET is served", ("Allow", "GET, HEAD"))
    return Request(line[2].decode("ascii").partition("?")[0], line[1] == b"HEAD")


def text(status: HTTPStatus, message: str, *headers: tuple[str, str]) -> Response:
    return Response(status, f"{message}\n".encode(), headers=headers)


def encode(response: Response, *, head: bool = False) -> bytes:
    """The bytes to send; after them the connection is closed."""
    headers = [
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        ("Connection", "close"),
        ("X-Content-Type-Options", "nosniff"),
        *response.headers,
    ]
    lines = [f"HTTP/1.1 {response.status.value} {response.status.phrase}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1") + (b"" if head else response.body)
