"""Tar archives: Python's tarfile writes them, we say what is in them; and hostile ones."""

from __future__ import annotations

import contextlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import ArchiveError
from hmcore.images import tar
from hmcore.images.tar import Entry, compression, entries

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=120).filter(
    lambda name: name.strip(". \t\n\r") != ""
)


def archive(files: dict[str, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as out:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@given(st.dictionaries(NAMES, st.binary(max_size=1500), max_size=6), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_what_tarfile_writes_is_found_where_it_is(files: dict[str, bytes], format: int) -> None:
    data = archive(files, format)
    found = entries(io.BytesIO(data))
    assert {name: data[entry.offset : entry.offset + entry.size] for name, entry in found.items()} == files


def test_links_folders_and_other_things() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for name, kind, link in (
            ("./a", tarfile.DIRTYPE, ""),
            ("a/layer.tar", tarfile.REGTYPE, ""),
            ("b/layer.tar", tarfile.SYMTYPE, "../a/layer.tar"),
            ("c/layer.tar", tarfile.LNKTYPE, "a/layer.tar"),
            ("d", tarfile.SYMTYPE, "/a/layer.tar"),
            ("e", tarfile.SYMTYPE, "../../../etc/passwd"),
            ("pipe", tarfile.FIFOTYPE, ""),
            ("device", tarfile.CHRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            out.addfile(info)
    found = entries(buffer)
    assert {name: entry.link for name, entry in found.items()} == {
        "a/layer.tar": "",
        "b/layer.tar": "a/layer.tar",
        "c/layer.tar": "a/layer.tar",
        "d": "a/layer.tar",
        "e": "etc/passwd",
    }


def test_a_file_of_ten_gigabytes_is_not_read(tmp_path: object) -> None:
    info = tarfile.TarInfo("big")
    info.size = 10 << 30
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        header = info.tobuf(format)
        file = Sparse(header, 10 << 30)
        assert entries(file) == {"big": Entry(len(header), 10 << 30)}  # type: ignore[arg-type]


class Sparse(io.RawIOBase):
    """A header, and so many zeros behind it."""

    def __init__(self, header: bytes, zeros: int) -> None:
        self._header, self._end, self._at = header, len(header) + zeros + 1024, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset if whence == 0 else self._end
        return self._at

    def read(self, size: int = -1) -> bytes:
        assert 0 <= size <= tar.MOST_EXTENSION
        data = (self._header[self._at : self._at + size]).ljust(max(0, min(size, self._end - self._at)), b"\0")
        self._at += len(data)
        return data


@given(st.binary(max_size=3000))
def test_any_bytes_give_entries_or_an_error(data: bytes) -> None:
    with contextlib.suppress(ArchiveError):
        entries(io.BytesIO(data))


@given(st.data())
def test_any_change_of_an_archive_gives_entries_or_an_error(draw: st.DataObject) -> None:
    format = draw.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    data = bytearray(archive({"a" * 150: b"1" * 600, "ü": b"", "manifest.json": b"[]"}, format))
    for _ in range(draw.draw(st.integers(1, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    del data[draw.draw(st.integers(0, len(data))) :]
    try:
        found = entries(io.BytesIO(bytes(data)))
    except ArchiveError:
        return
    assert all(entry.offset + entry.size <= len(data) for entry in found.values())


def test_an_archive_that_was_cut_off_is_refused() -> None:
    data = archive({"a": b"1" * 2000, "b": b"2" * 2000})
    for cut in (100, 513, 1500, 2600, 3500):
        with pytest.raises(ArchiveError):
            entries(io.BytesIO(data[:cut]))
    ends = data[: 2 * (512 + 2048)]
    assert set(entries(io.BytesIO(ends))) == {"a", "b"}  # some leave out what should end it


def test_headers_and_entries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MOST_ENTRIES", 3)
    with pytest.raises(ArchiveError, match="more than 3"):
        entries(io.BytesIO(archive({str(number): b"" for number in range(5)})))
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", 1 << 40
    with pytest.raises(ArchiveError, match="header of"):
        entries(io.BytesIO(info.tobuf(tarfile.GNU_FORMAT)))


@pytest.mark.parametrize(
    "record", [b"9 path=a", b"0 path=a\n", b"99999999999 a=b\n", b"x path=a\n", b"5 a=\n\n", b"12 size=-1\n\n\n", b"12 size=1e3\n\n"]
)
def test_a_damaged_pax_header_is_refused(record: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", len(record)
    data = info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + archive({"a": b"1"})
    with pytest.raises(ArchiveError):
        entries(io.BytesIO(data))


def test_compression_is_known_by_its_first_bytes() -> None:
    assert compression(b"\x1f\x8b\x08") == "gzip"
    assert compression(b"\x28\xb5\x2f\xfd\x00") == "zstd"
    assert compression(archive({"a": b""})[:8]) is None
