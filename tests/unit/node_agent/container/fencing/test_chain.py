"""The agent's lease: what answers make of it, and what it permits."""

from __future__ import annotations

from hmcore.apps.calls import LeaseReply
from node_agent.container.fencing.chain import Chain, Permit, answered, permit

HELD = Chain(until=110.0, index=7)
REPLY = LeaseReply(index=12, seconds=6.0)


def answer(before: Chain | None, *, anew: bool, sent: float, now: float, longest: float = 6.0) -> Chain | None:
    return answered(before, REPLY, anew=anew, sent=sent, longest=longest, now=now)


def test_a_lease_is_counted_from_when_the_question_was_sent():
    assert answer(None, anew=True, sent=100.0, now=103.0) == Chain(106.0, 12)
    assert answer(HELD, anew=False, sent=108.0, now=109.0) == Chain(114.0, 7)
    assert answer(None, anew=True, sent=100.0, now=106.0) is None
    assert answer(None, anew=True, sent=100.0, now=103.0, longest=4.0) == Chain(104.0, 12)


def test_what_ended_before_its_renewal_came_is_not_renewed():
    assert answer(HELD, anew=False, sent=109.0, now=110.0) is None
    assert answer(None, anew=False, sent=109.0, now=110.0) is None
    assert answer(HELD, anew=True, sent=110.5, now=110.6) == Chain(116.5, 12), "who asks anew is told what was decided since"


def test_an_answer_that_is_too_late_takes_nothing_away():
    assert answer(HELD, anew=False, sent=102.0, now=109.0) == HELD
    assert answer(HELD, anew=False, sent=103.0, now=105.0) == HELD


def test_what_may_run_and_what_may_be_started():
    def now(time: float, *, chain: Chain | None = HELD, known: int = 7, watched: bool = True) -> Permit:
        return permit(chain, known=known, watched=watched, lease=6.0, now=time)

    assert now(105.0) == Permit(lease=7)
    for gone in (now(110.0), now(105.0, chain=None)):
        assert gone.barred
        assert gone.held
        assert gone.lease == 0
    assert (now(107.5).barred, now(107.5).held) == ("", "the leader does not answer this node")
    assert (now(105.0, known=6).barred, now(105.0, known=6).held) == (
        "",
        "what was decided while this node had no lease is not known here yet",
    )
    assert "systemctl restart hypermesh-fence" in now(105.0, watched=False).held
    assert now(105.0, watched=False).barred == ""
