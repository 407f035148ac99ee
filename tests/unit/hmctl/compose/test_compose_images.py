"""What is built, and when an image is looked for."""

from __future__ import annotations

import pytest
from composing import FOLDER, converted, refused, warnings

from hmctl.compose.convert import Build


def build(text, image=""):
    found = converted(f"services:\n  Web:\n    build: {text}\n{image}")
    return found.spec.services["Web"].container.image, found.builds["Web"]


def test_a_folder():
    image = "shop-web"
    assert build(".") == (image, Build(image, FOLDER, f"{FOLDER}/Dockerfile"))
    assert build("./app") == (image, Build(image, f"{FOLDER}/app", f"{FOLDER}/app/Dockerfile"))
    assert build("/srv/app", "    image: me/app:1\n") == ("me/app:1", Build("me/app:1", "/srv/app", "/srv/app/Dockerfile"))
    url = "https://github.com/a/b.git#main"
    assert build(f"'{url}'") == (image, Build(image, url, "Dockerfile"))


def test_all_of_it():
    _, found = build(
        "{context: app, dockerfile: ../Dockerfile.prod, args: {A: 1, B: }, target: prod, labels: [x=y], cache_from: [me/app],"
        " network: host, extra_hosts: [a=1.1.1.1], additional_contexts: {lib: ../lib, base: 'docker-image://alpine'},"
        " shm_size: 64m, no_cache: true, pull: true, platforms: [linux/amd64]}"
    )
    assert found == Build(
        image="shop-web", context=f"{FOLDER}/app", dockerfile=f"{FOLDER}/Dockerfile.prod", args={"A": "1", "B": None}, target="prod",
        labels={"x": "y"}, cache_from=("me/app",), network="host", extra_hosts=("a:1.1.1.1",),
        contexts={"lib": "/home/me/lib", "base": "docker-image://alpine"}, shm_size=64 << 20,
        no_cache=True, pull=True, platforms=("linux/amd64",),
    )  # fmt: skip
    assert build("{dockerfile_inline: FROM x}")[1] == Build("shop-web", FOLDER, dockerfile_inline="FROM x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{contxt: .}", "did you mean context?"),
        ("{context: -rm}", "nor begin with -"),
        ("{target: '-x'}", "cannot be"),
        ("{ssh: [default]}", "build the image yourself"),
        ("{dockerfile: a, dockerfile_inline: b}", "one of the two"),
        ("5", "must be a mapping"),
        ("{args: [A B=c]}", "is no name"),
    ],
)
def test_builds_that_cannot_be(text, words):
    (problem,) = refused(f"build: {text}")
    assert words in problem
    assert problem.startswith("compose.yaml:3: services.web.build")


def test_an_image_or_a_build():
    from composing import refused_file

    assert "image: NAME, or build: FOLDER" in refused_file("services: {web: {restart: always}}")[0]
    assert "image: NAME, or build: FOLDER" in refused_file("services: {web: }")[0]


def test_when_it_is_looked_for():
    def pull(text):
        return converted(f"services: {{web: {{image: x, pull_policy: {text}}}}}").pulls.get("web")

    assert [pull(text) for text in ("", "always", "missing", "if_not_present", "never", "daily", "every_12h")] == [
        None, "always", "missing", "missing", "never", "always", "always",
    ]  # fmt: skip
    assert "counts as always" in warnings("pull_policy: every_12h")[0]
    assert "must be one of" in refused("pull_policy: sometimes")[0]
    assert "build: FOLDER" in refused("pull_policy: build")[0]


def test_what_is_built_is_looked_for_nowhere():
    built = "build: .\nimage: x\npull_policy: {0}"
    assert not warnings(built.format("build"))
    for policy in ("always", "missing", "never", "weekly"):
        (said,) = warnings(built.format(policy))
        assert "services.web.pull_policy: does nothing here" in said
        assert converted(f"services: {{web: {{build: ., image: x, pull_policy: {policy}}}}}").pulls == {}
