"""The loader's decisions, and what its answers mean to the agent. What it does to a kernel is tested in a lab."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest

from hmcore.config.settings import Security
from hmcore.errors import LayerDown, LayerMissing
from node_agent.security import kernel, loader, maps
from node_agent.security.layer import SecurityLayer, judge


@pytest.mark.parametrize(
    ("paths", "newest"),
    [
        ([], None),
        (["linux-headers-6.1.0-9-common", "linux-headers-6.1.0-56-common"], None),
        (["linux-headers-6.1.0-9-amd64", "linux-headers-6.1.0-56-amd64", "linux-headers-6.1.0-56-common"], "linux-headers-6.1.0-56-amd64"),
        (
            ["linux-headers-5.15.0-91", "linux-headers-5.15.0-91-generic", "linux-headers-5.15.0-105-generic"],
            "linux-headers-5.15.0-105-generic",
        ),
    ],
)
def test_the_newest_headers(paths: list[str], newest: str | None) -> None:
    assert loader.newest_headers([f"/usr/src/{path}" for path in paths]) == (newest and f"/usr/src/{newest}")


def test_of_many_words_the_last_are_told() -> None:
    verifier = "0: (bf) r6 = r1\n190: (71) r1 = *(u8 *)(r3 +13)\nR3 offset is outside of the packet\nprocessed 12 insns\n"
    assert loader.last(verifier, "no").endswith("R3 offset is outside of the packet")
    assert "processed" not in loader.last(verifier, "no")
    assert loader.last("/virtual/main.c:3:1: error: unknown type\n1 error generated.\n", "no") == "/virtual/main.c:3:1: error: unknown type"
    assert loader.last("", "no module") == "no module"


@pytest.mark.parametrize("module", [loader, kernel, maps])
def test_what_the_systems_python_runs_is_understood_by_older_ones_and_needs_nothing_but_the_standard_library(module: object) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text(), feature_version=(3, 8))  # type: ignore[attr-defined]
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours = {"node_agent.security", "node_agent.security.kernel", "bcc"}
    assert imported - ours <= {
        *(
            "__future__",
            "collections.abc",
            "contextlib",
            "ctypes",
            "dataclasses",
            "errno",
            "fcntl",
            "glob",
            "ipaddress",
            "json",
            "os",
            "platform",
        ),
        *("re", "struct", "sys", "tempfile", "typing"),
    }


def test_answers() -> None:
    judge(b'{"ok": true}\n', b"warning: something", 0)
    with pytest.raises(LayerMissing, match="no bcc") as missing:
        judge(json.dumps({"missing": "no bcc", "fix": "apt-get install python3-bpfcc"}).encode(), b"", 1)
    assert missing.value.fix == "apt-get install python3-bpfcc"
    with pytest.raises(LayerDown, match="verifier"):
        judge(json.dumps({"down": "verifier", "fix": "x"}).encode(), b"", 1)


@pytest.mark.parametrize("out", [b"", b"[]", b"1", b'{"ok": 1}', b'{"ok": true', b"\xff"])
def test_no_proper_answer_is_a_failure_and_shows_the_last_words(out: bytes) -> None:
    with pytest.raises(LayerDown, match="ended with 1: MemoryError"):
        judge(out, b"Traceback\nMemoryError\n", 1)
    with pytest.raises(LayerDown, match="was killed by signal 9"):
        judge(out, b"", -9)


async def test_the_mode_off_takes_out_what_is_there_and_is_ready(tmp_path: Path) -> None:
    (tmp_path / "node1" / "v1").mkdir(parents=True)
    (tmp_path / "node1" / "v1" / "link_hm_ingress").write_text("")
    layer = SecurityLayer(Security(mode="off"), node="node1", root=tmp_path)
    await layer.initialize()
    assert (os.listdir(tmp_path), layer.serving) == ([], False)
    report = layer.report()
    assert report is not None
    assert (report.mode, report.programs, await layer.check()) == ("off", 0, None)
    await layer.stop()
