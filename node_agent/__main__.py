"""`hypermesh-agent`: the agent's own command line. Parses arguments and imports no more than the command needs."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hmcore.errors import HyperMeshError

CONFIG = Path("/etc/hypermesh/agent.yaml")
PKI = Path("/etc/hypermesh/pki")
SOCKET = Path("/run/hypermesh/agent.sock")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except HyperMeshError as error:
        sys.stderr.write(f"hypermesh-agent: {error}{f' (to mend it: {error.fix})' if error.fix else ''}\n")
        return error.exit_code


def _run(arguments: argparse.Namespace) -> int:
    import asyncio
    import gc
    import logging

    import uvloop

    from hmcore.config.agent import load_agent_config
    from node_agent.platform import logs
    from node_agent.platform.pause import count_failure
    from node_agent.platform.platform import HyperMeshPlatform

    gc.freeze()  # what was imported stays
    gc.set_threshold(50_000, 20, 50)  # every few hundred writes instead of every few: hardly anything here is in a cycle
    logs.set_up()
    log = logging.getLogger("node_agent")

    async def live() -> None:
        await HyperMeshPlatform(load_agent_config(arguments.config), age=_age()).run()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(live())
    except HyperMeshError as error:
        log.error("%s%s", error, f"; to mend it: {error.fix}" if error.fix else "")
    except Exception:
        log.exception("the agent failed unexpectedly")
    else:
        return 0
    if runtime := os.environ.get("RUNTIME_DIRECTORY"):  # systemd's: whoever starts it by hand need not wait
        pause = count_failure(Path(runtime) / "failures", _age())
        log.info("leaving in %g s, to be started again", pause)
        time.sleep(pause)
    return 1


def _relay(arguments: argparse.Namespace) -> int:
    from node_agent.platform.relay import relay

    relay(arguments.socket)
    return 0


def _key(arguments: argparse.Namespace) -> int:
    """The private key is born here and never leaves; what goes out is a certificate request."""
    from hmcore.pki import Identity, Kind, create_request
    from node_agent.transport.identity import node_key

    key = node_key(arguments.pki_dir)
    sys.stdout.write(create_request(key, Identity(arguments.cluster, Kind.NODE, arguments.name)).decode())
    return 0


def _check_release(_arguments: argparse.Namespace) -> int:
    from node_agent.platform.release import check_release

    sys.stdout.write("".join(f"{line}\n" for line in check_release()))
    return 0


def _check_config(arguments: argparse.Namespace) -> int:
    """Whether this release would start with the file: asked before it is put where the agent reads it."""
    from hmcore.config.agent import load_agent_config, parse_agent_config

    config = parse_agent_config(sys.stdin.buffer.read(), "stdin") if str(arguments.file) == "-" else load_agent_config(arguments.file)
    sys.stdout.write(f"{config.node}: valid\n")
    return 0


def _version(_arguments: argparse.Namespace) -> int:
    from node_agent.platform.release import running_release

    sys.stdout.write(f"{running_release()}\n")
    return 0


def _age() -> float:
    """Seconds since this process began, the interpreter's own start included (proc(5), field 22 of stat)."""
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(after_name[19]) / os.sysconf("SC_CLK_TCK")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hypermesh-agent", description="The daemon of a HyperMesh node.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the agent in the foreground")
    run.add_argument("--config", type=Path, default=CONFIG)
    run.set_defaults(command=_run)

    relay = commands.add_parser("relay", help="join stdin and stdout to the agent's socket")
    relay.add_argument("--socket", type=Path, default=SOCKET)
    relay.set_defaults(command=_relay)

    key = commands.add_parser("key", help="make the node's key if there is none, and print a certificate request")
    key.add_argument("--cluster", required=True, metavar="ID")
    key.add_argument("--name", required=True)
    key.add_argument("--pki-dir", type=Path, default=PKI)
    key.set_defaults(command=_key)

    check = commands.add_parser("check-release", help="import all that the agent needs, and say the versions")
    check.set_defaults(command=_check_release)

    config = commands.add_parser("check-config", help="say whether this release accepts a configuration file; - is stdin")
    config.add_argument("file", nargs="?", type=Path, default=CONFIG)
    config.set_defaults(command=_check_config)

    version = commands.add_parser("version", help="say which release this is")
    version.set_defaults(command=_version)
    return parser


if __name__ == "__main__":
    sys.exit(main())
