"""Any bytes are a request or get an answer that says what is wrong."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.platform.http import Request, Response, encode, parse, text


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Request("/metrics", False)),
        (b"GET /metrics?a=b HTTP/1.0\r\n\r\n", Request("/metrics", False)),
        (b"HEAD / HTTP/1.1\r\n\r\n", Request("/", True)),
    ],
)
def test_a_request(head, expected):
    assert parse(head) == expected


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"DELETE / HTTP/1.1\r\n\r\n", 405),
        (b"GET metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),  # somebody speaks TLS
        (b"", 400),
    ],
)
def test_no_request(head, status):
    refusal = parse(head)
    assert isinstance(refusal, Response)
    assert refusal.status == status


@given(st.binary(max_size=300))
def test_anything_at_all_is_answered(head):
    assert isinstance(parse(head), Request | Response)


def test_a_response_says_how_long_it_is_and_that_it_is_the_last():
    response = text(HTTPStatus.METHOD_NOT_ALLOWED, "no", ("Allow", "GET, HEAD"))
    sent = encode(response)
    assert sent.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert sent.endswith(b"\r\n\r\nno\n")
    for header in (b"Content-Length: 3", b"Connection: close", b"Allow: GET, HEAD", b"Content-Type: text/plain; charset=utf-8"):
        assert header in sent.split(b"\r\n")
    assert encode(response, head=True) == sent.removesuffix(b"no\n")
