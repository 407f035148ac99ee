"""Volumes, binds and tmpfs, in all forms."""

from __future__ import annotations

import re

import pytest
from composing import converted, refused, refused_file, service, warnings

from hmcore.apps.secrets import MOST_SECRET
from hmcore.apps.spec import Mount, Volume
from hmcore.config import yaml12, yaml_writing
from hmcore.errors import ConfigError
from hmctl.compose.app import app_of

DATA = "volumes: {data: , logs: }\n"


def mounts(text, **options):
    return list(service(text, rest=DATA, **options).container.mounts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data:/var/lib/data", Mount(kind="volume", source="data", target="/var/lib/data")),
        ("data:/d:ro", Mount(kind="volume", source="data", target="/d", read_only=True)),
        ("data:/d:rw", Mount(kind="volume", source="data", target="/d")),
        ("data:/d/:nocopy,ro", Mount(kind="volume", source="data", target="/d", read_only=True, no_copy=True)),
        ("data:/d:cached", Mount(kind="volume", source="data", target="/d")),
        ("/cache", Mount(kind="volume", target="/cache")),
        ("/srv/www:/www:ro", Mount(kind="bind", source="/srv/www", target="/www", read_only=True)),
        ("/srv//www/../x:/www", Mount(kind="bind", source="/srv/x", target="/www")),
        ("/mnt:/mnt:rshared", Mount(kind="bind", source="/mnt", target="/mnt", propagation="rshared")),
        ("{type: volume, source: data, target: /d, read_only: true, volume: {nocopy: true}}",
         Mount(kind="volume", source="data", target="/d", read_only=True, no_copy=True)),
        ("{type: volume, target: /d}", Mount(kind="volume", target="/d")),
        ("{type: bind, source: /a, target: /d, bind: {propagation: rslave, create_host_path: false}}",
         Mount(kind="bind", source="/a", target="/d", propagation="rslave", create_source=False)),
        ("{type: tmpfs, target: /d, tmpfs: {size: 64m, mode: 0o1777}}", Mount(kind="tmpfs", target="/d", size=64 << 20, mode=0o1777)),
        ("{type: tmpfs, target: /d, tmpfs: {size: 1000, mode: '0700'}}", Mount(kind="tmpfs", target="/d", size=1000, mode=0o700)),
    ],
)  # fmt: skip
def test_forms(text, expected):
    quoted = text if text.startswith("{") else f"'{text}'"
    assert mounts(f"volumes: [{quoted}]") == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/run", [Mount(kind="tmpfs", target="/run")]),
        ("[/run, /tmp]", [Mount(kind="tmpfs", target="/run"), Mount(kind="tmpfs", target="/tmp")]),
        ("'/run:size=64m,mode=1777,ro'", [Mount(kind="tmpfs", target="/run", size=64 << 20, mode=0o1777, read_only=True)]),
        ("['/data:mode=755,uid=1009,gid=1009,exec']",
         [Mount(kind="tmpfs", target="/data", mode=0o755, options=("uid=1009", "gid=1009", "exec"))]),
    ],
)  # fmt: skip
def test_tmpfs(text, expected):
    assert mounts(f"tmpfs: {text}") == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data", "says not where"),
        ("data:", "is no volume"),
        ("data:d", "says not where"),
        ("data:/", "says not where"),
        ("data:/a/../..", "says not where"),
        ("data:/d:ro:x", "is no volume"),
        ("data:/d:r0", "has no option 'r0'"),
        ("dat:/d", "there is no volume dat in this file"),
        ("-data:/d", "is of no volume"),
        ("", "is no volume"),
    ],
)
def test_mistakes_of_the_short_form(text, words):
    problems = refused(f"volumes: ['{text}']", rest=DATA)
    assert problems[0].startswith("compose.yaml:4: services.web.volumes[0]: ")
    assert words in problems[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{target: /d}", "type: volume, bind or tmpfs"),
        ("{type: disk, target: /d}", "type: volume, bind or tmpfs"),
        ("{type: npipe, source: x, target: /d}", "no mounts of type npipe"),
        ("{type: volume, source: data}", "says not where"),
        ("{type: bind, target: /d}", "a path of this machine"),
        ("{type: bind, source: /a, target: /d, bind: {propagation: up}}", "must be one of shared"),
        ("{type: tmpfs, target: /d, tmpfs: {size: much}}", "number of bytes"),
        ("{type: tmpfs, target: /d, tmpfs: {mode: rwx}}", "a file's mode"),
        ("{type: volume, target: /d, read_only: maybe}", "true or false"),
        ("{type: volume, source: data, target: /d, volume: {subpath: x}}", "a volume of its own"),
        ("{type: volume, source: data, target: /d, volume: {nocpy: x}}", "did you mean nocopy?"),
        ("5", "must be a mapping"),
    ],
)
def test_mistakes_of_the_long_form(text, words):
    assert words in refused(f"volumes: [{text}]", rest=DATA)[0]


@pytest.mark.parametrize(
    "text",
    [
        r"'C:\data:/d'",
        r"'c:\data:/d:ro'",
        "'C:/data:/d'",
        r"'C:\data:D:\d'",
        r"'C:\data'",
        r"'\\server\share:/d'",
        r"{type: bind, source: 'C:\data', target: /d}",
        "{type: bind, source: 'C:/data', target: /d}",
    ],
)
def test_a_path_of_windows_is_nowhere(text):
    (problem,) = refused(f"volumes: [{text}]")
    assert problem.startswith("compose.yaml:4: services.web.volumes[0]: a path of Windows cannot be mounted: nodes run Linux (a config")
    assert mounts(f"volumes: [{text}]", ignore_unsupported=True) == []


def test_a_volume_of_one_letter_is_no_drive():
    body = "volumes: ['c:/data', 'c:/more:ro']"
    assert service(body, rest="volumes: {c: }").container.mounts == (
        Mount(kind="volume", source="c", target="/data"),
        Mount(kind="volume", source="c", target="/more", read_only=True),
    )


@pytest.mark.parametrize("text", ["'relative'", "'/run:size=x'", "'/run:frobnicate!'", "5", "[{}]", "'/run:mode=rwx'"])
def test_mistakes_of_tmpfs(text):
    assert refused(f"tmpfs: {text}")[0].startswith("compose.yaml:4: services.web.tmpfs")


@pytest.mark.parametrize("source", ["./conf", "../conf", "~/conf", "/home/me/shop/conf", "/home/me/shop", "/home/../home/me//shop/"])
def test_a_path_of_the_operators_machine_is_not_on_the_nodes(source):
    (problem,) = refused(f"volumes: ['{source}:/etc/conf']")
    assert "a path of this machine is not on the nodes" in problem
    assert "volumes:" in problem
    assert mounts(f"volumes: ['{source}:/etc/conf', data:/d]", ignore_unsupported=True) == [
        Mount(kind="volume", source="data", target="/d")
    ]


def test_what_to_write_instead_of_a_relative_path_is_said(tmp_path):
    """And what is said can be written."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "site.conf").write_text("site")
    (tmp_path / "large").write_bytes(b"x" * (MOST_SECRET + 1))
    (tmp_path / "my file").write_text("m")
    written = ["./conf/site.conf:/etc/site.conf:ro", "./conf:/etc/conf", "./large:/large", "./my file:/my-file", "./:/all"]
    (tmp_path / "compose.yaml").write_text(yaml_writing.dump({"services": {"web": {"image": "nginx", "volumes": written}}}))
    with pytest.raises(ConfigError) as caught:
        app_of([tmp_path / "compose.yaml"], environment={}, name="shop")
    hints = [problem.hint for problem in caught.value.problems]
    config = "a config: `configs: [{}]` here, `configs: {}` at the top; it is read-only"
    volume = (
        "a volume: {} here, `volumes: {}` at the top; it begins as the image has it, not as the folder; or a path that is on every node"
    )
    assert hints[:4] == [
        config.format("{source: site.conf, target: /etc/site.conf}", "{site.conf: {file: conf/site.conf}}"),
        volume.format("web-conf:/etc/conf", "{web-conf: }"),
        volume.format("web-large:/large", "{web-large: }"),
        config.format("{source: my-file, target: /my-file}", "{my-file: {file: 'my file'}}"),
    ]
    parts = [part for hint in (hints[0], hints[3]) for part in re.findall("`(.*?)`", hint)]
    read = [yaml12.load(part, "hint").value for part in parts]
    service = {"image": "nginx", "configs": [read[0]["configs"][0], read[2]["configs"][0]], "volumes": ["web-conf:/etc/conf"]}
    whole = {"services": {"web": service}, "configs": {**read[1]["configs"], **read[3]["configs"]}, "volumes": {"web-conf": None}}
    (tmp_path / "compose.yaml").write_text(yaml_writing.dump(whole))
    app = app_of([tmp_path / "compose.yaml"], environment={}, name="shop")
    assert [file.target for file in app.converted.spec.services["web"].container.files] == ["/etc/site.conf", "/my-file"]


def test_a_neighbour_of_the_folder_is_no_path_of_the_operators_machine():
    for source in ("/home/me/shop-data", "/home/me/shop/../shop-data/"):
        assert mounts(f"volumes: ['{source}:/d']") == [Mount(kind="bind", source="/home/me/shop-data", target="/d")]


@pytest.mark.parametrize("path", ["/var/run/docker.sock", "/run/docker.sock", "/run/./docker.sock", "/"])
def test_whoever_has_dockers_socket_has_the_node(path):
    (warning,) = warnings(f"volumes: ['{path}:/target:ro']")
    assert warning.startswith("compose.yaml:4: services.web.volumes[0]: ")
    assert "may do anything on its node" in warning


def test_two_things_at_one_place():
    (problem,) = refused("volumes: [data:/d, logs:/d]", rest=DATA)
    assert "something else of this service is at /d already" in problem
    assert "compose.yaml:4: services.web.volumes[1]" in problem
    assert refused("volumes: [data:/d]\ntmpfs: /d", rest=DATA)
    assert mounts("volumes: [data:/d, data:/d]") == [Mount(kind="volume", source="data", target="/d")]  # files merged


def test_volumes_are_called_as_with_compose():
    text = """
services: {web: {image: nginx, volumes: [a:/a, b:/b, cc:/c, d:/d, e:/e]}}
volumes:
  a:
  b: {name: its-own, driver: local, driver_opts: {type: nfs, o: "addr=10.0.0.9,rw", device: ":/x", n: 1}, labels: [x=y]}
  cc: {external: true}
  d: {external: "true", name: elsewhere}
  e: {external: {name: older}}
  unused:
"""
    assert converted(text).spec.volumes == {
        "a": Volume(name="shop_a"),
        "b": Volume(
            name="its-own", driver="local", options={"type": "nfs", "o": "addr=10.0.0.9,rw", "device": ":/x", "n": "1"}, labels={"x": "y"}
        ),
        "cc": Volume(name="cc", external=True),
        "d": Volume(name="elsewhere", external=True),
        "e": Volume(name="older", external=True),
    }


@pytest.mark.parametrize(
    "text",
    ["{-a: }", "{a: {name: '$(reboot)'}}", "{a: {external: true, driver: x}}", "{a: {driver: 'a b'}}", "{a: {drivr: x}}", "[a]", "{a: 5}"],
)
def test_volumes_that_cannot_be(text):
    problems = refused_file(f"services: {{web: {{image: nginx}}}}\nvolumes: {text}\n")
    assert problems[0].startswith("compose.yaml:2: volumes")
