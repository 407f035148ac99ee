"""From cgroups to names: of containers that are there, and of those that are gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.container.info import ContainerInfo
from node_agent.security.attribution import Attribution, described, kind_of, wall_time
from node_agent.security.maps import ExecRecord, RawFlow, TcpRecord

WEB, DB = "a" * 64, "b" * 64


def info(identity: str, name: str, **more: object) -> ContainerInfo:
    return ContainerInfo(identity, name, str(more.pop("service", name)), **more)  # type: ignore[arg-type]


def raw(cgroup: int, peer: str = "10.0.0.9", protocol: int = 6, count: int = 1) -> RawFlow:
    return RawFlow(cgroup, peer, protocol, count, 2 * count, 3 * count, 4 * count, 5 * count, 6 * count)


def test_flows_bear_names_and_the_lives_of_one_container_are_added_up() -> None:
    names = Attribution("node1")
    names.learn({WEB: info(WEB, "web-1", service="shop/web")})
    web, unknown, gone = names.flows([raw(7), raw(9), raw(8, count=10), raw(3)], {7: WEB, 8: WEB, 9: DB})
    assert (web.node, web.container, web.container_id, web.service, web.protocol) == ("node1", "web-1", WEB, "shop/web", "tcp")
    assert (web.bytes_in, web.bytes_out, web.packets_in, web.packets_out) == (11, 22, 33, 44)
    assert (web.connections_in, web.connections_out) == (55, 66)
    assert (unknown.container, unknown.container_id) == ("b" * 12, DB)
    assert (gone.container, gone.container_id) == ("cgroup-3", "")


@pytest.mark.parametrize(("number", "name"), [(6, "tcp"), (17, "udp"), (1, "icmp"), (58, "icmp6"), (253, "253")])
def test_protocols_have_names_or_numbers(number: int, name: str) -> None:
    assert Attribution("n").flows([raw(1, protocol=number)], {})[0].protocol == name


def test_a_container_that_is_gone_keeps_its_name_until_there_are_too_many() -> None:
    names = Attribution("node1", remembered=2)
    names.learn({WEB: info(WEB, "web-1")})
    names.learn({DB: info(DB, "db-1")})
    assert names.owner(7, WEB).name == "web-1"
    names.learn({"c": info("c", "new")})
    assert not names.knows(WEB)
    assert names.knows(DB)


@given(st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.just(None), max_size=6), max_size=8), st.integers(1, 4))
def test_those_that_are_there_are_never_forgotten(pictures: list[dict[str, None]], remembered: int) -> None:
    names = Attribution("node1", remembered=remembered)
    for picture in pictures:
        names.learn({identity: info(identity, f"name-{identity}") for identity in picture})
        assert all(names.owner(1, identity).name == f"name-{identity}" for identity in picture)
        assert len(names._owners) <= max(remembered, len(picture))


def test_addresses_are_those_of_running_containers_and_of_the_node_at_their_gateway() -> None:
    names = Attribution("node1")
    there = info(WEB, "web-1", address="172.17.0.2", gateway="172.17.0.1")
    names.learn({WEB: there, DB: info(DB, "db-1", state="exited", address="172.17.0.3", gateway="172.17.0.1")})
    assert names.names == {"172.17.0.1": "node1", "172.17.0.2": "web-1"}
    names.learn({})
    assert names.names == {}


EXEC = ExecRecord(7, 1, 12, 0, "sh", "/bin/sh")


def tcp(old: int, new: int, local: str = "10.0.0.2", peer: str = "10.0.0.3") -> TcpRecord:
    return TcpRecord(7, 1, 2, local, 40312, peer, 80, old, new)


def test_what_an_event_says() -> None:
    names = Attribution("node1")
    names.learn({WEB: info(WEB, "web-1", service="shop/web")})
    event = names.event(5, 12.5, EXEC, WEB)
    assert (event.sequence, event.unix_time, event.kind, event.node, event.container, event.container_id) == (
        5, 12.5, "exec", "node1", "web-1", WEB,
    )  # fmt: skip
    assert event.message == "exec /bin/sh (pid 12, uid 0)"
    assert event.attributes == {"filename": "/bin/sh", "comm": "sh", "pid": "12", "uid": "0", "service": "shop/web"}


@pytest.mark.parametrize(
    ("filename", "comm", "message"),
    [
        ("/proc/self/exe", "wget", "exec wget (/proc/self/exe, pid 12, uid 0)"),
        ("/dev/fd/6", "runc", "exec runc (/dev/fd/6, pid 12, uid 0)"),
        ("/proc/self/exe", "exe", "exec /proc/self/exe (pid 12, uid 0)"),
        ("/proc/self/exe", "", "exec /proc/self/exe (pid 12, uid 0)"),
        ("/usr/local/bin/python", "python3", "exec /usr/local/bin/python (pid 12, uid 0)"),
    ],
)
def test_a_program_whose_file_names_nothing_is_called_by_its_tasks_name(filename: str, comm: str, message: str) -> None:
    record = ExecRecord(7, 1, 12, 0, comm, filename)
    kind, said, attributes = described(record)
    assert (kind, said, attributes["filename"], attributes["comm"]) == ("exec", message, filename, comm)


@pytest.mark.parametrize(
    ("record", "message", "direction"),
    [
        (tcp(2, 1), "10.0.0.2:40312 -> 10.0.0.3:80 established", "out"),
        (tcp(3, 1), "10.0.0.3:80 -> 10.0.0.2:40312 established", "in"),
        (tcp(1, 8), "10.0.0.2:40312 <-> 10.0.0.3:80 close-wait", None),
        (tcp(2, 7, "fd00::1", "fd00::2"), "[fd00::1]:40312 -> [fd00::2]:80 closed", "out"),
        (tcp(99, 98), "10.0.0.2:40312 <-> 10.0.0.3:80 98", None),
    ],
)
def test_a_connection_has_a_direction_while_it_is_known_who_called(record: TcpRecord, message: str, direction: str | None) -> None:
    kind, said, attributes = described(record)
    assert (kind, said, attributes.get("direction")) == (kind_of(record), message, direction)


def test_an_event_happened_so_long_ago_as_the_kernels_clock_says_whatever_the_wall_clock_did() -> None:
    assert wall_time(1_000_000_000, now_ns=3_500_000_000, now=100.0) == 97.5
    assert wall_time(9, now_ns=5, now=100.0) == 100.0  # never in the future
