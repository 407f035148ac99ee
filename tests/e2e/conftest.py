"""A real lab for the end-to-end tests, made once, taken down whatever happens; and hmctl as a user runs it, as a process."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from clusters import Cluster, Hmctl
from composing import IMAGE, Apps, archive
from outages import Strangers

from hmcore.errors import LabError
from hmctl.lab import shell
from hmctl.lab.home import all_labs, directory
from hmctl.lab.lab import Lab


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("lab")
            # The first fixture may have to build the base image, which takes as long as it takes; a test itself must not.
            item.add_marker(pytest.mark.timeout(300, func_only=True))


@pytest.fixture(scope="session")
def lab_tools() -> None:
    """In CI the lab's tests run or fail: only on a person's machine may they be left out, with the reason."""
    try:
        shell.require_root_and_tools("up")
    except LabError as error:
        if os.environ.get("CI"):
            pytest.fail(f"the end-to-end tests cannot run here: {error} (fix: {error.fix})")
        pytest.skip(f"{error} (fix: {error.fix})")


@pytest.fixture(scope="session")
def lab_prefix(lab_tools: None) -> str:
    """Begins the names of this run's labs. Removes what runs that were killed have left."""
    for name in all_labs(directory()):
        stale = re.match(r"e2e-(\d+)(-|$)", name)
        if stale and not Path(f"/proc/{stale[1]}").exists():
            Lab(name).down()
    return f"e2e-{os.getpid()}"


@pytest.fixture(scope="session")
def lab(lab_prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three hosts. Tests may break them, and leave them running and unpartitioned."""
    lab = Lab(lab_prefix)
    try:
        lab.up(3, tmp_path_factory.mktemp("lab") / "lab.yaml")
        yield lab
    finally:
        lab.down()


@pytest.fixture(scope="session")
def inventory(lab: Lab) -> Path:
    """The lab's inventory file."""
    return Path(lab.view().inventory)


@pytest.fixture(scope="session")
def hmctl(inventory: Path, tmp_path_factory: pytest.TempPathFactory) -> Hmctl:
    """hmctl, with the lab's inventory unless -i names another one."""
    home = tmp_path_factory.mktemp("operator")
    environ = {**os.environ, "XDG_DATA_HOME": str(home / "data"), "HMCTL_INVENTORY": str(inventory), "NO_COLOR": "1"}
    return Hmctl(environ, home)


@pytest.fixture
def new_lab(lab_prefix: str) -> Iterator[Callable[[str], Lab]]:
    """Makes further labs (not up yet), by a letter; they are removed after the test."""
    made: list[Lab] = []

    def make(letter: str) -> Lab:
        made.append(Lab(f"{lab_prefix}-{letter}"))
        return made[-1]

    yield make
    for lab in made:
        lab.down()


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """`eventually(condition, within=5.0)` waits until `condition()` is true; an AssertionError in it counts as not yet."""

    def wait(condition: Callable[[], object], within: float = 5.0, every: float = 0.02) -> None:
        deadline = time.monotonic() + within
        while True:
            try:
                if condition():
                    return
                reason = "it is not so"
            except AssertionError as error:
                reason = str(error)
            if time.monotonic() > deadline:
                pytest.fail(f"not within {within:g} s: {reason}")
            time.sleep(every)

    return wait


@pytest.fixture(scope="session")
def run_in(lab: Lab) -> Callable[[str, Sequence[str]], str]:
    """`run_in(node, argv)`: the command's standard output, as text; it must succeed."""

    def run(node: str, argv: Sequence[str]) -> str:
        done = lab.exec(node, argv)
        assert done.returncode == 0, f"{node}: {argv} ended with {done.returncode}: {done.stderr.decode()}"
        return done.stdout.decode()

    return run


@pytest.fixture(scope="session")
def cluster(lab: Lab, hmctl: Hmctl, inventory: Path) -> Cluster:
    """Three nodes, deployed. Whoever breaks it waits until it has mended itself."""
    cluster = Cluster(lab, hmctl, inventory)
    cluster.deploy()
    return cluster


@pytest.fixture
def new_cluster(new_lab: Callable[[str], Lab], hmctl: Hmctl, tmp_path: Path) -> Callable[[str, int], Cluster]:
    """Hosts of their own, fresh, for tests about the first deploy."""

    def make(letter: str, nodes: int) -> Cluster:
        lab = new_lab(letter)
        lab.up(nodes, tmp_path / f"{letter}.yaml")
        return Cluster(lab, hmctl, tmp_path / f"{letter}.yaml")

    return make


@pytest.fixture(scope="session")
def busybox(cluster: Cluster) -> bytes:
    """A program that needs no other file, for images."""
    return cluster.lab.exec("node1", ["cat", "/bin/busybox"]).stdout


@pytest.fixture(scope="session")
def pushed(cluster: Cluster, busybox: bytes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image that the cluster has."""
    path = tmp_path_factory.mktemp("images") / "web.tar"
    path.write_bytes(archive(busybox))
    cluster.run("image", "push", path)
    return IMAGE


@pytest.fixture
def apps(cluster: Cluster, pushed: str, tmp_path: Path) -> Iterator[Apps]:
    """Apps to deploy; what was deployed is removed after the test."""
    cluster.until_healthy()
    apps = Apps(cluster, tmp_path)
    yield apps
    apps.remove_all()


@pytest.fixture
def following(hmctl: Hmctl) -> Iterator[Callable[..., list[str]]]:
    """`following(*args)` starts hmctl, which runs until the test ends; the lines that it prints come to be in the list."""
    started: list[tuple[subprocess.Popen[str], threading.Thread]] = []

    def start(*args: str | Path) -> list[str]:
        process = hmctl.start(*args)
        lines: list[str] = []

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip("\n"))

        thread = threading.Thread(target=read, name="reading")
        thread.start()
        started.append((process, thread))
        return lines

    yield start
    for process, thread in started:
        process.terminate()
        thread.join()
        process.communicate()


@pytest.fixture(scope="module")
def strangers(cluster: Cluster) -> Iterator[Strangers]:
    """Containers on every host that are none of ours."""
    found = Strangers(cluster)
    found.start()
    yield found
    found.remove()
