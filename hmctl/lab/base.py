"""Build the base image once and keep it: beside the final place, under a lock, renamed when whole, so that half an image is never used."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hmcore.errors import LabError
from hmctl.lab import apt, shell
from hmctl.lab.lock import exclusive
from hmctl.lab.progress import Progress
from hmctl.lab.recipe import DPKG_SETTINGS, SETUP_SCRIPT, Recipe, recipe_for

BUILD_TIMEOUT = 1800.0  # seconds; for a slow archive: the tools have time limits of their own for one that is silent
KEY = "base image"  # in progress reports

# Ties the build to us: whoever kills hmctl kills the build, with all its processes and mounts (they live in namespaces of their own).
_TIED = (
    "setpriv",
    "--pdeathsig",
    "KILL",
    "unshare",
    "--mount",
    "--propagation",
    "slave",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--",
)
# What debootstrap and apt say of one package, and what that means.
_STEPS = (
    (re.compile(r"I: Retrieving |Get:\d+ https?:"), "downloading packages"),
    (re.compile(r"I: (Extracting|Unpacking) |Unpacking "), "unpacking packages"),
    (re.compile(r"I: Configuring |Setting up "), "configuring packages"),
)


def current_recipe() -> tuple[Recipe, apt.AptSetup]:
    """The recipe for this machine's release, and where its packages come from. Raises LabError where there is no apt."""
    setup = apt.read_setup(Path("/"), shell.run(["apt-config", "dump"]))
    architecture = shell.run(["dpkg", "--print-architecture"]).strip()
    return recipe_for(setup.release, architecture, SETUP_SCRIPT.read_text()), setup


def ensure(folder: Path, recipe: Recipe, setup: apt.AptSetup, progress: Progress) -> None:
    """Make sure that the recipe's image is in `folder`, under its digest. Raises LabError if it cannot be built."""
    image = folder / recipe.digest
    if image.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # setuid programs of another system are nobody's business
    with exclusive(folder / "lock", timeout=BUILD_TIMEOUT, waiting=lambda: progress.update(KEY, "another hmctl is building it, waiting")):
        if image.is_dir():
            return
        _remove_interrupted(folder)
        building = folder / f"{recipe.digest}.building"
        try:
            _build(building, recipe, setup, folder / f"{recipe.digest}.log", progress)
            progress.update(KEY, "writing it to disk")  # before it gets its name, and before hosts need the disk for themselves
            shell.run(["sync", "--file-system", str(building)], timeout=BUILD_TIMEOUT)
            building.rename(image)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    progress.finish(KEY, f"{recipe.release.distribution} {recipe.release.suite}, kept in {image}")


def remove_unused(folder: Path, used: Collection[str], progress: Progress) -> None:
    """Remove images of older recipes that no lab lies on."""
    for image in folder.iterdir():
        digest = image.name.removesuffix(".log")
        if re.fullmatch(r"[0-9a-f]{16}", digest) and digest not in used:
            progress.update(KEY, f"removing {digest}, which nothing uses any more")
            shutil.rmtree(image) if image.is_dir() else image.unlink()


def remove_interrupted(folder: Path) -> None:
    """Remove what a build left that was killed, unless one is at work."""
    if folder.is_dir():
        with contextlib.suppress(LabError), exclusive(folder / "lock", timeout=0.0):
            _remove_interrupted(folder)


def _remove_interrupted(folder: Path) -> None:
    """Whoever calls holds the lock: nobody is at work there."""
    for remains in folder.glob("*.building"):
        shutil.rmtree(remains)


def _build(root: Path, recipe: Recipe, setup: apt.AptSetup, log: Path, progress: Progress) -> None:
    """Make the image in `root`. Everything that the tools say goes to `log`."""
    progress.update(KEY, f"{recipe.release.distribution} {recipe.release.suite} is built once, then kept: a minute or two, 1.5 GB")
    wgetrc = root / ".wgetrc"
    keyring = setup.archive.signed_by
    bootstrap = [
        "debootstrap",
        "--variant=minbase",
        f"--arch={recipe.architecture}",
        f"--components={','.join(recipe.components)}",
        f"--include={','.join(recipe.bootstrap)}",
        *([f"--keyring={keyring}"] if keyring.startswith("/") else []),
        recipe.release.suite,
        str(root),
        setup.archive.uri,
    ]
    dpkg = root / "etc/dpkg/dpkg.cfg.d/lab"
    dpkg.parent.mkdir(parents=True)
    dpkg.write_text(
        DPKG_SETTINGS
    )  # there before dpkg is: half of the time would go into syncing files of an image that is whole or nothing
    wgetrc.write_text(f"ca_certificate={setup.ca}\n" if setup.ca else "")
    with log.open("w") as record:
        _step(bootstrap, record, progress, {**setup.proxies, "WGETRC": str(wgetrc)})
        wgetrc.unlink()
        _lend_apt_setup(root, recipe, setup)
        shutil.copy(SETUP_SCRIPT, root / "tmp/setup.sh")
        _step(["chroot", str(root), "/bin/sh", "/tmp/setup.sh", *recipe.packages], record, progress, {})  # noqa: S108  the image's own


def _lend_apt_setup(root: Path, recipe: Recipe, setup: apt.AptSetup) -> None:
    """Let the apt inside reach what ours reaches, while the image is built. setup.sh removes all of it again."""
    folder = root / "etc/apt"
    lines = []
    for number, source in enumerate(setup.sources):
        keyring = None
        if source.signed_by:
            inline = not source.signed_by.startswith("/")
            keyring = f"/etc/apt/lab-{number}{'.asc' if inline else Path(source.signed_by).suffix}"
            key = apt.inline_key(source.signed_by) if inline else Path(source.signed_by).read_bytes()
            (root / keyring.lstrip("/")).write_bytes(key)
        lines.append(apt.one_line(source, recipe.components, keyring))
    (folder / "sources.list").write_text("".join(f"{line}\n" for line in lines))
    settings = setup.settings
    if setup.ca:
        shutil.copy(setup.ca, folder / "lab-ca.crt")
        settings += 'Acquire::https::CaInfo "/etc/apt/lab-ca.crt";\n'
    (folder / "apt.conf.d/00lab").write_text(settings)
    for name in ("etc/resolv.conf", "etc/hosts"):
        if (Path("/") / name).exists():
            (root / name).unlink(missing_ok=True)
            shutil.copy(Path("/") / name, root / name)


def _step(argv: Sequence[str], record: IO[str], progress: Progress, extra: Mapping[str, str]) -> None:
    """Run one step of the build, counting packages. Raises LabError with its last words."""
    deadline = time.monotonic() + BUILD_TIMEOUT
    doing, count, last = "", 0, ""
    with _tied(argv, extra) as process:
        assert process.stdout is not None
        for line in process.stdout:
            record.write(line)
            last = line.strip() or last
            if line.startswith("lab: "):
                progress.update(KEY, line.removeprefix("lab: ").strip())
            for pattern, meaning in _STEPS:
                if pattern.match(line):
                    count = count + 1 if meaning == doing else 1
                    doing = meaning
                    progress.update(KEY, doing, detail=str(count))
            if time.monotonic() > deadline:
                raise LabError(f"building the base image took longer than {BUILD_TIMEOUT:g} s")
        status = process.wait(timeout=60)
    if status != 0:
        raise LabError(f"building the base image failed: {last}", fix=f"look into {record.name}")


@contextmanager
def _tied(argv: Sequence[str], extra: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the block, nor us."""
    process = subprocess.Popen(
        [*_TIED, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=shell.environment(extra),
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
