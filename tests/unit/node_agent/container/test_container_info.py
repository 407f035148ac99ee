"""Docker's list of containers, read: real answers, and any other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.container.info import ContainerInfo, complaint_of, container_of, containers_of

# As Docker 20.10 answers, shortened.
WEB = {
    "Id": "3f2a9c",
    "Names": ["/proxy/web", "/web-1"],
    "Image": "nginx:1.25",
    "Created": 1795000000,
    "Ports": [
        {"IP": "0.0.0.0", "PrivatePort": 8443, "PublicPort": 443, "Type": "tcp"},
        {"PrivatePort": 8080, "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
    ],
    "Labels": {
        "hypermesh.cluster": "hm-abc123defg",
        "hypermesh.service": "shop/web",
        "hypermesh.version": "1.4",
        "hypermesh.weight": "30",
        "hypermesh.priority": "1",
    },
    "State": "running",
    "Status": "Up 5 minutes (healthy)",
    "HostConfig": {"NetworkMode": "bridge"},
    "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2", "Gateway": "172.17.0.1"}}},
}


def test_everything_comes_from_the_list() -> None:
    assert container_of(WEB) == ContainerInfo(
        id="3f2a9c",
        name="web-1",
        service="shop/web",
        image="nginx:1.25",
        state="running",
        health="healthy",
        address="172.17.0.2",
        network="bridge",
        gateway="172.17.0.1",
        port=8080,
        version="1.4",
        weight=30,
        priority=1,
        labels=WEB["Labels"],  # type: ignore[arg-type]
        started=1795000000.0,
    )


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ("Up 5 minutes (healthy)", "healthy"),
        ("Up 5 minutes (unhealthy)", "unhealthy"),
        ("Up 1 second (health: starting)", "starting"),
        ("Up 5 minutes", ""),
        ("Up 5 minutes (Paused)", ""),
        ("Exited (0) 2 hours ago", ""),
    ],
)
def test_health_is_in_the_status(status: str, health: str) -> None:
    info = container_of({"Id": "a", "Status": status})
    assert info is not None
    assert info.health == health


@pytest.mark.parametrize("value", ["", "-1", "x", "70000", "1e3", "٣", "9" * 5000])
def test_a_label_that_is_no_number_in_bounds_counts_as_not_given(value: str) -> None:
    info = container_of({**WEB, "Labels": {"hypermesh.port": value}})
    assert info is not None
    assert info.port == 8080


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("Exited (0) 2 hours ago", 0),
        ("Exited (137) About a minute ago", 137),
        ("Exited (-1) 1 second ago", -1),
        ("Restarting (1) 3 seconds ago", 1),
        ("Up 5 minutes", None),
        ("Created", None),
        ("Exited () x", None),
        ("", None),
    ],
)
def test_how_it_ended_is_in_the_status(status: str, code: int | None) -> None:
    info = container_of({"Id": "a", "Status": status, "ImageID": "sha256:1"})
    assert info is not None
    assert (info.exit_code, info.image_id) == (code, "sha256:1")


@pytest.mark.parametrize(
    ("label", "grace"), [("2.500", 2.5), ("0", 0.0), ("999999999", 86_400.0), ("", 10.0), ("-1", 10.0), ("nan", 10.0), ("1e9", 10.0)]
)
def test_how_long_it_may_take_to_end_is_on_its_label(label: str, grace: float) -> None:
    labels = {"hypermesh.stop-grace": label, "hypermesh.allocation": "a/b.1.1", "hypermesh.revision": "r"}
    info = container_of({"Id": "a", "Labels": labels})
    assert info is not None
    assert (info.grace, info.allocation, info.revision) == (grace, "a/b.1.1", "r")


def test_without_a_service_it_is_its_own_and_without_a_name_it_has_its_id() -> None:
    assert containers_of([{"Id": "0123456789abcdef"}, {"Names": ["/nobody"]}, 7]) == {
        "0123456789abcdef": ContainerInfo("0123456789abcdef", "0123456789ab", "0123456789ab", state="", serves=False)
    }


def test_the_hosts_own_network_gives_no_address() -> None:
    info = container_of({"Id": "a", "NetworkSettings": {"Networks": {"host": {"IPAddress": "", "Gateway": ""}}}})
    assert info is not None
    assert (info.address, info.gateway) == ("", "")


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*WEB, "Networks", "IPAddress", "PrivatePort", "x"]), inner)
    ),
    max_leaves=12,
)


@pytest.mark.long
@given(st.lists(st.fixed_dictionaries({"Id": st.text(max_size=3)}, optional={key: json for key in WEB if key != "Id"})) | json)
def test_reading_is_total(answer: object) -> None:
    for found, info in containers_of(answer).items():
        assert found == info.id
        assert 0 <= info.port < 65_536


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ([{"ExitCode": 1, "Output": "no route\n"}, {"ExitCode": 0, "Output": "fine"}], "no route"),
        ([{"ExitCode": 7, "Output": ""}], "it ends with 7"),
        ([{"ExitCode": -1, "Output": "x" * 4096}], "x" * 200),
        ([], ""),
        (None, ""),
        ([None, 3, {"Output": 5}], "it ends with None"),
    ],
)
def test_why_a_health_check_fails(log, words):
    assert complaint_of({"State": {"Health": {"Log": log}}}) == words


@pytest.mark.parametrize("inspected", [None, [], {}, {"State": None}, {"State": {"Health": []}}])
def test_nobody_says_why(inspected):
    assert complaint_of(inspected) == ""


@pytest.mark.parametrize(
    ("said", "serves"),
    [
        ({}, False),
        ({"Labels": {"hypermesh.port": "80"}}, True),
        ({"Ports": [{"PrivatePort": 53, "Type": "udp"}]}, True),
        ({"HostConfig": {"NetworkMode": "host"}}, True),
        ({"HostConfig": {"NetworkMode": "hm0"}, "Ports": []}, False),
    ],
)
def test_whether_anybody_may_be_led_to_it(said, serves):
    info = container_of({"Id": "a", **said})
    assert info is not None
    assert info.serves is serves
