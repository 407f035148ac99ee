"""Hosts as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.config.hostspec import HostSpec, expand, parse
from hmcore.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address", "user", "port"),
    [
        ("10.0.0.1", "10.0.0.1", None, None),
        ("root@10.0.0.1", "10.0.0.1", "root", None),
        ("root@10.0.0.1:2222", "10.0.0.1", "root", 2222),
        ("web1", "web1", None, None),
        ("admin@Web1.Example.ORG:22", "web1.example.org", "admin", 22),
        ("fd00::1", "fd00::1", None, None),
        ("root@fd00:0:0::1", "fd00::1", "root", None),
        ("[fd00::1]", "fd00::1", None, None),
        ("root@[FD00::1]:2222", "fd00::1", "root", 2222),
        ("first.last@h", "h", "first.last", None),
        ("_svc-1@h:65535", "h", "_svc-1", 65535),
    ],
)
def test_a_host_and_its_parts(text, address, user, port):
    assert parse(text) == HostSpec(address, user, port)
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "root@", "@host", "a b", "host:", "host:0", "host:65536", "host:ssh", "host:-1", "host:22:33", "a@b@c", "-host", "host-"),
        *("ho_st", "10.0.0.300", "10.0.0", "10.0.0.1.2", "010.0.0.1", "0.0.0.0", "::", "224.0.0.1", "fe80::1%eth0"),
        *("[fd00::1", "[fd00::1]x", "[host]:22", "[10.0.0.1]:22", "10.0.0.[1-3]", "x" * 64, "hóst", "٣"),
        *("$(reboot)", "host;ls", "host\n", "ro ot@h", "-oProxyCommand=x@h"),
    ],
)
def test_what_is_no_host_is_refused(text):
    with pytest.raises(UsageError) as refused:
        parse(text)
    assert refused.value.fix


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("root@10.0.0.[1-3]", ["root@10.0.0.1", "root@10.0.0.2", "root@10.0.0.3"]),
        ("web[08-10]", ["web08", "web09", "web10"]),
        ("web[1,4-5]:22", ["web1:22", "web4:22", "web5:22"]),
        ("10.0.[1-2].[3-4]", ["10.0.1.3", "10.0.1.4", "10.0.2.3", "10.0.2.4"]),
        ("[fd00::[1-2]]:22", ["[fd00::1]:22", "[fd00::2]:22"]),
        ("[fd00::1]:22", ["[fd00::1]:22"]),
        ("host", ["host"]),
        ("h[7]", ["h7"]),
        ("h[3-3]", ["h3"]),
    ],
)
def test_ranges(text, hosts):
    assert expand(text) == hosts


@pytest.mark.parametrize("text", ["h[3-1]", "h[0-1000]", "h[0-999999999]", "h[1-100][1-100]", "h[1-40][1-40][1-40]"])
def test_ranges_that_are_refused(text):
    with pytest.raises(UsageError):
        expand(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("web1.example.org", "web1"),
        ("10.0.0.1", "node-10-0-0-1"),
        ("fd00::1", "node-fd00--1"),
        ("fd00::", "node-fd00"),
        ("::1", "node---1"),
    ],
)
def test_the_name_of_a_host_without_one(text, name):
    assert parse(text).name == name


@given(st.text(max_size=40))
def test_any_text_is_hosts_or_a_usage_error(text):
    try:
        specs = [parse(one) for one in expand(text)]
    except UsageError:
        return
    for spec in specs:
        assert set(spec.address) <= set("abcdefghijklmnopqrstuvwxyz0123456789.:-"), "nothing that a shell or a template would mind"
