"""Secrets and configs: as files of a container, and where they come from. Their content is never shown."""

from __future__ import annotations

import pytest
from composing import converted, refused, refused_file, service

from hmcore.apps.spec import Attachment, Source
from hmctl.compose.convert import Content

TOP = "secrets: {s: {file: /home/me/shop/s.txt}}\nconfigs: {c: {file: /home/me/shop/c.txt}}\n"


def files(body):
    return list(service(body, rest=TOP).container.files)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("secrets: [s]", Attachment(kind="secret", source="s", target="/run/secrets/s")),
        ("secrets: [{source: s}]", Attachment(kind="secret", source="s", target="/run/secrets/s")),
        ("secrets: [{source: s, target: server.crt, uid: '103', gid: 104, mode: 0o440}]",
         Attachment(kind="secret", source="s", target="/run/secrets/server.crt", uid=103, gid=104, mode=0o440)),
        ("secrets: [{source: s, target: /etc/key, mode: 0400}]", Attachment(kind="secret", source="s", target="/etc/key", mode=0o400)),
        ("secrets: [{source: s, mode: '0777'}]", Attachment(kind="secret", source="s", target="/run/secrets/s", mode=0o555)),
        ("configs: [c]", Attachment(kind="config", source="c", target="/c")),
        ("configs: [{source: c, target: /etc/nginx/nginx.conf}]", Attachment(kind="config", source="c", target="/etc/nginx/nginx.conf")),
        ("configs: [{source: c, target: etc/x}]", Attachment(kind="config", source="c", target="/etc/x")),
    ],
)  # fmt: skip
def test_forms(body, expected):
    assert files(body) == [expected]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("secrets: [t]", "there is no secret t in this file (secrets: {t: ...} at the top level"),
        ("configs: [s]", "there is no config s in this file"),
        ("secrets: [{target: x}]", "has no source"),
        ("secrets: [{source: s, target: ../x}]", "says not where"),
        ("secrets: [{source: s, target: /}]", "says not where"),
        ("secrets: [{source: s, uid: root}]", "a whole number"),
        ("secrets: [{source: s, uid: -1}]", "must be from 0"),
        ("secrets: [{source: s, mode: r}]", "a file's mode"),
        ("secrets: ['a b']", "is the name of no secret"),
        ("secrets: s", "must be a list"),
        ("secrets: [5]", "must be text"),
        ("secrets: [s, {source: s, target: s}]\nvolumes: ['/x:/run/secrets/s']", "at /run/secrets/s already"),
    ],
)
def test_mistakes(body, words):
    problems = refused(body, rest=TOP)
    assert words in problems[0]
    assert problems[0].startswith("compose.yaml:")


def test_where_they_come_from():
    found = converted("""
services:
  web: {image: nginx, secrets: [a, b, c, d, e], configs: [f, g, h]}
secrets:
  a: {file: /home/me/a}
  b: {environment: TOKEN, name: shared-token}
  c: {external: true}
  d: {external: true, name: elsewhere}
  e: {external: {name: older}}
  unused: {file: /home/me/unused}
configs:
  f: {content: "line\\n"}
  g: {file: /home/me/g}
  h: {external: true}
""")
    spec = found.spec
    assert {name: source.name for name, source in spec.secrets.items()} == {
        "a": "shop/a", "b": "shared-token", "c": "c", "d": "elsewhere", "e": "older",
    }  # fmt: skip
    assert spec.configs == {"f": Source(name="shop/f"), "g": Source(name="shop/g"), "h": Source(name="h")}
    assert found.contents == {
        ("secret", "a"): Content("secret", "shop/a", file="/home/me/a"),
        ("secret", "b"): Content("secret", "shared-token", variable="TOKEN"),
        ("config", "f"): Content("config", "shop/f", text="line\n"),
        ("config", "g"): Content("config", "shop/g", file="/home/me/g"),
    }


def test_what_may_be_secret_is_in_no_representation():
    found = converted("""
services:
  web: {build: {context: ., args: {PASSWORD: hunter2}, dockerfile_inline: RUN echo hunter2}, configs: [f]}
configs: {f: {content: hunter2}}
""")
    assert "hunter2" not in repr(found)
    assert found.contents["config", "f"].text == "hunter2"
    assert found.builds["web"].args == {"PASSWORD": "hunter2"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{a: {}}", "comes from nowhere (one of file:, environment:, or external: true)"),
        ("{a: }", "comes from nowhere"),
        ("{a: {file: /x, environment: X}}", "comes from file and environment"),
        ("{a: {external: true, file: /x}}", "what is external comes from the cluster"),
        ("{a: {name: 'x y', file: /x}}", "cannot be a name in the cluster"),
        ("{a: {content: x}}", "unknown key"),
        ("{a/b: {file: /x}}", "cannot be the name of a secret"),
        (f"{{a{'b' * 64}: {{file: /x}}}}", "1 to 64 letters"),
        (f"{{a: {{external: true, name: a{'b' * 64}}}}}", "1 to 64 letters"),
        ("{a: {file: x}}", "an absolute path"),
        ("{a: {file: /x, template_driver: golang}}", "not supported"),
        ("{a: {environment: 'A B'}}", "no blanks"),
    ],
)
def test_origins_that_cannot_be(text, words):
    problems = refused_file(f"services: {{web: {{image: nginx}}}}\nsecrets: {text}\n")
    assert words in problems[0]
    assert problems[0].startswith("compose.yaml:2: secrets.a")


def test_a_value_of_the_environment_is_in_no_mistake():
    for body in (
        "environment: {A: [hunter2]}",
        "environment: {A: {b: hunter2}}",
        "environment: ['A B=hunter2']",
        'environment: {A: "\\0hunter2"}',
    ):
        problems = refused(body)
        assert problems
        assert "hunter2" not in " ".join(problems)
