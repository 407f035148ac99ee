"""Docker's words, of several versions, as types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import ContainerRefused, ImageGone, NameTaken, NoSpace, PartGone, PortTaken
from node_agent.container.refusals import MOST_WORDS, refusal, wants_login

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
