"""nft and iptables as programs that are missing, refuse, hang or say nonsense."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from hmcore.errors import LayerDown, LayerMissing
from node_agent.network.nft import Filter


def program(tmp_path: Path, name: str, script: str) -> Filter:
    path = tmp_path / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Filter(path=f"{tmp_path}:{os.defpath}", timeout=5.0)


async def test_what_is_loaded_is_what_is_said(tmp_path):
    packets = program(tmp_path, "nft", f'echo "$*" > {tmp_path}/arguments; cat > {tmp_path}/text')
    await packets.load("add table ip hm_net\n")
    assert (tmp_path / "arguments").read_text() == "-f -\n"
    assert (tmp_path / "text").read_text() == "add table ip hm_net\n"


@pytest.mark.parametrize(("call", "package"), [("load", "nftables"), ("iptables", "iptables"), ("iptables_restore", "iptables")])
async def test_a_program_that_is_missing_is_named_with_its_package(tmp_path, call, package):
    with pytest.raises(LayerMissing, match="is not installed") as missing:
        await getattr(Filter(path=str(tmp_path)), call)("x")
    assert missing.value.fix == f"apt-get install {package}"


async def test_a_refusal_is_told_in_its_first_line(tmp_path):
    packets = program(tmp_path, "nft", "echo 'Error: syntax error' >&2; echo '^^^' >&2; exit 1")
    with pytest.raises(LayerDown, match=r"^nft: Error: syntax error$"):
        await packets.load("x")
    packets = program(tmp_path, "nft", "echo 'Operation not permitted (you must be root)' >&2; exit 1")
    with pytest.raises(LayerDown) as refused:
        await packets.load("x")
    assert "CAP_NET_ADMIN" in (refused.value.fix or "")


async def test_a_program_that_hangs_is_ended(tmp_path):
    packets = program(tmp_path, "nft", f"echo $$ > {tmp_path}/pid; exec sleep 60")
    packets._timeout = 0.5
    with pytest.raises(LayerDown, match=r"did not end within 0\.5 s"):
        await packets.load("x")
    number = await asyncio.to_thread((tmp_path / "pid").read_text)
    with pytest.raises(ProcessLookupError):
        os.kill(int(number), 0)


async def test_no_table_is_no_mistake_and_nonsense_is(tmp_path):
    assert await program(tmp_path, "nft", "echo 'Error: No such file or directory' >&2; exit 1").listing() is None
    assert await program(tmp_path, "nft", "echo '{\"nftables\": []}'").listing() == {"nftables": []}
    with pytest.raises(LayerDown, match="no JSON"):
        await program(tmp_path, "nft", "echo nonsense").listing()
    with pytest.raises(LayerDown, match="nft: it gave no reason"):
        await program(tmp_path, "nft", "exit 3").listing()


async def test_iptables_waits_for_others_and_leaves_their_rules(tmp_path):
    packets = program(tmp_path, "iptables", 'echo "$*"')
    assert await packets.iptables("-S") == "-w 5 -S\n"
    packets = program(tmp_path, "iptables-restore", f'echo "$*" > {tmp_path}/arguments; cat > {tmp_path}/text')
    await packets.iptables_restore("*filter\nCOMMIT\n")
    assert (tmp_path / "arguments").read_text() == "-w 5 --noflush\n"
