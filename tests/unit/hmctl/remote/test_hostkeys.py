"""Files that vouch for hosts: what is read of them while they change."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from hmctl.remote import hostkeys
from hmctl.remote.hostkeys import Line, Reader

TEXTS = st.text(st.sampled_from("ab# \n\r\f\u2028"), max_size=12)


def test_entries_say_where_they_stand(tmp_path: Path) -> None:
    file, absent = tmp_path / "known", tmp_path / "absent"
    file.write_text("# ours\n\n  a key \nb key\n")
    reader = Reader()
    assert reader.read([absent, file]) == [Line(file, 3, "a key"), Line(file, 4, "b key")]
    hostkeys.pin(file, ["c key"])
    assert reader.read([file])[2:] == [Line(file, 5, "c key")]


@given(st.lists(st.tuples(st.booleans(), TEXTS), max_size=6))
def test_a_file_that_grows_or_is_written_anew_is_read_as_if_for_the_first_time(changes: list[tuple[bool, str]]) -> None:
    reader = Reader()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "known"
        for grows, more in changes:
            with file.open("a" if grows else "w", encoding="utf-8", newline="") as opened:
                opened.write(more)
            assert reader.read([file]) == Reader().read([file])
