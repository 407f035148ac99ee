"""What a plan says of two specs of an app: what is replaced and why, and never a secret."""

from __future__ import annotations

import json

import msgspec
import pytest
from composing import converted
from hypothesis import given, settings
from hypothesis import strategies as st

from hmcore.apps.spec import Source, revision
from hmctl.compose.difference import Change, Detail, changed, difference, documents, lines

BASE = """
services:
  web:
    image: nginx:1
    command: serve --password hunter2
    environment: {A_PASSWORD: hunter2, B: same, URL: "redis://me:hunter2@cache:6379"}
    labels: {a.token: hunter2, rule: Host}
    healthcheck: {test: check hunter2}
    ports: ["8080:80"]
    volumes: [data:/data, "/srv:/srv:ro"]
    secrets: [key]
    deploy: {replicas: 2}
volumes: {data: {driver_opts: {o: "password=hunter2", type: nfs}}}
secrets: {key: {external: true}}
"""


def spec(*changes):
    text = BASE + "networks: {back: {}}\n"
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return converted(text).spec


def change(*changes):
    (found,) = difference(spec(), spec(*changes))
    return found


def hidden_everywhere(found):
    assert "hunter" not in " ".join(lines((found,)))
    assert "hunter" not in json.dumps(documents((found,)))


def test_nothing():
    assert difference(spec(), spec()) == (Change("web", "unchanged"),)
    assert lines(difference(spec(), spec())) == ("keep web",)


CREATED = (
    Detail("image", None, "nginx:1", "image: nginx:1"),
    Detail("replicas", None, 2, "replicas: 2"),
    Detail("ports", None, "8080:80/tcp", "port: 8080:80/tcp"),
)


def test_created_and_removed():
    assert difference(None, spec()) == (Change("web", "created", settings=CREATED),)
    assert lines(difference(None, spec())) == ("create web", "  image: nginx:1", "  replicas: 2", "  port: 8080:80/tcp")
    other = converted("services: {db: {image: x, deploy: {mode: global}}}").spec
    assert lines(difference(spec(), other)) == ("create db", "  image: x", "  on every node that fits", "remove web")


@pytest.mark.parametrize(
    ("before", "after", "because"),
    [
        ("nginx:1", "nginx:2", "image: nginx:1 -> nginx:2"),
        ("A_PASSWORD: hunter2", "A_PASSWORD: other2", "environment.A_PASSWORD: changed"),
        ("A_PASSWORD: hunter2, ", "", "environment.A_PASSWORD: removed"),
        ("B: same", "B: same, KEY: hunter3", "environment.KEY: added"),
        ("B: same", "B: other", "environment.B: same -> other"),
        ("B: same", "C: same", "environment.B: same -> nothing"),
        ("B: same", "C: same", "environment.C: nothing -> same"),
        ("B: same", 'B: ""', "environment.B: same -> empty"),
        ("B: same", "B: postgres://me:hunter3@db", "environment.B: changed"),
        ("cache:6379", "cache:6380", "environment.URL: changed"),
        ("rule: Host", "rule: Path", "labels.rule: Host -> Path"),
        ("serve --password hunter2", "serve", "command: changed"),
        ("image: nginx:1", "image: nginx:1\n    entrypoint: [sh, -c, 'exec a -p 80']", "entrypoint: nothing -> sh -c 'exec a -p 80'"),
        ("    command: serve --password hunter2\n", "", "command: removed"),
        ("a.token: hunter2", "a.token: hunter3", "labels.a.token: changed"),
        ("check hunter2", "check hunter3", "healthcheck.test: changed"),
        ("healthcheck: {test: check hunter2}", "healthcheck: {test: check hunter2, retries: 9}", "healthcheck.retries: 3 -> 9"),
        ("/srv:/srv:ro", "/srv:/srv", "mount /srv: bind /srv, read_only=true -> bind /srv"),
        (', "/srv:/srv:ro"', "", "mount /srv: bind /srv, read_only=true -> nothing"),
        ("password=hunter2", "password=hunter3", "volumes.data.options.o: changed"),
        ("type: nfs", "type: cifs", "volumes.data.options.type: nfs -> cifs"),
        ("secrets: [key]", "secrets: [{source: key, mode: 0400}]",
         "file /run/secrets/key: secret key, 0:0, 0444 -> secret key, 0:0, 0400"),
        ("key: {external: true}", "key: {external: true, name: key2}", "secret key: key -> key2"),
        ("    deploy:", "    mem_limit: 64m\n    deploy:", "limits.memory: nothing -> 64m"),
        ("    deploy:", "    cpus: 0.5\n    deploy:", "limits.cpus: nothing -> 0.5"),
        ("    deploy:", "    ulimits: {nofile: 9}\n    deploy:", "ulimits.nofile: added"),
        ("    deploy:", "    networks: [default, back]\n    deploy:", "networks.back: added"),
        ("    deploy:", "    read_only: true\n    deploy:", "read_only: false -> true"),
        ("    deploy:", "    cap_add: [NET_ADMIN, SYS_TIME]\n    deploy:", "cap_add: nothing -> NET_ADMIN, SYS_TIME"),
        ('[data:/data, "/srv:/srv:ro"]', '["/srv:/srv:ro", data:/data]', "the order in which it is put together"),
    ],
)  # fmt: skip
def test_replaced(before, after, because):
    found = change((before, after))
    assert found.kind == "replaced"
    assert because in [detail.words for detail in found.because]
    hidden_everywhere(found)


@pytest.mark.parametrize(
    ("before", "after", "setting"),
    [
        ("replicas: 2", "replicas: 5", "replicas: 2 -> 5"),
        ("replicas: 2", "mode: global", "mode: replicated -> global"),
        ('"8080:80"', '"8081:80"', "port: 8080:80/tcp -> nothing"),
        ("replicas: 2", "replicas: 2, update_config: {order: start-first}", "update.order: stop-first -> start-first"),
        ("replicas: 2", "replicas: 2, labels: {x_secret: hunter4}", "labels.x_secret: added"),
        (
            "replicas: 2",
            "replicas: 2, placement: {constraints: [node.role==worker]}",
            "placement.constraints: nothing -> node.role==worker",
        ),
        ("    deploy:", "    x-hypermesh: {weight: 5}\n    deploy:", "weight: 100 -> 5"),
    ],
)
def test_changed_in_place(before, after, setting):
    found = change((before, after))
    assert (found.kind, found.because) == ("changed", ())
    assert setting in [detail.words for detail in found.settings]
    hidden_everywhere(found)


def test_contents_and_images_that_are_others_now():
    old = spec()
    web = old.services["web"]
    new = msgspec.structs.replace(
        old,
        secrets={"key": Source(name="key", digest="abc")},
        services={"web": msgspec.structs.replace(web, container=msgspec.structs.replace(web.container, image_id="sha256:" + "c" * 64))},
    )
    (found,) = difference(old, new)
    assert [detail.words for detail in found.because] == [
        "image: nginx:1 is another one now (not known -> cccccccccccc)",
        "secret key: other content",
    ]
    assert "abc" not in json.dumps(documents((found,)))


def test_what_is_not_known_yet_counts_as_what_it_was():
    new = spec()
    web = new.services["web"]
    known = msgspec.structs.replace(
        new,
        secrets={"key": Source(name="key", digest="abc")},
        services={"web": msgspec.structs.replace(web, container=msgspec.structs.replace(web.container, image_id="sha256:" + "c" * 64))},
    )
    assert not changed(difference(known, new))
    (found,) = difference(known, spec(("nginx:1", "nginx:2")))
    assert [detail.words for detail in found.because] == ["image: nginx:1 -> nginx:2"]
    (found,) = difference(known, spec(("key: {external: true}", "key: {external: true, name: key2}")))
    assert [detail.words for detail in found.because] == ["secret key: key -> key2"]


def test_as_data():
    old, new = spec(), spec(("hunter2, B: same", "hunter3, B: other"), ("replicas: 2", "replicas: 3"))
    assert documents(difference(old, new)) == [
        {
            "service": "web",
            "action": "replaced",
            "changes": [
                {"path": "environment.A_PASSWORD", "old": "(hidden)", "new": "(hidden)", "replaces": True},
                {"path": "environment.B", "old": "same", "new": "other", "replaces": True},
                {"path": "replicas", "old": 2, "new": 3, "replaces": False},
            ],
        }
    ]
    assert documents(difference(old, old)) == [{"service": "web", "action": "unchanged", "changes": []}]


def test_a_port_of_the_node_is_part_of_the_container():
    found = change(('"8080:80"', '"127.0.0.1:8080:80"'))
    assert found.kind == "replaced"
    assert [detail.words for detail in found.because] == ["ports on its node"]
    assert "port: nothing -> 127.0.0.1:8080:80/tcp on its node" in [detail.words for detail in found.settings]


def test_the_terminal_cannot_be_steered():
    found = change(("B: same", 'B: "a\\x1b[2J"'))
    assert "environment.B: same -> a[2J" in [detail.words for detail in found.because]
    assert "\x1b" not in " ".join(lines((found,)))


CHANGES = st.lists(
    st.sampled_from(
        [
            ("nginx:1", "nginx:2"), ("B: same", "C: other"), ("replicas: 2", "replicas: 3"), ('"8080:80"', '"8081:80"'),
            ("check hunter2", "x"), ("/srv:/srv:ro", "/srv:/mnt"), ("driver_opts: {o:", "driver_opts: {p:"),
            ("[key]", "[{source: key, uid: 5}]"),
        ]
    ),
    unique=True,
)  # fmt: skip


@settings(deadline=None)
@given(CHANGES, CHANGES)
def test_a_container_is_replaced_exactly_when_its_revision_is_another(one, other):
    old, new = spec(*one), spec(*other)
    (found,) = difference(old, new)
    assert (found.kind == "replaced") == (revision(old, "web") != revision(new, "web"))
    assert bool(found.because) == (found.kind == "replaced")
    assert (found.kind == "unchanged") == (old == new)
    hidden_everywhere(found)


def test_commands_are_shown_shortened_unless_they_may_hold_a_secret():
    def said(before, after):
        old, new = (converted(f"services: {{web: {{image: x, command: {json.dumps(words)}}}}}").spec for words in (before, after))
        [found] = difference(old, new)
        [detail] = found.because
        return detail.words, documents((found,))[0]["changes"][0]

    words, document = said(["sh", "-c", "serve --port 80"], ["serve", "--port", "81"])
    assert words == "command: sh -c 'serve --port 80' -> serve --port 81"
    assert (document["old"], document["new"]) == (["sh", "-c", "serve --port 80"], ["serve", "--port", "81"])
    words, _ = said(["serve"], ["serve", *["more"] * 40])
    assert words.endswith("m...")
    assert len(words) < 120
    for secret in (
        ["serve", "--password", "hunter2"], ["sh", "-c", "redis-server --requirepass hunter2"], ["mysql", "-phunter2"],
        ["redis-cli", "-a", "hunter2"], ["curl", "-u", "me:hunter2", "x"], ["sh", "-c", "TOKEN=hunter2 serve"], ["x", "redis://me:hunter2@db"],
    ):  # fmt: skip
        words, document = said(secret, ["serve"])
        assert words == "command: changed", secret
        assert "hunter" not in json.dumps(document)


def test_a_check_is_called_as_the_file_calls_it():
    def words(check):
        new = converted(f"services: {{web: {{image: x, {check}}}}}").spec
        [found] = difference(converted("services: {web: {image: x}}").spec, new)
        return [detail.words for detail in found.because]

    assert words("healthcheck: {test: x}") == ["healthcheck: added"]
    assert words("x-hypermesh: {check: {type: tcp, port: 80}}") == ["x-hypermesh.check: added"]
