"""Images that are built here: what Docker is asked, and what becomes of what it says."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from docker_archives import Made, layer, oci

from hmcore.errors import ImageError, UsageError
from hmctl.actions.building import LONGEST, arguments, build
from hmctl.compose.convert import Build

PLAIN = Build(image="shop-web", context="/src", dockerfile="/src/Dockerfile")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (PLAIN, "--tag shop-web --file /src/Dockerfile /src"),
        (Build(image="i", context="/c", dockerfile_inline="FROM x"), "--tag i --file - /c"),
        (
            Build(image="i", context="/c", dockerfile="/d", args={"A": "1=2", "B": None}, target="t", labels={"k": "v"}, no_cache=True),
            "--tag i --file /d --build-arg A=1=2 --build-arg B --label k=v --target t --no-cache /c",
        ),
        (
            Build(
                image="i", context="/c", dockerfile="/d", cache_from=("x",), network="host", extra_hosts=("h:1.2.3.4",),
                contexts={"o": "/other"}, platforms=("linux/amd64",), shm_size=65536, pull=True,
            ),
            "--tag i --file /d --cache-from x --add-host h:1.2.3.4 --build-context o=/other --platform linux/amd64 --network host "
            "--shm-size 65536 --pull /c",
        ),
    ],
)  # fmt: skip
def test_what_docker_is_asked(wanted: Build, words: str) -> None:
    assert arguments(wanted) == ["build", *words.split()]


def test_an_image_is_for_one_platform() -> None:
    with pytest.raises(UsageError, match="for one platform"):
        arguments(Build(image="i", context="/c", platforms=("linux/amd64", "linux/arm64")))


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    return folder / "docker"


def script(docker: Path, text: str) -> None:
    docker.write_text(f"#!/bin/sh\n{text}\n")
    docker.chmod(0o755)


async def test_a_dockerfile_of_the_compose_file_comes_by_stdin_and_the_archive_stays(docker: Path, tmp_path: Path) -> None:
    made = Made((layer("base", b"0"),), ("i:latest",))
    (tmp_path / "image.tar").write_bytes(oci(made))
    script(docker, f'[ "$1" = save ] && exec cp {tmp_path}/image.tar "$3"; cat')
    place, said = tmp_path / "place", list[str]()
    place.mkdir()
    for _ in range(2):  # another service of the same image
        done = await build(Build(image="i", context="/c", dockerfile_inline="FROM scratch\n\nRUN x\n"), place, said.append)
        assert (done.id, done.archive.read_bytes()) == (made.id, oci(made))
    assert said == ["FROM scratch", "RUN x"] * 2
    assert [each.name for each in place.iterdir()] == [done.archive.name]


async def test_what_docker_says_may_be_of_any_length_and_its_last_lines_tell_why(docker: Path, tmp_path: Path) -> None:
    script(docker, f"head -c {3 * LONGEST} /dev/zero | tr '\\0' x; echo; for n in $(seq 100); do echo line $n; done; printf last; exit 3")
    said = list[str]()
    with pytest.raises(ImageError, match="docker build of shop-web failed") as caught:
        await build(PLAIN, tmp_path, said.append)
    assert "line 100\n    last" in caught.value.message
    assert "line 80\n" not in caught.value.message
    assert said[-1] == "last"


async def test_an_interrupted_build_is_ended(docker: Path, tmp_path: Path) -> None:
    script(docker, f"echo $$ > {tmp_path}/pid; echo begun; exec sleep 60")
    begun = asyncio.Event()
    task = asyncio.create_task(build(PLAIN, tmp_path, lambda line: begun.set()), name="build")
    async with asyncio.timeout(10):
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
