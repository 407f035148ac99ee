"""Docker's words, of several versions, as types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import ContainerRefused, ImageGone, NameTaken, NoSpace, PartGone, PortTaken
from node_agent.container.refusals import MOST_WORDS, refusal, unanswered, wants_login

ID = "3f2a9c" * 10


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (404, "No such image: web:1", ImageGone),
        (404, f"No such container: {ID}", PartGone),
        (404, f"network {ID} not found", PartGone),
        (404, "get data: no such volume", PartGone),
        (409, f'Conflict. The container name "/web" is already in use by container "{ID}". You have to remove it.', NameTaken),
        (
            409,
            f"You cannot remove a running container {ID}. Stop the container before attempting removal",
            ContainerRefused,
        ),
        (
            500,
            "driver failed programming external connectivity: Bind for 0.0.0.0:80 failed: port is already allocated",
            PortTaken,
        ),
        (500, "Error starting userland proxy: listen tcp4 0.0.0.0:80: bind: address already in use", PortTaken),
        (500, "failed to set up container networking: failed to bind host port for 0.0.0.0:80: address already in use", PortTaken),
        (500, "mkdir /var/lib/docker/overlay2/x-init: no space left on device", NoSpace),
        (400, 'OCI runtime create failed: exec: "nope": executable file not found in $PATH: unknown', ContainerRefused),
        (400, 'invalid mount config for type "bind": bind source path does not exist: /srv/x', ContainerRefused),
        (500, "", ContainerRefused),
    ],
)
def test_what_docker_means(status: int, words: str, kind: type[ContainerRefused]) -> None:
    assert type(refusal(status, words)) is kind


@given(st.integers(), st.text())
def test_any_words_are_a_refusal_of_one_line(status: int, words: str) -> None:
    said = refusal(status, words).message
    assert 0 < len(said) <= MOST_WORDS
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "wants"),
    [
        ("Get http://10.0.0.1:5000/v2/web/manifests/1: no basic auth credentials", True),
        ("errors:\nunauthorized: authentication required\n", True),
        ("pull access denied for web, repository does not exist or may require 'docker login'", True),
        ("denied: requested access to the resource is denied", True),
        ("manifest for web:9 not found: manifest unknown: manifest unknown", False),
        ("dial tcp 10.0.0.1:5000: connect: connection refused", False),
        ("", False),
    ],
)
def test_a_registry_that_wants_to_know_who_asks(words: str, wants: bool) -> None:
    assert wants_login(words) is wants


@pytest.mark.parametrize(
    ("status", "words", "is_silent"),
    [
        (500, 'Get "https://10.0.0.1:5000/v2/": dial tcp 10.0.0.1:5000: connect: connection refused', True),
        (500, 'Get "https://example.org/v2/": dial tcp: lookup example.org on 127.0.0.53:53: no such host', True),
        (500, 'Get "https://example.org/v2/": net/http: request canceled (Client.Timeout exceeded while awaiting headers)', True),
        (500, 'Get "https://example.org/v2/": dial tcp 10.0.0.1:443: i/o timeout', True),
        (500, 'Get "https://example.org/v2/": context deadline exceeded', True),
        (500, 'Get "https://example.org/v2/": EOF', True),
        (500, "received unexpected HTTP status: 502 Bad Gateway", True),
        (500, "error parsing HTTP 503 response body: invalid character '<' looking for beginning of value", True),
        (503, "unavailable: service unavailable", True),
        (429, "toomanyrequests: You have reached your unauthenticated pull rate limit.", True),
        (500, "error parsing HTTP 429 response body: unexpected end of JSON input", True),
        (500, "", True),
        (404, "manifest unknown: manifest unknown", False),
        (500, "manifest for web:9 not found: manifest unknown: manifest unknown", False),
        (404, "name unknown: repository name not known to registry", False),
        (500, "error parsing HTTP 404 response body: invalid character 'p' after top-level value", False),
        (500, "received unexpected HTTP status: 403 Forbidden", False),
        (401, "unauthorized: authentication required", False),
        (500, 'Head "http://10.0.0.1:5000/v2/web/manifests/1": no basic auth credentials', False),
        (403, "denied: requested access to the resource is denied", False),
        (400, "invalid reference format", False),
    ],
)
def test_a_registry_that_gives_no_answer_is_none_that_says_no(status: int, words: str, is_silent: bool) -> None:
    assert unanswered(status, words) is is_silent
