"""ReadIndex: a read is answered only once a majority has answered a question that was sent after the read came."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from node_agent.consensus.leading.reads import Read, Reads

VOTERS = ("n0", "n1", "n2")


class Desk:
    """Reads with names, and what became of them."""

    def __init__(self, voters: tuple[str, ...] = VOTERS) -> None:
        self.reads = Reads("n0", patience=0.2)
        self.voters = voters
        self.names: dict[int, str] = {}

    def arrive(self, name: str, until: float = 10.0) -> None:
        read = Read(until, lambda outcome: None)
        self.names[id(read.done)] = name
        self.reads.arrive(read)

    def confirmed(self, applied: int = 99) -> list[str]:
        return [self.names[id(read.done)] for read in self.reads.confirmed(self.voters, applied)]

    def expired(self, now: float) -> list[str]:
        return [self.names[id(read.done)] for read in self.reads.expired(now)]


def test_a_majority_with_the_leader_itself_is_enough():
    desk = Desk()
    desk.arrive("a")
    assert desk.reads.question(0.0, committed=7) == 1
    assert desk.confirmed() == []
    desk.reads.answer("n2", 1)
    assert desk.confirmed() == ["a"]
    assert desk.confirmed() == []
    assert len(desk.reads) == 0


def test_one_answer_of_five_is_no_majority_and_a_stranger_never_counts():
    desk = Desk(("n0", "n1", "n2", "n3", "n4"))
    desk.arrive("a")
    desk.reads.question(0.0, committed=7)
    desk.reads.answer("n1", 1)
    desk.reads.answer("stranger", 1)
    assert desk.confirmed() == []
    desk.reads.answer("n4", 1)
    assert desk.confirmed() == ["a"]


def test_reads_that_come_while_a_question_is_under_way_share_the_next():
    desk = Desk()
    desk.arrive("a")
    assert desk.reads.question(0.0, committed=7) == 1
    desk.arrive("b")
    desk.arrive("c")
    assert desk.reads.question(0.1, committed=8) is None
    desk.reads.answer("n1", 1)
    assert desk.confirmed() == ["a"]  # not those that came after the question
    assert desk.reads.question(0.1, committed=8) == 2
    desk.reads.answer("n1", 2)
    assert desk.confirmed() == ["b", "c"]


def test_a_lost_answer_is_made_good_by_the_next_and_covers_all_before():
    desk = Desk()
    desk.arrive("a")
    desk.reads.question(0.0, committed=7)
    desk.arrive("b")
    assert desk.reads.question(0.15, committed=7) is None
    assert desk.reads.question(0.2, committed=7) == 2
    desk.reads.answer("n1", 2)
    desk.reads.answer("n1", 1)  # late
    assert desk.confirmed() == ["a", "b"]


def test_a_read_waits_until_what_was_committed_is_applied():
    desk = Desk()
    desk.arrive("a")
    desk.reads.question(0.0, committed=7)
    desk.reads.answer("n1", 1)
    assert desk.confirmed(applied=6) == []
    assert desk.confirmed(applied=7) == ["a"]


def test_a_single_voter_asks_nobody():
    desk = Desk(("n0",))
    desk.arrive("a")
    assert desk.confirmed() == []  # the question fixes the index: before it, nothing is known of what is committed
    desk.reads.question(0.0, committed=7)
    assert desk.confirmed() == ["a"]


def test_a_leader_that_is_no_voter_does_not_count_itself():
    desk = Desk(("n1", "n2", "n3"))
    desk.arrive("a")
    desk.reads.question(0.0, committed=7)
    desk.reads.answer("n1", 1)
    assert desk.confirmed() == []
    desk.reads.answer("n2", 1)
    assert desk.confirmed() == ["a"]


def test_who_has_waited_long_enough_gives_up_and_the_others_go_on():
    desk = Desk()
    desk.arrive("a", until=1.0)
    desk.reads.question(0.0, committed=7)
    desk.arrive("b", until=2.0)
    assert desk.reads.wake() == 0.2
    assert desk.expired(0.9) == []
    assert desk.expired(1.0) == ["a"]
    assert desk.reads.wake() == 2.0  # nothing is asked for nobody
    assert desk.reads.question(1.0, committed=7) == 2
    desk.reads.answer("n2", 2)
    assert desk.confirmed() == ["b"]
    assert desk.reads.wake() == math.inf


def test_numbers_go_on_after_the_end_of_a_leadership():
    desk = Desk()
    desk.arrive("a")
    desk.reads.question(0.0, committed=7)
    assert [read.until for read in desk.reads.end()] == [10.0]
    desk.arrive("b")
    assert desk.reads.question(5.0, committed=9) == 2
    desk.reads.answer("n1", 1)  # it speaks of the time before
    assert desk.confirmed() == []


steps = st.lists(
    st.one_of(
        st.just(("arrive",)),
        st.tuples(st.just("question"), st.floats(0.01, 0.5)),
        st.tuples(st.just("answer"), st.sampled_from(["n1", "n2", "n3", "n4"]), st.integers(1, 12)),
    ),
    max_size=60,
)


@given(steps, st.sampled_from([3, 4, 5]))
def test_no_read_is_answered_without_a_majority_that_was_asked_after_it_came(steps, size):
    voters = tuple(f"n{number}" for number in range(size))
    desk, now, sent, committed = Desk(voters), 0.0, 0, 10
    after: dict[str, int] = {}  # read -> questions that were sent before it came
    index: dict[str, int] = {}  # read -> what was committed when the first question after it was sent
    answered: dict[str, int] = {}
    for number, step in enumerate(steps):
        committed += 1
        match step:
            case ("arrive",):
                desk.arrive(f"r{number}", until=math.inf)
                after[f"r{number}"] = sent
            case ("question", seconds):
                now += seconds
                if (asked := desk.reads.question(now, committed)) is not None:
                    assert asked == sent + 1
                    sent = asked
                    index |= {name: committed for name in after if name not in index}
            case ("answer", voter, which) if voter in voters and which <= sent:
                desk.reads.answer(voter, which)
                answered[voter] = max(which, answered.get(voter, 0))
        due = {
            name
            for name, before in after.items()
            if name in index and 2 * (1 + sum(latest > before for latest in answered.values())) > size
        }
        assert set(desk.confirmed(applied=0)) == set()
        assert set(desk.confirmed(applied=committed)) == due
        for name in due:
            del after[name]
