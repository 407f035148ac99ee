"""Writers run while faults come. Whatever was acknowledged is there afterwards, no read told of less than was known, and those who could
not decide said so in time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from clusters import AGENT, Cluster
from writing import CALL_TIMEOUT, WRITERS, Writing, writing

from hmcore.errors import NoQuorum, NotLeader
from hmcore.records import NodeReport
from hmctl.lab import shell
from hmctl.lab.plan import Names

NEXT_WRITE = 3.0  # seconds from a leader's death to the next write that is accepted: its followers' patience is 1 to 2 s
HANDED_OVER = 1.0  # seconds without an accepted write when the leader leaves as planned
AT_ONCE = 1.0  # seconds to say what is known already
AGAIN = 30.0  # seconds for what takes longer: agents that start anew, connections that must be found dead first
RAFT = "/var/lib/hypermesh/raft"
KEPT = "/mnt/kept"


@pytest.fixture(autouse=True)
def healthy_before_and_whole_afterwards(cluster: Cluster) -> Iterator[None]:
    """A test that ends well has seen to it itself."""
    cluster.until_healthy()
    yield
    cluster.lab.heal()
    for name in cluster.names:
        signal_agent(cluster, name, "CONT")
        cluster.inside(name, "systemctl", "start", AGENT)


def followers(cluster: Cluster, work: Writing) -> list[str]:
    return [name for name in cluster.names if name != work.leader]


def signal_agent(cluster: Cluster, node: str, signal: str) -> None:
    cluster.inside(node, "systemctl", "kill", f"--signal={signal}", AGENT)


@contextmanager
def stopped(cluster: Cluster, node: str) -> Iterator[None]:
    """The agent hears, says and does nothing, and does not know that time passes."""
    signal_agent(cluster, node, "STOP")
    try:
        yield
    finally:
        signal_agent(cluster, node, "CONT")


@contextmanager
def cut(cluster: Cluster, node: str) -> Iterator[list[str]]:
    """The node is cut off from all others, which are named. This machine still reaches it."""
    others = [name for name in cluster.names if name != node]
    cluster.lab.partition([[node], others])
    try:
        yield others
    finally:
        cluster.lab.heal()


@contextmanager
def deaf(cluster: Cluster, *ways: tuple[str, str]) -> Iterator[None]:
    """Nothing gets through from the first of each two to the second; the other way all does."""
    switch = Names(cluster.lab.name).switch
    try:
        for sender, hearer in ways:
            rule = f'add rule bridge lab cables iifname "{sender}" oifname "{hearer}" drop'
            shell.run(["ip", "netns", "exec", switch, "nft", "-f", "-"], stdin=rule)
        yield
    finally:
        cluster.lab.heal()  # makes the switch's rules anew


@contextmanager
def full(cluster: Cluster, node: str) -> Iterator[None]:
    """There is not a block left where the node keeps its journal, which is a small file system of its own."""
    cluster.inside(node, "sh", "-c", f"dd if=/dev/zero of={RAFT}/ballast bs=4k 2>/dev/null; true")
    try:
        yield
    finally:
        cluster.inside(node, "rm", f"{RAFT}/ballast")


@pytest.fixture(scope="module")
def small_disks(cluster: Cluster) -> Iterator[None]:
    """Each node keeps its journal on a file system of 8 MiB while the tests run that want it so."""
    mount = f"mount -t tmpfs -o size=8m,mode=700 tmpfs {RAFT}; cp -a {KEPT}/. {RAFT}/"
    keep = f"systemctl stop {AGENT}; rm -rf {RAFT}/ballast {KEPT}; cp -a {RAFT} {KEPT}"
    back = f"{keep}; umount {RAFT}; cp -a {KEPT}/. {RAFT}/; rm -rf {KEPT}"
    try:
        for node in cluster.names:
            cluster.inside(node, "sh", "-ec", f"{keep}; {mount}; systemctl start {AGENT}")
        cluster.until_healthy()
        yield
    finally:
        for node in cluster.names:
            cluster.inside(node, "sh", "-ec", f"if mountpoint -q {RAFT}; then {back}; fi; systemctl start {AGENT}")
        cluster.until_healthy()


def test_a_followers_agent_is_killed(cluster: Cluster) -> None:
    with writing(cluster, "follower killed") as work:
        began = time.monotonic()
        cluster.kill_agent(followers(cluster, work)[0])
        cluster.until_healthy()
        assert work.silence(began) <= NEXT_WRITE, "two of three go on"


def test_the_leaders_agent_is_killed(cluster: Cluster) -> None:
    with writing(cluster, "leader killed") as work:
        cluster.kill_agent(work.leader)
        print(f"the next write after {work.until_acknowledged(NEXT_WRITE):.2f} s")
        cluster.until_healthy()


def test_all_agents_are_killed_at_once(cluster: Cluster) -> None:
    with writing(cluster, "all killed") as work:
        with ThreadPoolExecutor() as pool:
            list(pool.map(cluster.kill_agent, cluster.names))
        print(f"all write again after {work.until_acknowledged(AGAIN, writers=WRITERS):.2f} s")
        cluster.until_healthy()


def test_a_followers_agent_stops_for_a_while(cluster: Cluster) -> None:
    with writing(cluster, "follower stopped") as work:
        began, leader, node = time.monotonic(), work.leader, followers(cluster, work)[0]
        with stopped(cluster, node):
            work.until_report(leader, lambda report: node not in report.raft.reachable_voters, AGAIN, f"{leader} misses {node}")
            work.until_acknowledged(AGAIN, writers=WRITERS)
        cluster.until_healthy()
        assert work.silence(began) <= NEXT_WRITE, "two of three go on"


def test_the_leaders_agent_stops_for_a_while_and_wakes_up_as_one_of_old(cluster: Cluster) -> None:
    with writing(cluster, "leader stopped") as work:
        leader = work.leader
        with work.witness(leader) as read:
            with stopped(cluster, leader):
                work.until_acknowledged(AGAIN, writers=WRITERS)
                assert work.leader != leader
                told = read()  # wait for it in the queue when it wakes up, before anybody tells it of another leader
            print("read when it woke up:", told())
        cluster.until_healthy()


def test_the_leader_is_cut_off_and_says_at_once_that_it_cannot_decide(cluster: Cluster) -> None:
    with writing(cluster, "leader cut off") as work:
        leader = work.leader
        with cut(cluster, leader):
            began = time.monotonic()
            error, took = work.ask(leader)  # it still believes that it leads
            assert isinstance(error, NoQuorum | NotLeader)
            assert took < CALL_TIMEOUT
            work.until_acknowledged(AGAIN, since=began, writers=WRITERS)
            assert work.leader != leader
            work.until_report(leader, lambda report: report.raft.reachable_voters == [leader], AGAIN, f"{leader} is alone")
            says_no_quorum(work, leader)
        cluster.until_healthy()


def says_no_quorum(work: Writing, node: str) -> None:
    """Within the time of a call, and as soon as it is sure of it in next to none."""
    deadline = time.monotonic() + CALL_TIMEOUT
    while True:
        error, took = work.ask(node)
        assert isinstance(error, NoQuorum | NotLeader)
        assert took < CALL_TIMEOUT
        if isinstance(error, NoQuorum) and took < AT_ONCE:
            print(f"{node} after {took:.3f} s: {error.message}")
            assert error.message.startswith("no quorum: 1 of 3 voters reachable")
            return
        assert time.monotonic() < deadline, f"{node} still says: {error}"


def test_the_leader_is_not_heard(cluster: Cluster) -> None:
    with writing(cluster, "leader not heard") as work:
        leader = work.leader
        with deaf(cluster, *((leader, other) for other in followers(cluster, work))):
            another_leads(work, leader)
        cluster.until_healthy()


def test_the_leader_hears_nobody(cluster: Cluster) -> None:
    with writing(cluster, "leader hears nobody") as work:
        leader = work.leader
        with deaf(cluster, *((other, leader) for other in followers(cluster, work))):
            another_leads(work, leader)
        cluster.until_healthy()


def another_leads(work: Writing, leader: str) -> None:
    """And all write there."""
    began = time.monotonic()
    while work.leader == leader:
        work.until_acknowledged(AGAIN)
        assert time.monotonic() - began < AGAIN, f"{leader} leads on"
    print(f"another leads after {time.monotonic() - began:.2f} s")
    work.until_acknowledged(AGAIN, writers=WRITERS)


def test_a_follower_is_cut_off(cluster: Cluster) -> None:
    with writing(cluster, "follower cut off") as work:
        began, node = time.monotonic(), followers(cluster, work)[0]
        with cut(cluster, node):
            work.until_report(node, lambda report: report.raft.reachable_voters == [node], AGAIN, f"{node} is alone")
            says_no_quorum(work, node)
        cluster.until_healthy()
        assert work.silence(began) <= NEXT_WRITE, "two of three go on"


def test_a_leader_that_is_stopped_as_planned_hands_over_first(cluster: Cluster) -> None:
    with writing(cluster, "leader leaves") as work:
        leader = work.leader
        began = time.monotonic()
        cluster.inside(leader, "systemctl", "stop", "--no-block", AGENT)
        another_leads(work, leader)
        silence = work.silence(began)
        print(f"no write for {silence:.2f} s")
        assert silence < HANDED_OVER
        cluster.inside(leader, "systemctl", "start", AGENT)
        cluster.until_healthy()


def test_the_leadership_is_handed_over_on_demand(cluster: Cluster) -> None:
    with writing(cluster, "handed over") as work:
        leader, began = work.leader, time.monotonic()
        done = work.hand_over(leader)
        assert done.leader != leader
        work.until_acknowledged(AGAIN, by=done.leader, writers=WRITERS)
        silence = work.silence(began)
        print(f"handed over in {done.seconds:.2f} s, no write for {silence:.2f} s")
        assert silence < HANDED_OVER
        cluster.until_healthy()


def began_at(report: NodeReport) -> float:
    """When the agent was started, by its own clock."""
    return report.unix_time - report.uptime_seconds


@pytest.mark.usefixtures("small_disks")
def test_a_followers_disk_is_full(cluster: Cluster) -> None:
    with writing(cluster, "follower full") as work:
        began, node = time.monotonic(), followers(cluster, work)[0]
        with full(cluster, node):
            before = began_at(work.until_report(node, says_no_room, AGAIN, f"{node} says that its disk is full"))
            cluster.kill_agent(node)
            work.until_report(
                node,
                lambda report: says_no_room(report) and began_at(report) > before + 0.1,
                AGAIN,
                f"{node} has started again, and its disk is as full",
            )
            work.until_acknowledged(AGAIN, writers=WRITERS)
        cluster.until_healthy()
        assert work.silence(began) <= NEXT_WRITE, "two of three go on"


@pytest.mark.usefixtures("small_disks")
def test_the_leaders_disk_is_full(cluster: Cluster) -> None:
    with writing(cluster, "leader full") as work:
        leader = work.leader
        with full(cluster, leader):
            another_leads(work, leader)
            work.until_report(leader, says_no_room, AGAIN, f"{leader} says that its disk is full")
        cluster.until_healthy()


def says_no_room(report: NodeReport) -> bool:
    return "no room to write" in (report.components["consensus"].error or "")
