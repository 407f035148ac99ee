"""What a node has, from whatever Docker says."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hmcore.apps.records import Machine
from node_agent.container.machine import MOST, machine_of

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
KEYS = st.sampled_from(["NCPU", "MemTotal", "OSType", "Architecture", "Id", "Name", "Volumes", "RepoDigests", "other"])
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=20)

DIGEST = f"sha256:{'d' * 64}"


def test_what_docker_says() -> None:
    anonymous = "ab" * 32
    info = {"NCPU": 2, "MemTotal": 4 << 30, "OSType": "linux", "Architecture": "x86_64"}
    volumes = {"Volumes": [{"Name": "shop_data"}, {"Name": anonymous}, {"Name": "a"}]}
    pulled = {"Id": "sha256:1", "RepoDigests": [f"nginx@{DIGEST}", f"example.org:5000/team/web@{DIGEST}"]}
    pushed = {"Id": "sha256:2", "RepoDigests": []}
    assert machine_of("node1", info, [pushed, pulled, {"Id": "sha256:2", "RepoDigests": None}], volumes) == Machine(
        node="node1",
        cpus=2000,
        memory=4 << 30,
        os="linux",
        arch="x86_64",
        engine=True,
        images=("sha256:1", "sha256:2", DIGEST),
        volumes=("a", "shop_data"),
    )


@given(anything, anything, anything)
@example({"NCPU": 1 << 70, "MemTotal": 1 << 70, "OSType": "\ud800"}, [{"Id": "\udfff"}], {"Volumes": [{"Name": "\ud800"}]})
@example({}, [{"Id": "sha256:1", "RepoDigests": [f"\udfff@{DIGEST}", "\udfff@\udfff", 1]}], None)
def test_whatever_it_says_gives_a_record_that_can_be_told(info: object, images: object, volumes: object) -> None:
    found = machine_of("node1", info, images, volumes)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(msgspec.to_builtins(found)), type=Machine) == found
    assert found.engine
    assert min(found.cpus, found.memory) >= 0


def test_what_is_beyond_all_measure_is_not_told() -> None:
    found = machine_of("node1", {}, [{"Id": f"sha256:{number:05}"} for number in range(MOST + 5)], None)
    assert len(found.images) == MOST
    both = [{"Id": f"sha256:{number:064x}", "RepoDigests": [f"web@sha256:{number + MOST:064x}"]} for number in range(MOST)]
    found = machine_of("node1", {}, both, None)
    assert len(found.images) == MOST
    assert found == machine_of("node1", {}, both[::-1], None), "whatever the order in which Docker tells them"


@pytest.mark.parametrize("said", ["<none>@<none>", f"<none>@{DIGEST}", "nginx:1", "nginx@sha256:1", DIGEST, f"@{DIGEST}", "", None, 1, {}])
def test_what_names_no_digest_of_a_registry_is_passed_over(said: object) -> None:
    assert machine_of("node1", {}, [{"Id": "sha256:1", "RepoDigests": [said]}], None).images == ("sha256:1",)
    assert machine_of("node1", {}, [{"Id": "sha256:1", "RepoDigests": said}], None).images == ("sha256:1",)
