"""Nothing of ours can unpickle, and after engine.install() nothing of pysyncobj that is reachable can either."""

from __future__ import annotations

import ast
import importlib
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path

import pysyncobj
import pysyncobj.pickle
import pytest

import hmcore
import hmctl
import node_agent
from node_agent.consensus import codec
from node_agent.consensus.protocol import engine

BANNED = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle", "copyreg", "pickletools"}
OBEYING = {"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all", "Loader", "FullLoader", "UnsafeLoader"}
RUNNING = {"eval", "exec", "__import__"}
OURS = [path for package in (hmcore, hmctl, node_agent) for path in sorted(Path(package.__path__[0]).rglob("*.py"))]
# Modules of pysyncobj that can unpickle: imported by its own __init__ or not, we never make what is in them.
UNUSED = {"pysyncobj.tcp_connection", "pysyncobj.journal"}


def offences(source: str) -> list[str]:
    """What a module does that could unpickle, load YAML with tags, or run text as code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [alias.name for alias in names if alias.name.split(".")[0] in BANNED or alias.name == "pysyncobj.pickle"]
            case ast.ImportFrom(module=str(module), names=names):
                imported = {f"{module}.{alias.name}" for alias in names}
                found += [name for name in imported if name.split(".")[0] in BANNED or name.startswith("pysyncobj.pickle")]
                found += [name for name in imported if name.split(".")[0] == "yaml" and name.split(".")[-1] in OBEYING]
            case ast.Attribute(value=ast.Name(id="yaml"), attr=attribute) if attribute in OBEYING:
                found.append(f"yaml.{attribute}")
            case ast.Call(func=ast.Name(id=name)) if name in RUNNING:
                found.append(name)
            case ast.Call(
                func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]
            ):
                found += [name] if name.split(".")[0] in BANNED else []
    return found


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(Path(hmcore.__path__[0]).parent)))
def test_no_module_of_ours_can_unpickle(path):
    assert offences(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, marshal",
        "from shelve import open",
        "from pickle import loads as harmless",
        "def f():\n    import _pickle",
        "import pysyncobj.pickle",
        "from pysyncobj import pickle",
        "import yaml\nyaml.load(x, Loader=yaml.UnsafeLoader)",
        "from yaml import full_load",
        "eval(text)",
        "exec(text)",
        "importlib.import_module('dill')",
    ],
)
def test_who_could_is_seen(source):
    assert offences(source)


def test_wherever_pysyncobj_has_pickle_it_is_our_codec_or_never_used():
    """A release of pysyncobj with pickle in another place fails here."""
    engine.install()
    unpicklers = {id(module) for module in (pickle, pysyncobj.pickle)}
    functions = {
        id(getattr(module, name))
        for module in (pickle, pysyncobj.pickle)
        for name in ("load", "loads", "Unpickler")
        if hasattr(module, name)
    }
    reaching = {}
    for info in pkgutil.iter_modules(pysyncobj.__path__, "pysyncobj."):
        if info.name in ("pysyncobj.pickle", "pysyncobj.win_inet_pton", "pysyncobj.syncobj_admin"):  # itself; Windows; a command
            continue
        module = importlib.import_module(info.name)
        names = [name for name, value in vars(module).items() if id(value) in unpicklers | functions]
        if names:
            reaching[info.name] = names
    assert set(reaching) == UNUSED
    assert pysyncobj.syncobj.pickle is codec
    assert pysyncobj.serializer.pickle is codec


def test_what_of_pysyncobj_could_unpickle_is_never_made(tmp_path):
    """A voter that is formed, writes, compacts and starts again, in a process of its own."""
    script = f"""
import random, sys
import pysyncobj.journal, pysyncobj.tcp_connection, pysyncobj.serializer, pysyncobj.transport, pysyncobj.pickle as hostile

def made(*arguments, **named):
    raise AssertionError("pysyncobj's own was made, or pickle was used")

for name in ("load", "loads", "dump", "dumps"):
    setattr(hostile, name, made)
pysyncobj.journal.loads = pysyncobj.journal.dumps = made
pysyncobj.tcp_connection.TcpConnection.__init__ = made
pysyncobj.journal.FileJournal.__init__ = pysyncobj.journal.MemoryJournal.__init__ = made
pysyncobj.serializer.Serializer.__init__ = made
pysyncobj.transport.TCPTransport.__init__ = made

from pathlib import Path
from node_agent.consensus.protocol import engine
from node_agent.consensus.statemachine import machine
from node_agent.consensus.log.disk import Directory
from node_agent.consensus.member import Member

class Timing:
    heartbeat, election_min, election_max = 0.02, 0.1, 0.2

class Links:
    def send(self, peer, payload):
        return True

results = []
for start in range(2):
    member = Member(name="n0", voters=["n0"], disk=Directory(Path({str(tmp_path / "raft")!r})), timing=Timing(), links=Links(),
        clock=engine.now, rng=random.Random(1), wake=lambda: None, on_applied=lambda state: None)
    member.open()
    if start == 0:
        member.permit("b1")
    deadline = engine.now() + 20
    while not member.is_leader:
        assert engine.now() < deadline and member.failure is None, member.failure
        member.tick()
    member.propose(machine.Proposal(f"c{{start}}", machine.encode(machine.Noop())), results.append)
    while len(results) <= start:
        assert engine.now() < deadline and member.failure is None, member.failure
        member.tick()
    member.engine.compact()
    while not member.store.exists:
        assert engine.now() < deadline and member.failure is None, member.failure
        member.tick()
    member.close()
assert all(isinstance(result, machine.Receipt) for result in results), results
print("ours")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ours\n"
