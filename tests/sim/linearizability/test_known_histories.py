"""The histories that porcupine is tested with get porcupine's verdicts (histories/NOTICE)."""

from __future__ import annotations

import pytest
from known_histories import Append, Get, Read, Register, Strings, StringsTogether, Swap, Write, jepsen, strings
from linearizability import UNKNOWN, Operation, Outcome, check

KNOWN = {
    "c01-ok": (58, Outcome.OK),
    "c01-bad": (38, Outcome.ILLEGAL),
    "c10-ok": (337, Outcome.OK),
    "c10-bad": (405, Outcome.ILLEGAL),
    "c50-ok": (1712, Outcome.OK),
    "c50-bad": (2024, Outcome.ILLEGAL),
}


@pytest.mark.long
@pytest.mark.parametrize("name", KNOWN)
def test_strings_under_keys(name):
    operations = strings(name)
    verdict = check(Strings(), operations)
    assert (len(operations), verdict.outcome) == KNOWN[name]


@pytest.mark.parametrize("name", ["c01-ok", "c01-bad"])
def test_strings_under_keys_without_partitions(name):
    assert check(StringsTogether(), strings(name)).outcome is KNOWN[name][1]


def test_what_is_wrong_with_one_of_them():
    """A read that does not show what another, over before it began, had shown already."""
    verdict = check(Strings(), strings("c10-bad"))
    assert verdict.partition == "1"
    assert verdict.order[-1].answer == "x 3 0 yx 3 1 yx 4 0 y"
    assert [(operation.request, operation.answer) for operation in verdict.stuck] == [(Get("1"), "x 3 0 yx 3 1 y")]
    assert verdict.stuck[0].called > verdict.order[-1].returned
    assert Append("1", "x 4 0 y") in {operation.request for operation in verdict.order}


LOG = """\
INFO  jepsen.core - Worker 1 starting
INFO  jepsen.util - 0\t:invoke\t:read\tnil
INFO  jepsen.util - 1\t:invoke\t:write\t3
INFO  jepsen.util - 2\t:invoke\t:cas\t[3 4]
INFO  jepsen.util - 0\t:ok\t:read\tnil
INFO  jepsen.util - 1\t:info\t:write\t:timed-out
INFO  jepsen.util - 2\t:ok\t:cas\t[3 4]
INFO  jepsen.util - 0\t:invoke\t:read\tnil
INFO  jepsen.util - 0\t:ok\t:read\t4
INFO  jepsen.util - 0\t:invoke\t:read\tnil
INFO  jepsen.util - 0\t:fail\t:read\t:timed-out
INFO  jepsen.util - 0\t:invoke\t:cas\t[9 9]
INFO  jepsen.util - 0\t:fail\t:cas\t[9 9]
INFO  jepsen.util - 2\t:invoke\t:write\t5
"""


def test_logs_of_jepsen():
    """The 102 logs themselves are not ours to pass on; check_jepsen_logs.py reads them from a copy of porcupine."""
    operations = jepsen(LOG)
    assert set(operations) == {
        Operation(Read(), 1, Register.NOTHING, 4, "0"),
        Operation(Write(3), 2, client="1"),
        Operation(Swap(3, 4), 3, True, 6, "2"),
        Operation(Read(), 7, 4, 8, "0"),
        Operation(Read(), 9, client="0"),
        Operation(Swap(9, 9), 11, False, 12, "0"),
        Operation(Write(5), 13, client="2"),
    }
    assert check(Register(), operations).outcome is Outcome.OK
    assert all(operation.answer is not UNKNOWN for operation in operations if operation.request == Swap(3, 4))
    assert check(Register(), jepsen(LOG.replace(":ok\t:read\t4", ":ok\t:read\t9"))).outcome is Outcome.ILLEGAL
