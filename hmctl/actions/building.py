"""Images of services that are built: by the operator's own Docker, on this machine, and kept as archives until they are pushed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hmcore.errors import DockerMissing, ImageError, UsageError
from hmcore.images.archive import read
from hmctl.actions.images import chosen, saved
from hmctl.compose.convert import Build

LONGEST = 1 << 20  # bytes of a line that Docker says
TOLD = 12  # lines of what it said last, when it fails

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Built:
    """`id`: of the image, the digest of its configuration. `archive`: as `docker save` writes it."""

    image: str
    id: str
    archive: Path


def arguments(build: Build) -> list[str]:
    """Of `docker`. A Dockerfile that stands in the compose file comes by stdin. Raises UsageError for what our images cannot be."""
    if len(build.platforms) > 1:
        raise UsageError(
            f"{build.image} is to be built for {', '.join(build.platforms)}; an image of the cluster is for one platform",
            fix="name one under build: platforms:",
        )
    options: list[tuple[str, str]] = [("--tag", build.image)]
    options += [("--file", "-" if build.dockerfile_inline else build.dockerfile)]
    options += [("--build-arg", name if value is None else f"{name}={value}") for name, value in build.args.items()]
    options += [("--label", f"{name}={value}") for name, value in build.labels.items()]
    options += [("--cache-from", each) for each in build.cache_from]
    options += [("--add-host", each) for each in build.extra_hosts]
    options += [("--build-context", f"{name}={place}") for name, place in build.contexts.items()]
    options += [("--platform", each) for each in build.platforms]
    options += [("--target", build.target)] if build.target else []
    options += [("--network", build.network)] if build.network else []
    options += [("--shm-size", str(build.shm_size))] if build.shm_size else []
    switches = [word for word, wanted in (("--no-cache", build.no_cache), ("--pull", build.pull)) if wanted]
    return ["build", *(word for pair in options for word in pair), *switches, build.context]


async def build(wanted: Build, place: Path, say: Say) -> Built:
    """Build it and keep it as an archive below `place`. `say` gets each line that Docker says.

    Raises DockerMissing, ImageError with what Docker said last, UsageError, ArchiveError.
    """
    docker = shutil.which("docker")
    if docker is None:
        raise DockerMissing(
            f"{wanted.image} is to be built from {wanted.context}, and there is no docker command here",
            fix=f"where there is one: docker build -t {wanted.image}, and hmctl image push; then image: {wanted.image} instead of build:",
        )
    await _run([docker, *arguments(wanted)], wanted, say)
    async with saved(wanted.image, place) as archive:
        with archive.open("rb") as file:
            image = chosen(await asyncio.to_thread(read, file), None)
        kept = place / f"{image.id.removeprefix('sha256:')}.tar"
        with contextlib.suppress(FileExistsError):  # two services of the same image
            os.link(archive, kept)
    return Built(wanted.image, image.id, kept)


async def _run(command: list[str], wanted: Build, say: Say) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, limit=LONGEST
    )
    last: deque[str] = deque(maxlen=TOLD)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_feed(process, wanted.dockerfile_inline), name="docker build: stdin")
            group.create_task(_listen(process, last, say), name="docker build: output")
        status = await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        raise
    if status:
        said = "\n    ".join(last) or f"it ended with {status}"
        raise ImageError(f"docker build of {wanted.image} failed:\n    {said}", fix=f"see to {wanted.dockerfile or wanted.context}")


async def _feed(process: asyncio.subprocess.Process, text: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it ended without reading it all: its status says how
        process.stdin.write(text.encode())
        await process.stdin.drain()
    process.stdin.close()


async def _listen(process: asyncio.subprocess.Process, last: deque[str], say: Say) -> None:
    assert process.stdout is not None
    while line := await _line(process.stdout):
        text = line.decode(errors="replace").strip()
        if text:
            last.append(text[:1000])
            say(text)


async def _line(stream: asyncio.StreamReader) -> bytes:
    """Empty: the end. A line that is too long is cut."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.read(max(1, error.consumed))
