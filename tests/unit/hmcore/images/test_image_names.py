"""Names of images, as Docker's people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import UsageError
from hmcore.images.names import digest_in, familiar, loaded_name, parse

D = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "registry", "path", "tag", "digest", "short"),
    [
        ("nginx", "docker.io", "library/nginx", "latest", "", "nginx:latest"),
        ("nginx:1.27", "docker.io", "library/nginx", "1.27", "", "nginx:1.27"),
        ("docker.io/library/nginx", "docker.io", "library/nginx", "latest", "", "nginx:latest"),
        ("index.docker.io/nginx", "docker.io", "library/nginx", "latest", "", "nginx:latest"),
        ("team/web", "docker.io", "team/web", "latest", "", "team/web:latest"),
        ("example.org/web:2", "example.org", "web", "2", "", "example.org/web:2"),
        ("example.org:5000/a/b__c-d.e", "example.org:5000", "a/b__c-d.e", "latest", "", "example.org:5000/a/b__c-d.e:latest"),
        ("localhost/web", "localhost", "web", "latest", "", "localhost/web:latest"),
        ("[fd00::1]:5000/web:x", "[fd00::1]:5000", "web", "x", "", "[fd00::1]:5000/web:x"),
        (f"web@{D}", "docker.io", "library/web", "", D, f"web@{D}"),
        (f"example.org/web:1@{D}", "example.org", "web", "1", D, f"example.org/web:1@{D}"),
        ("docker.io/library/a/b", "docker.io", "library/a/b", "latest", "", "library/a/b:latest"),
    ],
)
def test_a_name_is_taken_apart_and_put_together(text: str, registry: str, path: str, tag: str, digest: str, short: str) -> None:
    name = parse(text)
    assert (name.registry, name.path, name.tag, name.digest, name.familiar) == (registry, path, tag, digest, short)
    assert parse(name.familiar) == name


@pytest.mark.parametrize(
    "text",
    ["", "Web", "web:", "web:-x", "a//b", "/web", "web/", "-web", "--output", "web_", "a b", "web@sha256:12", "web@", D, "ab" * 32,
     "x" * 300, "web:" + "t" * 129, "example.org/", "a\nb", "web\n", "example.org:port/web", "_/web"],
)  # fmt: skip
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


@given(st.text(max_size=80) | st.from_regex(r"[a-z.:/@_A-Z0-9-]{0,40}"))
def test_any_text_is_a_name_or_an_error_and_short_forms_are_stable(text: str) -> None:
    try:
        short = familiar(text)
    except UsageError:
        return
    assert familiar(short) == short


def test_what_we_load_has_a_name_that_docker_takes() -> None:
    assert parse(loaded_name(D)).tag == "ab" * 32


def test_the_digest_in_a_name() -> None:
    for said in (f"web@{D}", f"web:1@{D}", f"example.org:5000/team/web@{D}"):
        assert digest_in(said) == D
    for said in ("web:1", D, f"@{D}", f"<none>@{D}", "web@sha256:12", f"web@{D}@{D}", ""):
        assert digest_in(said) == ""
