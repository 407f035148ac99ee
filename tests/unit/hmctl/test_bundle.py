"""Releases: what goes in, where from, the same bytes for the same content, and a cache that only holds whole ones."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import time
from pathlib import Path

import pytest

from hmcore.errors import ReleaseError
from hmctl.bundle import archive, build, index, lock, store
from hmctl.bundle.build import Built, Target, here
from hmctl.bundle.lock import Installed, Lock
from hmctl.bundle.store import ReleaseStore

LINES = [
    "aioquic==1.7.2",
    'tomli>=2; python_version < "3.12"',
    "pysyncobj==0.3.17; extra == 'agent'",
    "docker>=7.1; (sys_platform == 'linux') and extra == 'agent'",
    'asyncssh>=2.19; extra == "cli"',
]


def test_the_agents_requirements_are_our_own_and_those_of_its_extra() -> None:
    assert lock.select(LINES, "agent") == [
        "aioquic==1.7.2",
        'tomli>=2; python_version < "3.12"',
        "pysyncobj==0.3.17",
        "docker>=7.1; (sys_platform == 'linux')",
    ]


def test_versions_are_those_installed_here_all_the_way_down() -> None:
    table = {
        "docker": ("7.1.0", ("requests>=2", "urllib3", 'websocket-client; extra == "websockets"')),
        "requests": ("2.32.0", ("urllib3<3", "charset_normalizer<4", "docker")),
        "charset-normalizer": ("3.4.0", ()),
        "websocket-client": ("1.8", ()),
    }
    assert lock.pins(["docker>=7.1", "pysyncobj==0.3.17"], Installed(table)) == [
        "charset-normalizer==3.4.0",
        "docker==7.1.0",
        "requests==2.32.0",
    ]


def test_this_projects_own_lock_names_what_the_agent_imports() -> None:
    found = lock.read_lock()
    names = {line.split("=")[0].split(">")[0] for line in found.requirements}
    assert {"aioquic", "cryptography", "docker", "msgspec", "pydantic", "pysyncobj", "pyyaml", "uvloop"} <= names
    assert not names & {"typer", "rich", "asyncssh", "jinja2", "uv"}


def test_pips_own_index_is_used_unless_uv_has_one(tmp_path: Path) -> None:
    conf = tmp_path / "pip.conf"
    conf.write_text(
        "[global]\nindex-url = https://one.example/simple\nfind-links = /a\n    /b\n[install]\nextra-index-url = https://two.example\n"
    )
    environ = {"PIP_CONFIG_FILE": str(conf), "PIP_CERT": "/ca.pem", "XDG_CONFIG_HOME": str(tmp_path), "PATH": "/bin"}
    options = index.pip_options(environ, [tmp_path / "missing", conf])
    assert index.translate(options) == {
        "UV_DEFAULT_INDEX": "https://one.example/simple",
        "UV_INDEX": "https://two.example",
        "UV_FIND_LINKS": "/a,/b",
        "SSL_CERT_FILE": "/ca.pem",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    chosen = index.environment({**environ, "UV_INDEX_URL": "https://uv.example"}, tmp_path)
    assert "UV_DEFAULT_INDEX" not in chosen
    assert (chosen["PATH"], chosen["UV_INDEX_URL"]) == ("/bin", "https://uv.example")
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv" / "uv.toml").write_text("")
    assert "UV_DEFAULT_INDEX" not in index.environment(environ, tmp_path)
    conf.write_text("not an ini file")
    assert index.pip_options({}, [conf]) == {}


def tree(root: Path) -> Path:
    for name, content in {"b/two.py": b"2", "a.py": b"1", "bin.sh": b"#!/bin/sh"}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "bin.sh").chmod(0o755)
    return root


def test_an_archive_is_the_same_bytes_whenever_its_content_is(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    os.utime(two / "a.py", (1, 1))
    (two / "a.py").chmod(0o600)
    assert archive.pack(one, last=True) == archive.pack(two, last=True)
    assert archive.digest(one, "x") == archive.digest(two, "x")
    assert archive.digest(one, "x") != archive.digest(one, "y")
    (two / "a.pyc").write_bytes(b"code")
    assert archive.digest(one, "x") == archive.digest(two, "x")
    (two / "b" / "two.py").write_bytes(b"3")
    assert archive.digest(one, "x") != archive.digest(two, "x")


def test_two_parts_make_one_archive(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "c.py").write_bytes(os.urandom(9_000_000))  # several pieces
    whole = archive.pack(tree(tmp_path / "one"), last=False) + archive.pack(other, last=True)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(whole))) as found:
        assert [(member.name, oct(member.mode), member.uid, member.mtime) for member in found] == [
            ("a.py", "0o644", 0, 0),
            ("b/two.py", "0o644", 0, 0),
            ("bin.sh", "0o755", 0, 0),
            ("c.py", "0o644", 0, 0),
        ]
        member = found.extractfile("c.py")
        assert member is not None
        assert member.read() == (other / "c.py").read_bytes()


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ReleaseStore, list[str]]:
    """A store whose libraries come from nowhere; and what was built, in order."""
    built: list[str] = []

    def libraries(target: Target, locked: Lock, environ: object) -> Built:
        built.append("libraries")
        return Built("l" * 64, archive.pack(tree(tmp_path / "libraries"), last=False), 3)

    real = build.build_ours

    def ours(target: Target, locked: Lock, under: Built) -> Built:
        built.append("ours")
        return real(target, locked, under)

    monkeypatch.setattr(store, "build_libraries", libraries)
    monkeypatch.setattr(store, "build_ours", ours)
    return ReleaseStore.open({"XDG_CACHE_HOME": str(tmp_path / "cache")}), built


@pytest.mark.long
def test_a_release_is_built_once_and_holds_our_packages(releases: tuple[ReleaseStore, list[str]]) -> None:
    found, built = releases
    assert found.cached(here()) is None
    release = found.get(here())
    assert found.get(here()) == release == found.cached(here())
    assert built == ["libraries", "ours"]
    release.verify()
    with tarfile.open(release.archive) as content:
        names = set(content.getnames())
    assert {"a.py", "hmcore/pki.py", "node_agent/__main__.py", "release.json"} <= names
    assert f"hmcore/__pycache__/pki.cpython-{here().python.replace('.', '')}.pyc" in names
    assert not any(name.startswith("hmctl") for name in names)


@pytest.mark.long
def test_our_own_change_does_not_build_the_libraries_again(
    releases: tuple[ReleaseStore, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, built = releases
    before = found.get(here())
    monkeypatch.setattr(store, "source_digest", lambda: "changed")
    assert found.cached(here()) is None
    assert found.get(here()).archive != before.archive
    assert built == ["libraries", "ours", "ours"]
    assert [release.archive for release in found.list()][-1] == before.archive


@pytest.mark.long
@pytest.mark.parametrize("damage", ["truncated", "no description", "not json"])
def test_a_damaged_cache_is_no_cache(releases: tuple[ReleaseStore, list[str]], damage: str) -> None:
    found, built = releases
    folder = found.get(here()).archive.parent
    if damage == "truncated":
        (folder / "release.tar.gz").write_bytes(b"half")
    elif damage == "no description":
        (folder / "release.json").unlink()
    else:
        (folder / "release.json").write_text("{")
    assert found.cached(here()) is None
    found.get(here()).verify()
    assert built == ["libraries", "ours", "ours"]


@pytest.mark.long
def test_bytes_that_changed_in_the_cache_are_noticed(releases: tuple[ReleaseStore, list[str]]) -> None:
    release = releases[0].get(here())
    content = bytearray(release.archive.read_bytes())
    content[-1] ^= 1
    release.archive.write_bytes(content)
    with pytest.raises(ReleaseError, match="damaged"):
        release.verify()


def test_finding_a_cached_release_is_quick(releases: tuple[ReleaseStore, list[str]]) -> None:
    releases[0].get(here())
    began = time.process_time()
    releases[0].cached(here())
    assert time.process_time() - began < 0.2


@pytest.mark.parametrize(
    ("target", "words"), [(Target("3.10", "x86_64"), "too old"), (Target("3.11", "i686"), "i686"), (Target("3", "x86_64"), "minor")]
)
def test_what_no_release_can_be_built_for_is_refused(releases: tuple[ReleaseStore, list[str]], target: Target, words: str) -> None:
    with pytest.raises(ReleaseError, match=words):
        releases[0].get(target)


def test_an_installer_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "uv"
    fake.write_text("#!/bin/sh\necho 'error: No solution found: nobody has aioquic' >&2; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr("uv.find_uv_bin", lambda: str(fake))
    with pytest.raises(ReleaseError, match="cannot be built: No solution found: nobody has aioquic") as caught:
        build.build_libraries(Target("3.12", "aarch64"), Lock("0", ("aioquic",), ()), {})
    assert "--python 3.12 --arch aarch64" in (caught.value.fix or "")


def test_what_an_agent_never_reads_is_left_out(tmp_path: Path) -> None:
    for name in ("p/tests/t.py", "p/a.pyi", "p/c.c", "p/x.so", "p/m.py", "p-1.dist-info/RECORD", "p-1.dist-info/METADATA", "bin/tool"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    build._strip(tmp_path)
    assert [name for name, _ in archive.files(tmp_path)] == ["p-1.dist-info/METADATA", "p/m.py", "p/x.so"]
