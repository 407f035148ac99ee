from pathlib import Path

from node_agent.platform.pause import CEILING, FORGET, count_failure


def test_each_failure_in_a_row_waits_longer_up_to_a_bound(tmp_path: Path) -> None:
    pauses = [count_failure(tmp_path / "failures", age=1.0) for _ in range(12)]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == CEILING


def test_good_work_in_between_forgives_the_earlier_failures(tmp_path: Path) -> None:
    for _ in range(5):
        count_failure(tmp_path / "failures", age=1.0)
    assert count_failure(tmp_path / "failures", age=FORGET) == 0.5
    assert count_failure(tmp_path / "failures", age=1.0) == 1.0


def test_a_count_that_nobody_can_read_or_write_is_a_first_failure(tmp_path: Path) -> None:
    (tmp_path / "failures").write_text("many")
    assert count_failure(tmp_path / "failures", age=1.0) == 0.5
    assert count_failure(tmp_path / "no" / "folder", age=1.0) == 0.5
