"""What the kernel writes is read as it was meant; whatever else lies there breaks nothing."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.security import maps
from node_agent.security.maps import EXEC, FLOW, KEY, TCP, TOTALS, Cfg, ExecRecord, RawFlow, TcpRecord, Totals

U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


def packed(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


@given(ADDRESSES)
def test_addresses_are_read_as_they_were_written(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    read = ipaddress.ip_address(maps.address(packed(address)))
    assert read == (getattr(address, "ipv4_mapped", None) or address)


@given(U64, ADDRESSES, st.integers(0, 255), st.lists(st.tuples(*[st.integers(0, 2**60)] * 6), min_size=1, max_size=8))
def test_a_flow_is_the_sum_over_all_cpus(cgroup: int, peer: ipaddress.IPv4Address, protocol: int, rows: list[tuple[int, ...]]) -> None:
    flow = maps.parse_flow(KEY.pack(cgroup, packed(peer), protocol, 0), b"".join(FLOW.pack(*row) for row in rows))
    assert flow == RawFlow(cgroup, maps.address(packed(peer)), protocol, *map(sum, zip(*rows, strict=True)))


def test_totals_are_the_sum_over_all_cpus() -> None:
    assert maps.parse_totals(TOTALS.pack(*range(10)) + TOTALS.pack(*range(10))) == Totals(*(2 * n for n in range(10)))


@given(U64, U64, U32, U32, st.binary(max_size=127).filter(lambda name: b"\0" not in name))
def test_exec_records(cgroup: int, time: int, pid: int, uid: int, name: bytes) -> None:
    raw = EXEC.pack(maps.EXEC_KIND, pid, time, cgroup, uid, len(name), b"sh", name)
    assert maps.parse_record(raw) == ExecRecord(cgroup, time, pid, uid, "sh", name.decode("utf-8", "backslashreplace"))


@given(U64, U64, ADDRESSES, ADDRESSES, U16, U16)
def test_tcp_records(cgroup: int, time: int, local: ipaddress.IPv4Address, peer: ipaddress.IPv4Address, here: int, there: int) -> None:
    raw = TCP.pack(maps.TCP_KIND, 2, time, cgroup, packed(local), packed(peer), here, there, 2, 1, 0, 0)
    assert maps.parse_record(raw) == TcpRecord(cgroup, time, 2, maps.address(packed(local)), here, maps.address(packed(peer)), there, 2, 1)


@given(st.binary(max_size=300))
def test_bytes_of_another_layout_are_skipped_or_read_but_never_raise(raw: bytes) -> None:
    maps.parse_record(raw)


def test_the_configuration_survives_the_kernel() -> None:
    cfg = Cfg(2**40, 3, 2, 1000, 2000, bytes(range(32)))
    assert maps.parse_cfg(cfg.encode()) == cfg


def _size(struct: str, known: dict[str, int]) -> int:
    """Bytes of a C structure without padding."""
    total = 0
    for kind, names in re.findall(r"^\s*(?:struct\s+)?(\w+)\s+([^;]+);", struct, re.M):
        for name in names.split(","):
            total += known[kind] * int((re.search(r"\[(\d+)\]", name) or [0, 1])[1])
    return total


def test_the_programs_header_says_the_same() -> None:
    header = (Path(maps.__file__).parent / "programs" / "hm.h").read_text()
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.S).replace("HM_NAME", "128")
    known = {"u8": 1, "char": 1, "u16": 2, "u32": 4, "u64": 8}
    for name, body in re.findall(r"^struct (\w+) \{(.*?)^\};", header, re.M | re.S):
        known[name] = _size(body, known)
    assert {name: size for name, size in known.items() if name.startswith("hm_")} == {
        "hm_cfg": maps.CFG.size,
        "hm_flow_key": KEY.size,
        "hm_flow": FLOW.size,
        "hm_totals": TOTALS.size,
        "hm_bucket": 16,
        "hm_exec_event": EXEC.size,
        "hm_tcp_event": TCP.size,
    }


@pytest.mark.parametrize(("text", "count"), [("0\n", 1), ("0-3\n", 4), ("0,2-5\n", 6), ("0-127\n", 128)])
def test_possible_cpus(text: str, count: int) -> None:
    assert maps.possible_cpus(text) == count


@given(st.integers(1, 8192))
def test_flows_take_bounded_memory_on_any_machine(cpus: int) -> None:
    flows = next(spec for spec in maps.specs(cpus) if spec.name == "flows")
    assert maps.FLOWS_LEAST <= flows.entries <= maps.FLOWS_MOST
    assert flows.entries * flows.value * cpus <= maps.FLOWS_MEMORY or flows.entries == maps.FLOWS_LEAST


def test_names_that_are_not_ours_are_strays() -> None:
    names = ["cfg", "flows", "link_hm_ingress", "link_hm_exec_3", "link_hm_exec", "other"]
    assert list(maps.strays(names)) == ["link_hm_exec_3", "other"]


def test_every_program_and_map_can_be_told_to_be_ours_by_the_kernels_15_characters() -> None:
    names = [
        *(hook.program for hook in maps.HOOKS),
        maps.TRACEPOINT_PROGRAM,
        maps.EXEC_PROGRAM,
        *(f"hm_{spec.name}" for spec in maps.specs(2)),
    ]
    assert all(name.startswith("hm_") and len(name) <= 15 for name in names)
    assert "." not in "".join(map(maps.link_name, names))  # the bpf file system refuses it
