"""Compose files as people write them, all the way: files -> Project -> AppSpec."""

import os
from pathlib import Path

import msgspec
import pytest
from compose_canon import differences
from compose_cases import FOLDER, cases, recorded

from hmcore.apps.spec import AppSpec, plain, revision
from hmcore.errors import ConfigError
from hmctl.compose.app import app_of
from hmctl.compose.contents import contents_of
from hmctl.compose.convert import convert
from hmctl.compose.project import Project
from hmctl.compose.show import as_file

CASES = cases(FOLDER)

# What no cluster can have, whatever is left out: their mistakes are in the .expected beside the others.
IMPOSSIBLE = {"extends", "merge"}
POSSIBLE = [case for case in CASES if case.name not in IMPOSSIBLE]


def made(case, **options):
    return app_of(case.files, env_files=case.env_files, environment=case.environment, profiles=case.profiles, **options)


def said(case):
    try:
        problems, verdict = made(case).converted.warnings, "valid"
    except ConfigError as error:
        problems, verdict = error.problems, "invalid"
    lines = (f"{'warning' if problem.warning else 'error'}: {problem}\n" for problem in problems)
    return "".join(lines).replace(f"{FOLDER}/", "") + f"{verdict}\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_said_about_files_from_the_wild(case):
    """Which keys mean something else here, or nothing, is told with the line. HM_ACCEPT=1 writes it anew."""
    expected = FOLDER / "said" / f"{case.name}.expected"
    if os.environ.get("HM_ACCEPT"):
        expected.parent.mkdir(exist_ok=True)
        expected.write_text(said(case))
    assert said(case) == expected.read_text()


@pytest.mark.parametrize("case", POSSIBLE, ids=lambda case: case.name)
def test_with_what_is_unsupported_left_out_each_is_an_app(case):
    app = made(case, ignore_unsupported=True)
    spec = app.converted.spec
    assert set(spec.services) == set(app.project.value["services"])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=AppSpec) == spec
    assert all(revision(spec, name) for name in spec.services)
    assert all(problem.warning for problem in app.converted.warnings)


@pytest.mark.parametrize("case", POSSIBLE, ids=lambda case: case.name)
def test_what_is_shown_without_what_is_left_out_is_that_app(case, tmp_path):
    """`app config --ignore-unsupported`: its output can be deployed, and nothing in it is unsupported."""
    app = made(case, ignore_unsupported=True)
    (tmp_path / "shown.yaml").write_text(as_file(app.converted.counted))
    again = app_of([tmp_path / "shown.yaml"], environment=case.environment, profiles=["*"])
    assert differences(plain(again.converted.spec), plain(app.converted.spec)) == []


LEFT_OUT = """
name: shop
models: {m: {model: x}}
services:
  web:
    image: nginx
    deploy: {mode: replicated-job, resources: {reservations: {devices: [{capabilities: [gpu]}]}}}
    platform: windows/amd64
    network_mode: service:db
    pid: container:x
    gpus: all
    volumes: [/a:/a, ./b:/b, {type: image, source: i, target: /i}, c:/c, {type: volume, source: c, target: /d, volume: {subpath: x}}]
    ports: ["8000-8010:80", {target: 81, published: 8100-8105, mode: host}, "127.0.0.1:8200-8201:82/udp", "83:83/sctp", "84:84"]
    devices: [vendor.com/gpu=all, /dev/fuse]
    security_opt: ["seccomp=./p.json", no-new-privileges, systempaths=unconfined]
    networks: {default: {ipv4_address: 10.0.0.1}}
  once: {image: a, restart: always}
  again: {image: a, restart: always, deploy: {restart_policy: {condition: any, delay: 9s}}}
  many: {image: a, ports: ["1-1001:1-1001", "2000:2000"]}
  waits: {image: a, depends_on: {once: {condition: service_completed_successfully}, again: {condition: service_completed_successfully}}}
volumes: {c: {driver: local, driver_opts: {type: none, o: bind, device: ./c}}}
"""


def test_every_way_in_which_something_is_left_out(tmp_path):
    (tmp_path / "compose.yaml").write_text(LEFT_OUT.replace("    networks: {default: {ipv4_address: 10.0.0.1}}\n", ""))
    with_mode = app_of([tmp_path / "compose.yaml"], environment={}, ignore_unsupported=True)
    (tmp_path / "compose.yaml").write_text(LEFT_OUT.replace("    network_mode: service:db\n", ""))
    for app in (with_mode, app_of([tmp_path / "compose.yaml"], environment={}, ignore_unsupported=True)):
        (tmp_path / "shown.yaml").write_text(as_file(app.converted.counted))
        again = app_of([tmp_path / "shown.yaml"], environment={}).converted
        assert differences(plain(again.spec), plain(app.converted.spec)) == []
        web = app.converted.counted.value["services"]["web"]
        assert web["ports"][0] == "8000:80"
        assert web["devices"] == ["/dev/fuse"]
        assert (web["volumes"][0], len(web["volumes"])) == ("/a:/a", 3)
        assert "gpus" not in web


def theirs_of(case, project):
    """The project that Docker Compose's own form of the file is: all names and paths written out, everything in its long form."""
    tree = recorded(case)
    for kind in ("secrets", "configs"):  # the app's own are called otherwise in the cluster
        for name, entry in tree.get(kind, {}).items():
            if entry.get("name") == f"{project.name}_{name}":
                del entry["name"]
    for name, service in project.value["services"].items():  # it prints no x- of services as JSON
        tree["services"][name].update({key: part for key, part in service.items() if key == "x-hypermesh"})
    return Project(project.name, tree, project.folder)


@pytest.mark.parametrize("case", [case for case in POSSIBLE if case.name != "long-forms"], ids=lambda case: case.name)
def test_the_app_is_that_of_docker_composes_own_form_of_the_file(case):
    """Of `long-forms` Compose prints a limit of 0 as none at all."""
    ours = made(case, ignore_unsupported=True)
    theirs = convert(theirs_of(case, ours.project), ignore_unsupported=True)
    found, expected = plain(ours.converted.spec), plain(theirs.spec)
    for spec in (found, expected):
        for service in spec["services"].values():  # Compose sorts them
            service["container"].get("extra_hosts", []).sort()
    assert differences(found, expected) == []
    assert (ours.converted.builds, ours.converted.pulls) == (theirs.builds, theirs.pulls)
    assert set(ours.converted.contents) == set(theirs.contents)


def test_enough_of_them_are_apps_as_they_are():
    assert len([case for case in CASES if not said(case).endswith("invalid\n")]) >= 25
    assert len(POSSIBLE) >= 50


WHOLE = """
name: shop
services:
  web:
    image: "nginx:${TAG:?which}"
    env_file: web.env
    environment: {OWN: "${TAG}"}
    secrets: [token, unset]
    volumes:
      - ../data:/data
      - ~/home:/home/me
      - {type: bind, source: !override ../tagged, target: /tagged}
      - /srv/data:/srv
      - local:/local
secrets:
  token: {environment: TOKEN}
  unset: {environment: NOBODY_SET_THIS}
volumes:
  local: {driver: local, driver_opts: {type: none, o: bind, device: ../elsewhere}}
"""
FILES = {
    "/home/me/shop/compose.yaml": WHOLE,
    "/home/me/shop/web.env": "FROM_FILE=${TAG}-1\n",
    "/home/me/shop/.env": "TAG=1.27\nTOKEN=s3cr3t\n",
}


def read(path):
    if str(path) not in FILES:
        raise FileNotFoundError(2, "No such file or directory")
    return FILES[str(path)].encode()


def whole(**options):
    return app_of([Path("/home/me/shop/compose.yaml")], environment={"HOME": "/home/me"}, read=read, **options)


def test_files_variables_and_secrets_of_variables():
    app = whole(ignore_unsupported=True)
    web = app.converted.spec.services["web"].container
    assert (app.name, web.image) == ("shop", "nginx:1.27")
    assert web.environment == {"FROM_FILE": "1.27-1", "OWN": "1.27"}
    token = {key: content for key, content in app.converted.contents.items() if key[1] == "token"}
    assert contents_of(app.project, token, read=read) == {("secret", "token"): b"s3cr3t"}
    with pytest.raises(ConfigError, match="the variable NOBODY_SET_THIS is not set"):
        contents_of(app.project, app.converted.contents, read=read)
    assert any("the variable NOBODY_SET_THIS is not set" in str(problem) for problem in app.converted.warnings)
    assert "s3cr3t" not in repr(app)


def test_paths_of_the_operators_machine_are_known_wherever_they_lead():
    """Also outside of the folder, where they look like paths of a node."""
    with pytest.raises(ConfigError) as caught:
        whole()
    assert [(problem.line, problem.path) for problem in caught.value.problems] == [
        (10, "services.web.volumes[0]"),
        (11, "services.web.volumes[1]"),
        (12, "services.web.volumes[2]"),
        (19, "volumes.local.driver_opts.device"),
    ]
    app = whole(ignore_unsupported=True)
    assert [mount.source for mount in app.converted.spec.services["web"].container.mounts] == ["/srv/data", "local"]
    assert app.converted.spec.volumes["local"].options == {}
