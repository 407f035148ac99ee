"""The real hmctl against simulated hosts and agents (tests/scale): many of them, and some that fail.

tests/bench/scaling.py has the figures.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fleet import Fleet, fleet, inventory_text

from hmctl import layout

COUNT, LIMIT = 20, 8
UNHURRIED = ("--timeout", "20")  # what is right is looked at here, not how fast: the simulators share our processors
PUT = {layout.CONFIG, layout.CA, layout.CERTIFICATE, layout.UNIT_FILE, layout.WRAPPER}


@pytest.fixture
def hosts() -> Iterator[Fleet]:
    with fleet(COUNT) as made:
        yield made


def deploy(hosts: Fleet, *arguments: str) -> tuple[int, dict]:  # type: ignore[type-arg]
    run = hosts.hmctl("-o", "json", "-q", "deploy", "--yes", "--concurrency", str(LIMIT), *arguments)
    assert run.stdout, run.stderr
    return run.status, run.document


def test_all_hosts_get_what_they_should_and_never_are_more_connections_open_than_the_limit(hosts: Fleet) -> None:
    release = hosts.plant_release()
    status, report = deploy(hosts)
    assert status == 0, report
    assert report["healthy"]
    for name, machine in hosts.hosts(machines="all").items():
        assert set(machine["files"]) >= PUT, name
        assert f"node: {name}\n" in machine["config"]
        assert machine["uploads"] == [release.checksum]
        assert (machine["current"], machine["releases"]) == (release.digest, [release.digest])
        assert (machine["active"], machine["enabled"], machine["starts"], machine["locked"]) == (True, True, 1, False)
    counts = hosts.hosts(counts="now")
    assert (counts["peak"], counts["most_of_one_host"], counts["open"]) == (LIMIT, 1, 0)
    assert counts["received"] == COUNT * release.size

    hosts.hosts(counts="reset")
    status, report = deploy(hosts)
    assert (status, report["changed"]) == (0, False)
    counts = hosts.hosts(counts="now")
    assert (counts["total"], counts["sessions"], counts["received"]) == (COUNT, COUNT, 0)  # who they are and how they are: once each
    assert counts["peak"] <= LIMIT

    run = hosts.hmctl("-o", "json", "status", *UNHURRIED)
    assert (run.status, len(run.document["nodes"])) == (0, COUNT)
    assert {node["state"] for node in run.document["nodes"]} == {"ready"}


def test_hosts_that_fail_are_named_and_the_others_are_deployed(hosts: Fleet) -> None:
    release = hosts.plant_release()
    *_, slow, cut, closed = names = hosts.names
    hosts.hosts(quirks={"closed": True}, hosts=[closed])
    hosts.hosts(quirks={"cut": release.size // 2}, hosts=[cut])
    hosts.hosts(quirks={"delay": 0.2}, hosts=[slow])
    status, report = deploy(hosts)
    assert status == 3
    found = {host["name"]: host for host in report["hosts"]}
    assert [found[name]["status"] for name in (closed, cut, slow)] == ["unreachable", "failed", "changed"]
    # Which of the two our side sees is the race of the host's last words with its reset.
    assert any(words in found[closed]["error"] for words in ("ended the connection", "connection reset by peer"))
    assert "the SSH connection was lost" in found[cut]["error"]
    assert {found[name]["status"] for name in names[:-3]} == {"changed"}
    machines = hosts.hosts(machines="all")
    assert [machines[name]["active"] for name in (slow, cut, closed)] == [True, False, False]
    assert hosts.hosts(counts="now")["peak"] <= LIMIT
    run = hosts.hmctl("-o", "json", "status", *UNHURRIED)
    lost = [(node["name"], node["reasons"]) for node in run.document["nodes"] if node["state"] != "ready"]
    assert (run.status, [name for name, _ in lost]) == (3, [cut, closed]), lost

    hosts.hosts(quirks={}, hosts=[cut, closed])
    status, report = deploy(hosts)
    assert (status, report["healthy"]) == (0, True), report
    assert [host["name"] for host in report["hosts"] if host["status"] == "changed"] == [cut, closed]
    assert not any(machine["partial"] or machine["locked"] for machine in hosts.hosts(machines="all").values())


def test_a_changed_setting_reaches_all_and_they_are_restarted_within_the_limit(hosts: Fleet) -> None:
    assert deploy(hosts)[0] == 0
    hosts.path.write_text(inventory_text(COUNT, "membership: {down: 5.5}, upgrade: {batch: all}"))
    hosts.hosts(counts="reset")
    status, report = deploy(hosts)
    assert (status, report["healthy"]) == (0, True), report
    machines = hosts.hosts(machines="all")
    assert {machine["starts"] for machine in machines.values()} == {2}
    assert all("down: 5.5" in machine["config"] for machine in machines.values())
    assert hosts.hosts(counts="now")["peak"] <= LIMIT


def test_one_connection_at_a_time_is_enough_for_all_but_the_network_probe(hosts: Fleet) -> None:
    run = hosts.hmctl("-q", "deploy", "--yes", "--concurrency", "1")
    assert run.status == 0, run.stderr
    assert "was not tried" in run.stderr
    assert hosts.hosts(counts="now")["peak"] == 1


def test_a_hundred_hosts_and_agents() -> None:
    with fleet(100) as hosts:
        run = hosts.hmctl("deploy", "--yes")
        assert run.status == 0, run.stderr
        assert "100 nodes healthy" in run.stdout
        assert hosts.hosts(counts="now")["peak"] <= 32
        assert run.files < 250  # an agent's connection each, SSH within the limit
        status = hosts.hmctl("status", *UNHURRIED)
        assert (status.status, "100 of 100 nodes reachable" in status.stdout) == (0, True)
        hosts.agents(link="all")  # agents that deploy has started connect to each other
        hosts.agents(counts="reset")
        status = hosts.hmctl("-o", "json", "status", *UNHURRIED)
        through = [node["through"] for node in status.document["nodes"]]
        assert (status.status, through.count(None), len(set(through))) == (0, 8, 4), "control nodes and five others; the rest through those"
        assert hosts.agents(counts="now")["total"] == 8
        assert max(run.memory, status.memory) < 500

        gone = hosts.names[50]
        hosts.silence(gone)
        status = hosts.hmctl("-o", "json", "status", "--timeout", "5")
        unwell = [(node["name"], node["state"]) for node in status.document["nodes"] if node["state"] != "ready"]
        assert (status.status, unwell) == (3, [(gone, "unreachable")])
