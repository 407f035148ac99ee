"""What the agent loads: not what it has no use for, and nothing that spoils the standard library for the rest."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = "import node_agent.consensus.raft, socket; print(socket.inet_ntop(socket.AF_INET, bytes([192, 0, 2, 7])))"


def test_addresses_are_still_written_by_the_standard_library():
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (said.stdout, said.stderr) == ("192.0.2.7\n", "")


AGENT = "import node_agent.platform.platform, node_agent.container.engine_images, node_agent.network.links, node_agent.network.bridge, sys"


def test_what_takes_memory_and_is_of_no_use_to_an_agent_is_not_loaded():
    loaded = "{name for name, module in sys.modules.items() if module}"
    found = f"print(sorted({{'pyroute2', 'charset_normalizer', 'chardet', 'sqlite3', 'rich', 'asyncssh'}} & {loaded}))"
    said = subprocess.run([sys.executable, "-W", "error", "-c", f"{AGENT}; {found}"], capture_output=True, text=True, check=False)
    assert (said.stdout, said.stderr) == ("[]\n", "")
