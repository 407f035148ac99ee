"""This machine's package sources, as people really write them."""

from pathlib import Path

import pytest

from hmcore.errors import LabError
from hmctl.lab.apt import Release, Source, choose, inline_key, one_line, parse_deb822, parse_list, parse_release, parse_settings, read_setup

BOOKWORM = Release("debian", "bookworm")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

ONE_LINE = """\
# deb cdrom:[Debian GNU/Linux 12.0.0]/ bookworm main
deb http://archive.example/debian/ bookworm main contrib non-free-firmware  # a comment
deb-src http://archive.example/debian/ bookworm main
deb [arch=amd64 signed-by=/etc/apt/keyrings/vendor.gpg] https://vendor.example/apt bookworm main

deb http://archive.example/debian-security bookworm-security main
deb\thttp://archive.example/debian\tbookworm-updates\tmain
"""

DEB822 = f"""\
Types: deb deb-src
# a comment inside a stanza
URIs: http://archive.example/debian
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By: {KEYRING}

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://vendor.example/deb
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
"""


def test_the_one_line_format():
    assert parse_list(ONE_LINE) == [
        Source("http://archive.example/debian/", "bookworm", ("main", "contrib", "non-free-firmware")),
        Source("https://vendor.example/apt", "bookworm", ("main",), "/etc/apt/keyrings/vendor.gpg"),
        Source("http://archive.example/debian-security", "bookworm-security", ("main",)),
        Source("http://archive.example/debian", "bookworm-updates", ("main",)),
    ]


def test_the_deb822_format():
    found = parse_deb822(DEB822)
    assert found[:2] == [
        Source("http://archive.example/debian", "bookworm", ("main", "contrib"), KEYRING),
        Source("http://archive.example/debian", "bookworm-updates", ("main", "contrib"), KEYRING),
    ]
    assert [source.uri for source in found[2:]] == ["https://vendor.example/deb"]
    assert inline_key(found[2].signed_by).splitlines() == [
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----",
        b"",
        b"mQINBF",
        b"-----END PGP PUBLIC KEY BLOCK-----",
    ]


def test_a_third_party_that_offers_main_for_our_release_is_not_the_archive():
    vendor = Source("https://vendor.example/apt", "bookworm", ("main",), "/etc/apt/keyrings/vendor.gpg")
    ours = Source("http://archive.example/debian", "bookworm", ("main",), KEYRING)
    updates = Source("http://archive.example/debian", "bookworm-updates", ("main",), KEYRING)
    other = Source("http://archive.example/debian", "bookworm-backports", ("main",), KEYRING)
    assert choose(BOOKWORM, [vendor, updates, ours, other]) == (ours, (updates, ours))
    assert choose(BOOKWORM, parse_list(ONE_LINE))[0].uri == "http://archive.example/debian/"


def test_an_archive_signed_by_a_key_of_its_own_serves_when_there_is_no_other():
    mirror = Source("https://mirror.example/debian", "bookworm", ("main",), "/etc/apt/keyrings/company.asc")
    assert choose(BOOKWORM, [mirror]) == (mirror, (mirror,))


@pytest.mark.parametrize(
    "source",
    [
        Source("http://archive.example/debian", "trixie", ("main",)),
        Source("http://archive.example/debian", "bookworm", ("contrib",)),
        Source("http://archive.example/debian", "bookworm-security", ("main",)),
        Source("cdrom:[Debian]/", "bookworm", ("main",)),
    ],
)
def test_without_an_archive_of_our_release_it_says_so(source):
    with pytest.raises(LabError, match="no apt source of this machine offers debian bookworm"):
        choose(BOOKWORM, [source])


def test_settings_that_say_how_to_reach_the_archive_are_taken_over():
    dump = """\
APT::Architecture "amd64";
Acquire "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https::Proxy "DIRECT";
Acquire::http::Proxy::inside.example "DIRECT";
Acquire::Check-Valid-Until "false";
Acquire::http::Proxy-Auto-Detect "/usr/bin/detect";
Acquire::https::CaInfo "/etc/ssl/company.pem";
Acquire::Retries "";
DPkg::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";
"""
    settings, proxies = parse_settings(dump)
    assert settings.splitlines() == [
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::https::Proxy "DIRECT";',
        'Acquire::http::Proxy::inside.example "DIRECT";',
        'Acquire::Check-Valid-Until "false";',
    ]
    assert proxies == {"http_proxy": "http://proxy.example:3128"}


def test_release_and_setup_are_read_from_files(tmp_path: Path):
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text('NAME="Ubuntu"\nID=ubuntu\nVERSION_CODENAME="noble"\n')
    (tmp_path / "etc/apt/sources.list.d/ubuntu.sources").write_text(
        "Types: deb\nURIs: http://archive.example/ubuntu/\nSuites: noble noble-security\nComponents: main universe\n"
        "Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg\n"
    )
    (tmp_path / "etc/apt/sources.list.d/vendor.sources").write_text(DEB822)
    (tmp_path / "company.pem").touch()
    setup = read_setup(tmp_path, f'Acquire::https::CaInfo "{tmp_path}/company.pem";\n')
    assert setup.ca == tmp_path / "company.pem"
    assert read_setup(tmp_path, "").ca is None
    assert setup.release == Release("ubuntu", "noble")
    assert [source.suite for source in setup.sources] == ["noble", "noble-security"]


def test_a_machine_without_a_code_name_is_not_supported():
    with pytest.raises(LabError, match="needs Debian or Ubuntu"):
        parse_release('ID=arch\nNAME="Arch Linux"\n')


def test_what_is_written_is_what_was_read():
    source = Source("http://archive.example/debian", "bookworm", ("main", "contrib"), KEYRING)
    assert parse_list(one_line(source, ("main",), "/etc/apt/lab-0.gpg")) == [
        Source("http://archive.example/debian", "bookworm", ("main",), "/etc/apt/lab-0.gpg")
    ]
