"""Preflight: every way in which a host can be unfit is found, named and comes with what mends it; fit hosts pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hmcore.config.inventory import Inventory, Places, parse_inventory
from hmctl.facts import gather
from hmctl.facts.gather import HostFacts
from hmctl.facts.kernel import Kernel
from hmctl.facts.packages import Packages
from hmctl.facts.ports import Holder
from hmctl.facts.runtime import Docker, Python
from hmctl.phases.packages import given_up, lacking, to_install
from hmctl.phases.validate import Check, validate
from hmctl.remote.fake import Machine, facts

TEXT = """
name: test
id: hm-abc123defg
ssh: {user: root}
hosts:
  - {name: node1, address: 10.0.0.1, role: control}
  - {name: node2, address: 10.0.0.2, role: worker}
"""


def inventory(extra: str = "") -> Inventory:
    return parse_inventory(TEXT + extra, "cluster.yaml", {}, Places(Path("/"), Path("/root")))[0]


def known(machine: Machine) -> HostFacts:
    return replace(gather.parse(machine.name, gather.split(facts(machine)), 0.0, 0.0), clock_offset=0.0, clock_error=0.0)


def examined(*found: HostFacts, extra: str = "") -> list[Check]:
    table = inventory(extra)
    return [check for check in validate(table, table.hosts, {one.name: one for one in found}) if check.status != "ok"]


GOOD = known(Machine("node1", "10.0.0.1"))
OTHER = known(Machine("node2", "10.0.0.2"))


def test_fit_hosts_pass() -> None:
    assert examined(GOOD, OTHER) == []


def test_every_check_says_something_about_a_fit_host() -> None:
    table = inventory()
    names = {check.name for check in validate(table, table.hosts, {"node1": GOOD}) if check.host == "node1"}
    assert names == {
        "system",
        "machine-id",
        "python",
        "packages",
        "docker",
        "cgroups",
        "bpf",
        "clock",
        "disk",
        "memory",
        "ports",
        "address",
    }


UNFIT = {
    "no python": (replace(GOOD, python=None), "python", "error", "there is no /usr/bin/python3"),
    "old python": (replace(GOOD, python=Python("/usr/bin/python3", (3, 9, 2), "glibc-2.31", True)), "python", "error", "3.9.2"),
    "musl": (replace(GOOD, python=Python("/usr/bin/python3", (3, 12, 0), "-", True)), "python", "error", "C library"),
    "old glibc": (replace(GOOD, python=Python("/usr/bin/python3", (3, 11, 0), "glibc-2.17", True)), "python", "error", "glibc-2.17"),
    "wild path": (replace(GOOD, python=Python("/opt/a b/python3", (3, 11, 0), "glibc-2.36", True)), "python", "error", "unit file"),
    "clock ahead": (replace(GOOD, clock_offset=301.0, clock_error=0.1), "clock", "error", "301.0 s ahead of"),
    "clock behind": (replace(GOOD, clock_offset=-300.0, clock_error=0.1), "clock", "error", "300.0 s behind"),
    "clock a little off": (replace(GOOD, clock_offset=3.0, clock_error=0.1), "clock", "warn", "3.0 s ahead of"),
    "full disk": (replace(GOOD, disks=tuple(replace(disk, free=90_000_000) for disk in GOOD.disks)), "disk", "error", "90.0 MB free"),
    "little room": (replace(GOOD, disks=tuple(replace(disk, free=900_000_000) for disk in GOOD.disks)), "disk", "warn", "900.0 MB"),
    "no memory": (replace(GOOD, system=replace(GOOD.system, memory=256_000_000)), "memory", "error", "256.0 MB"),
    "no systemd": (replace(GOOD, system=replace(GOOD.system, systemd=False)), "systemd", "error", "systemd"),
    "odd machine": (replace(GOOD, system=replace(GOOD.system, arch="riscv64")), "architecture", "error", "riscv64"),
    "docker down": (replace(GOOD, docker=Docker("down", error="Connection refused")), "docker", "warn", "Connection refused"),
    "old docker": (replace(GOOD, docker=Docker("running", "19.03.15")), "docker", "warn", "19.03.15"),
    "no cgroup2": (replace(GOOD, kernel=Kernel("v1", None, "/sys/fs/bpf", "/h", "/b")), "cgroups", "warn", "cgroup2"),
    "no bpffs": (replace(GOOD, kernel=replace(GOOD.kernel, bpffs=None)), "bpf", "warn", "bpf file system"),
    "no headers": (replace(GOOD, kernel=replace(GOOD.kernel, headers=None)), "bpf", "warn", "no headers of its kernel 6.1.0"),
    "no machine-id": (replace(GOOD, system=replace(GOOD.system, machine_id="")), "machine-id", "warn", "unknown"),
    "no hostname": (replace(GOOD, system=replace(GOOD.system, hostname="")), "hostname", "warn", "unknown"),
    "no addresses told": (replace(GOOD, system=replace(GOOD.system, addresses=())), "address", "warn", "unknown whether 10.0.0.1"),
    "disks unread": (replace(GOOD, disks=()), "disk", "warn", "unknown how much is free in /opt, /var/lib and /etc"),
    "port taken": (replace(GOOD, ports=(Holder("udp", "0.0.0.0", 7443, "coredns", 812),)), "ports", "error", "coredns (process 812)"),
    "behind a NAT": (replace(GOOD, system=replace(GOOD.system, addresses=("192.168.1.5",))), "address", "warn", "192.168.1.5"),
    "swapped addresses": (replace(GOOD, system=replace(GOOD.system, addresses=("10.0.0.2",))), "address", "warn", "10.0.0.2"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_makes_a_host_unfit_is_named(case: str) -> None:
    found, name, status, words = UNFIT[case]
    checks = [check for check in examined(found) if check.name == name]
    assert [(check.host, check.status) for check in checks][:1] == [("node1", status)]
    assert words in checks[0].message
    assert len({check.name for check in examined(found)}) == 1  # nothing else is blamed


@pytest.mark.parametrize(("settings", "status"), [("{optional_layers: refuse}", ["error"]), ("{security: {mode: off}}", [])])
def test_what_bpf_wants_is_required_as_the_settings_have_it(settings: str, status: list[str]) -> None:
    bare = replace(GOOD, kernel=replace(GOOD.kernel, bpffs=None))
    assert [check.status for check in examined(bare, extra=f"settings: {settings}\n") if check.name == "bpf"] == status


def test_errors_come_with_what_mends_them() -> None:
    for case, (found, name, status, _) in UNFIT.items():
        if (status == "error" or "unknown" in str(UNFIT[case]) or name == "bpf") and case not in (
            "old glibc",
            "musl",
            "no memory",
            "odd machine",
        ):  # nothing that a command could mend
            assert all(check.fix for check in examined(found) if check.name == name), case


def test_our_own_agent_on_its_port_is_no_stranger() -> None:
    machine = Machine("node1", "10.0.0.1", active=True)
    running = replace(known(machine), ports=(Holder("udp", "0.0.0.0", 7443, "python3", 1000),))
    assert examined(running) == []
    assert [check.name for check in examined(replace(running, ports=(Holder("udp", "0.0.0.0", 7443, "python3", 1001),)))] == ["ports"]


def test_an_address_that_is_a_name_is_not_judged_but_said_to_be_unknown() -> None:
    table = parse_inventory(TEXT.replace("10.0.0.1", "db.example"), "cluster.yaml", {}, Places(Path("/"), Path("/root")))[0]
    found = [check for check in validate(table, table.hosts, {"node1": GOOD}) if check.name == "address"]
    assert [(check.status, check.message.split()[0]) for check in found] == [("ok", "unknown")]


@pytest.mark.parametrize(
    ("one", "two", "level"),
    [
        (59.0, -59.0, "error"),  # each is only worth a warning beside ours
        (0.7, -0.7, "warn"),
        (0.4, -0.4, None),
        (3.0, 0.0, None),  # said already, about node1
        (301.0, 0.0, None),
        (300.0, 300.0, None),
    ],
)
def test_clocks_are_compared_with_each_other_too(one: float, two: float, level: str | None) -> None:
    found = [replace(GOOD, clock_offset=one, clock_error=0.05), replace(OTHER, clock_offset=two, clock_error=0.05)]
    for pair in (found, found[::-1]):
        checks = [check for check in examined(*pair) if check.host is None]
        assert [(check.name, check.status) for check in checks] == ([("clock", level)] if level else [])
        assert all(f"{one - two:.1f} s apart" in check.message and check.fix for check in checks)


def test_hosts_that_are_the_same_machine_are_told_apart() -> None:
    clone = replace(OTHER, system=replace(OTHER.system, machine_id=GOOD.system.machine_id, hostname=GOOD.system.hostname))
    checks = examined(GOOD, clone)
    assert [(check.name, check.status) for check in checks] == [("machine-id", "error"), ("hostname", "error")]
    assert all("node1 and node2" in check.message for check in checks)


def test_addresses_that_were_mixed_up() -> None:
    one = replace(GOOD, system=replace(GOOD.system, addresses=("10.0.0.2",)))
    two = replace(OTHER, system=replace(OTHER.system, addresses=("10.0.0.1",)))
    errors = [check for check in examined(one, two) if check.status == "error"]
    assert [check.host for check in errors] == ["node1", "node2"]


def test_what_is_missing_is_installed_or_required_or_refused() -> None:
    bare = replace(GOOD, docker=Docker("missing"), packages=Packages("apt", frozenset({"nftables", "linux-headers-amd64"})))
    assert lacking(bare) == ("docker.io",)
    assert examined(bare) == []
    assert [check.status for check in examined(bare, extra="packages: require\n")] == ["error"]
    foreign = replace(bare, packages=Packages(None, frozenset()))
    assert [check.status for check in examined(foreign)] == ["warn"]
    strict = "settings: {optional_layers: refuse}\n"
    assert [check.status for check in examined(foreign, extra=strict)] == ["error"]
    assert [check.status for check in examined(replace(GOOD, docker=Docker("down")), extra=strict)] == ["error"]


def test_headers_of_another_kernel_are_not_asked_for_again_and_again() -> None:
    without = replace(GOOD, kernel=replace(GOOD.kernel, headers=None))
    assert lacking(without) == ()
    bare = replace(without, packages=Packages("apt", frozenset({"nftables"})))
    assert lacking(bare) == ("linux-headers",)
    assert examined(bare) == []  # they will be installed: nothing to warn of


def test_what_could_not_be_installed_is_a_warning_until_the_kernel_is_another() -> None:
    bare = replace(GOOD, kernel=replace(GOOD.kernel, headers=None), packages=Packages("apt", frozenset()), docker=Docker("missing"))
    assert to_install(bare) == lacking(bare) == ("docker.io", "nftables", "linux-headers")
    tried = frozenset({("6.1.0", "docker.io"), ("6.1.0", "linux-headers"), ("5.10.0", "nftables")})
    later = replace(bare, agent=replace(bare.agent, tried=tried))
    assert (given_up(later), to_install(later)) == (("linux-headers",), ("docker.io", "nftables"))  # the engine is always tried again
    for settings, status in (
        ("{}", "warn"),
        ("{optional_layers: refuse}", "error"),
        ("{optional_layers: refuse, security: {mode: off}}", "warn"),
    ):
        checks = examined(later, extra=f"settings: {settings}\n")
        assert [(check.name, check.status) for check in checks] == [("packages", status)]
        assert "apt-get install linux-headers-$(uname -r)" in (checks[0].fix or "")
    assert given_up(replace(later, system=replace(later.system, kernel="6.6.0"))) == ()
