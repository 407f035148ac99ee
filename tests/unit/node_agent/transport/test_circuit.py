"""When a peer is waited for, when it is dialled, and by whom."""

from hypothesis import given
from hypothesis import strategies as st

from node_agent.transport.circuit import Circuit, dials, pause


def test_a_circuit_opens_after_so_many_failures_in_a_row_and_lets_one_through_later() -> None:
    circuit = Circuit(threshold=3, open_for=5.0)
    for _ in range(2):
        circuit = circuit.failed(now=10.0)
    assert circuit.admit(10.0) == (True, circuit)
    circuit = circuit.failed(now=10.0)
    assert circuit.is_open(14.9)
    assert circuit.admit(14.9) == (False, circuit)
    admitted, circuit = circuit.admit(15.0)
    assert admitted
    assert circuit.admit(15.1)[0] is False  # only one tries
    assert circuit.failed(16.0).is_open(20.9)
    assert circuit.succeeded() == Circuit(threshold=3, open_for=5.0)


def test_one_success_forgives_earlier_failures() -> None:
    circuit = Circuit(threshold=2, open_for=5.0).failed(1.0).succeeded().failed(2.0)
    assert circuit.admit(2.0)[0]


@given(st.lists(st.sampled_from(["fail", "ok", "ask"]), max_size=40), st.integers(1, 5))
def test_a_circuit_is_never_open_for_longer_than_it_should(steps: list[str], threshold: int) -> None:
    circuit, now, failures = Circuit(threshold, open_for=5.0), 0.0, 0
    for step in steps:
        now += 1.0
        match step:
            case "fail":
                circuit, failures = circuit.failed(now), failures + 1
            case "ok":
                circuit, failures = circuit.succeeded(), 0
            case _:
                admitted, circuit = circuit.admit(now)
                assert admitted or failures >= threshold
    assert circuit.admit(now + 5.0)[0]


@given(st.integers(1, 1000), st.floats(0, 1))
def test_pauses_double_up_to_the_longest_with_jitter(attempt: int, chance: float) -> None:
    seconds = pause(attempt, 0.1, 2.0, chance)
    full = min(2.0, 0.1 * 2 ** min(attempt - 1, 10))
    assert full / 2 <= seconds <= full


names = st.sampled_from(["n1", "n2", "n3"])
roles = st.sampled_from(["control", "worker"])


@given(names, roles, names, roles)
def test_exactly_one_of_two_dials(one: str, one_role: str, other: str, other_role: str) -> None:
    if one != other:
        assert dials(one, one_role, other, other_role) != dials(other, other_role, one, one_role)
        if {one_role, other_role} == {"worker", "control"}:
            assert dials(one, one_role, other, other_role) == (one_role == "worker")
