"""The front door: lazy commands, options before or after the command, exceptions and exit codes."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import pytest
import typer

from hmcore.errors import HyperMeshError, Interrupted, Unreachable
from hmctl.cli import completing, main
from hmctl.cli.context import Context, current, group
from hmctl.document import Format
from hmctl.failure import explain, surroundings
from hmctl.lab.state import LabState, save
from hmctl.output import Output


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        ("status -o json", "-o json status"),
        ("-i a.yaml status -o json", "-i a.yaml -o json status"),
        ("status --output=json --watch", "--output=json status --watch"),
        ("status -ojson", "-ojson status"),
        ("lab up --nodes 3 --inventory b.yaml -q", "--inventory b.yaml -q lab up --nodes 3"),
        ("lab exec node1 -- ls -i -o -v", "lab exec node1 -- ls -i -o -v"),
        ("lab exec -q node1 -- ls -q", "-q lab exec node1 -- ls -q"),
        ("-v lab exec node1 ls -i", "-v lab exec node1 ls -i"),
        ("logs node1 -f", "logs node1 -f"),
        ("init -- -o", "init -- -o"),
        ("status -o", "-o status"),
        ("", ""),
    ],
)
def test_global_options_may_stand_anywhere_before_a_double_dash(typed: str, parsed: str) -> None:
    assert main.hoist(typed.split()) == parsed.split()


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[typer.Context], int | None]], None]:
    """Puts a function in the place of `hmctl status`."""

    def install(command: Callable[[typer.Context], int | None]) -> None:
        module = ModuleType("hmctl.cli.status")
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "hmctl.cli.status", module)

    return install


def test_a_command_sees_what_the_global_options_said(probe: Callable[..., None]) -> None:
    seen: list[Context] = []

    def command(ctx: typer.Context) -> None:
        seen.append(current(ctx))

    probe(command)
    assert main.run(["status", "-o", "json", "-i", "other.yaml", "-q"]) == 0
    assert seen[0].inventory_path == "other.yaml"
    assert seen[0].output.format is Format.JSON
    assert seen[0].output.quiet
    assert not seen[0].verbose


def test_a_commands_answer_is_the_exit_code(probe: Callable[..., None]) -> None:
    def command(ctx: typer.Context) -> int:
        return 4

    probe(command)
    assert main.run(["status"]) == 4


def failing(error: BaseException) -> Callable[[typer.Context], int | None]:
    def command(ctx: typer.Context) -> None:
        raise error

    return command


def test_a_known_error_is_told_on_stderr_with_its_fix(probe: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    probe(failing(Unreachable("no answer", host="node1", fix="hmctl lab start node1")))
    assert main.run(["status"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: node1: no answer\n  fix: hmctl lab start node1\n"


def test_a_bug_is_short_and_shows_its_place_only_on_request(probe: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    probe(failing(KeyError("nodes")))
    assert main.run(["status"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: KeyError: 'nodes'\n")
    assert "--verbose" in err
    assert "Traceback" not in err
    assert main.run(["status", "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_verbose_does_not_bring_in_the_traces_of_quic(probe: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(logging, "basicConfig", lambda **options: asked.append(options["level"]))
    quic = logging.getLogger("quic")
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)  # what basicConfig would do
    monkeypatch.setattr(quic, "level", logging.NOTSET)
    probe(lambda: None)
    main.run(["status", "-v"])
    assert asked == [logging.INFO]
    assert quic.getEffectiveLevel() == logging.WARNING


def test_task_groups_are_unpacked(probe: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    probe(failing(ExceptionGroup("unhandled errors in a TaskGroup", [HyperMeshError("first"), HyperMeshError("second")])))
    assert main.run(["status"]) == 1
    assert capsys.readouterr().err == "error: first\nerror: second\n"


def test_a_no_is_no_error(probe: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    probe(failing(Interrupted("stopped as you asked; nothing was changed")))
    assert main.run(["status"]) == 130
    assert capsys.readouterr().err == "stopped as you asked; nothing was changed\n"


@pytest.mark.parametrize("grouped", [False, True])
def test_a_reader_that_went_away_is_not_complained_about(grouped: bool) -> None:
    error = "ExceptionGroup('', [BrokenPipeError(32, 'Broken pipe')])" if grouped else "BrokenPipeError(32, 'Broken pipe')"
    program = (
        "import sys, types, typer\nfrom hmctl.__main__ import main\n"
        f"def command(ctx: typer.Context) -> None:\n    sys.stdout.write('unread')\n    raise {error}\n"
        "module = types.ModuleType('hmctl.cli.status')\nmodule.command = command\nsys.modules['hmctl.cli.status'] = module\n"
        "sys.argv[1:] = ['status']\nmain()\n"
    )
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONUNBUFFERED": ""},  # what was written is still to be flushed when the program ends
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_ctrl_c(probe: Callable[..., None]) -> None:
    probe(failing(KeyboardInterrupt()))
    assert main.run(["status"]) == 130


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["statsu"], "error: no such command: statsu\n  fix: did you mean status?\n"),
        (["zzz"], "error: no such command: zzz\n  fix: hmctl --help\n"),
        (["config", "shwo"], "error: no such command 'shwo'"),
        (["config", "show", "--wacth"], "error: no such option: --wacth\n  fix: hmctl config show --help\n"),
        (["deploy", "--dryrun"], "error: no such option: --dryrun\n  fix: did you mean --dry-run?\n"),
        (["status", "-o", "jsn"], "'jsn' is not one of 'table', 'json', 'yaml'\n  fix: did you mean json?\n"),
        (["completion", "bsh"], "error: invalid value for 'shell': 'bsh' is not one of 'bash', 'zsh', 'fish'\n  fix: did you mean bash?\n"),
        (["deploy", "--timeout", "abc"], "error: invalid value for '--timeout': not a number\n  fix: hmctl deploy --help\n"),
        (["lab", "up", "-n", "0"], "at least 1"),
        (["bundle", "build", "--arch", "armv7"], "there is no release for armv7"),
        (["bundle", "build", "--python", "2.7"], "fix: for example --python 3.11"),
        (["logs", "--since", "yesterdy"], "error: --since yesterdy: that is no time\n  fix: give it like"),
        (["lab", "up", "-n", "many"], "not a whole number"),
        (["--output"], "--output"),
    ],
)
def test_wrong_usage_is_2_and_says_what_would_be_right(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str], probe: Callable[..., None]
) -> None:
    probe(failing(AssertionError("the command ran")))
    assert main.run(argv) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert out == ""


@pytest.mark.parametrize(
    ("typed", "option", "command"),
    [
        ("deploy --timeout 3 --timeout=4", "--timeout", "hmctl deploy"),
        ("lab kill node1 --name a --name b", "--name", "hmctl lab kill"),
        ("lab exec --name a --name a node1 -- ls", "--name", "hmctl lab exec"),
        ("-i a.yaml status -i b.yaml", "--inventory", "hmctl"),
        ("status -ojson --output yaml", "--output", "hmctl"),
        ("events -n5 -fn 6", "--limit", "hmctl events"),
        ("health show --via ssh --via auto", "--via", "hmctl health show"),
    ],
)
def test_an_option_of_one_value_that_is_given_twice_is_not_quietly_the_last(
    typed: str, option: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(typed.split()) == 2
    said = f"error: {option} is given twice, and takes one value\n  fix: give {option} once; {command} --help says more\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("argv", [["init", "--help"], ["status", "-q", "-q", "-v", "--watch", "--watch", "--help"]])
def test_switches_may_be_repeated(argv: list[str]) -> None:
    assert main.run(argv) == 0


def test_what_belongs_to_another_program_may_repeat_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def enter(lab: object, node: str, words: list[str]) -> list[str]:
        asked.append(words)
        raise HyperMeshError("far enough")

    monkeypatch.setattr("hmctl.lab.lab.Lab.enter", enter)
    monkeypatch.setattr("hmctl.lab.home.directory", lambda: tmp_path)
    assert main.run(["lab", "exec", "node1", "--", "curl", "--name", "a", "--name", "b"]) == 1
    assert asked == [["curl", "--name", "a", "--name", "b"]]


@pytest.mark.parametrize("command", ["deploy", "reset", "config apply", "config diff"])
def test_limits_add_up(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("id: hm-abc123defg\nname: o\nhosts:\n  - {name: web, address: 10.0.0.9, role: control}\n")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    limits = "-l x1,x2 --limit x3"
    assert main.run(["-i", str(tmp_path / "c.yaml"), *command.split(), *limits.split()]) == 2
    assert "--limit x1,x2,x3 matches none of web\n  fix: name a host" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "not everything could be written: no space left on device\n  fix: make room"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/ca.pem"), "/x/ca.pem cannot be written: no space left on device"),
        (
            UnicodeEncodeError("ascii", "a✓", 1, 2, "ordinal not in range(128)"),
            "the output's encoding, ascii, has no \\u2713\n  fix: set PYTHON",
        ),
        (ExceptionGroup("", [UnicodeEncodeError("ascii", "é", 0, 1, "")]), "the output's encoding, ascii, has no \\xe9"),
    ],
)
def test_a_full_disk_and_a_poor_terminal_are_no_mistakes_of_ours(error: Exception, said: str) -> None:
    found = surroundings(error)
    assert found is not None
    assert said in "\n".join(explain(found))


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "no"), KeyError("x"), ExceptionGroup("", [OSError(errno.ENOSPC, ""), KeyError("x")])]
)
def test_what_is_a_mistake_stays_one(error: Exception) -> None:
    assert surroundings(error) is None


@pytest.mark.parametrize("flushes", [True, False])
def test_output_that_a_full_disk_does_not_take_is_said_once_and_is_a_failure(flushes: bool) -> None:
    program = (
        "import sys, types, typer\nfrom hmctl.__main__ import main\n"
        f"def command(ctx: typer.Context) -> None:\n    print('lost', flush={flushes})\n"
        "module = types.ModuleType('hmctl.cli.status')\nmodule.command = command\nsys.modules['hmctl.cli.status'] = module\n"
        "sys.argv[1:] = ['status']\nmain()\n"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": ""},
            text=True, timeout=30, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: not everything could be written: no space left on device\n  fix: ")
    assert len(done.stderr.splitlines()) == 2


def test_an_inventory_that_a_forgotten_variable_names_is_said_to_be_named_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HMCTL_INVENTORY", "lab.yaml")
    assert main.run(["config", "show"]) == 2
    err = capsys.readouterr().err
    assert "lab.yaml: cannot be read: No such file or directory (named by $HMCTL_INVENTORY)\n" in err
    assert "hmctl lab up" in err
    assert "unset HMCTL_INVENTORY" in err
    assert main.run(["config", "show", "-i", "lab.yaml"]) == 2
    assert "HMCTL_INVENTORY" not in capsys.readouterr().err
    (tmp_path / "README.md").write_text("*bold*: [text\n")
    assert main.run(["config", "show", "-i", "README.md"]) == 2
    assert "if it is no inventory at all: -i FILE" in capsys.readouterr().err


def test_no_inventory_names_the_ways_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HMCTL_INVENTORY", raising=False)

    def command(ctx: typer.Context) -> None:
        current(ctx).inventory()

    probe(command)
    assert main.run(["status"]) == 2
    assert "hmctl init" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "environ", "there", "found"),
    [
        ("a.yaml", "b.yaml", True, "a.yaml"),
        (None, "b.yaml", True, "b.yaml"),
        (None, None, True, "cluster.yaml"),
        ("-", None, False, "-"),
    ],
)
def test_where_the_inventory_is_looked_for(
    option: str | None, environ: str | None, there: bool, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if there:
        (tmp_path / "cluster.yaml").write_text("name: here\n")
    context = Context(option, Output(), False, {"HMCTL_INVENTORY": environ} if environ else {})
    assert context.inventory_file() == found


def test_every_command_in_the_table_has_its_module_and_its_own_help(capsys: pytest.CaptureFixture[str]) -> None:
    for entry in main.COMMANDS:
        assert main.run([entry.name, "--help"]) == 0, entry.name
        assert f"hmctl {entry.name}" in capsys.readouterr().out


def test_help_of_groups_is_not_cut_and_that_of_their_commands_names_the_global_options(capsys: pytest.CaptureFixture[str]) -> None:
    for entry in main.COMMANDS:
        for name, inner in getattr(main.load(entry.name), "commands", {}).items():
            assert main.run([entry.name, name, "--help"]) == 0
            assert "Also -i FILE" in capsys.readouterr().out
            assert inner.get_short_help_str(20).endswith(inner.short_help[-5:])


def test_every_module_that_has_commands_is_in_the_table() -> None:
    found = {module.name for module in iter_modules([str(Path(main.__file__).parent)])}
    modules = {name: import_module(f"hmctl.cli.{name}") for name in found}
    having = {name for name, module in modules.items() if hasattr(module, "app") or hasattr(module, "command")}
    assert {entry.name for entry in main.COMMANDS} == having


def test_help_imports_no_command_and_no_heavy_library() -> None:
    program = (
        "import sys\nfrom hmctl.cli.main import run\nassert run(['--help']) == 0\n"
        "heavy = {'rich', 'asyncio', 'pydantic', 'cryptography', 'aioquic', 'asyncssh', 'jinja2', 'yaml', 'msgspec'} & set(sys.modules)\n"
        "commands = [name for name in sys.modules if name.startswith('hmctl.cli.')]\n"
        "print(sorted(heavy), sorted(commands), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr.strip() == "[] ['hmctl.cli.context', 'hmctl.cli.main', 'hmctl.cli.repeats']"
    for entry in main.COMMANDS:
        assert entry.help in done.stdout


def test_completion_of_commands_comes_from_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["completion", "bash"]) == 0
    assert "_HMCTL_COMPLETE=complete_bash" in capsys.readouterr().out
    done = subprocess.run(
        [sys.executable, "-m", "hmctl"],
        env={"_HMCTL_COMPLETE": "complete_bash", "COMP_WORDS": "hmctl st", "COMP_CWORD": "1", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split() == ["status"]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("hmctl node inspect no", ["node1", "node2", "node3"]),
        ("hmctl -i other.yaml logs we", ["web"]),
        ("hmctl -i nowhere.yaml logs no", []),
        ("hmctl -i - logs no", []),
        ("hmctl lab kill no", ["node1", "node2"]),
        ("hmctl lab kill --name absent no", []),
    ],
)
def test_completion_of_nodes(typed: str, offered: list[str], cluster: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.yaml").write_text("id: hm-abc123defg\nname: o\nhosts:\n  - {name: web, address: 10.0.0.9, role: control}\n")
    lab = LabState(name="lab", subnet=0, cluster_id="hm-abc123defg", image="", nodes=("node1", "node2"), inventory="")
    save(tmp_path / "labs" / "lab", lab)
    monkeypatch.setattr("hmctl.lab.home.directory", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    words = typed.split()
    ctx = typer.Context(main.load("ca"), info_name="hmctl")
    ctx.params["inventory"] = words[2] if words[1] == "-i" else None
    inner = typer.Context(ctx.command, parent=ctx)
    inner.params["name"] = "absent" if "absent" in words else "lab"
    complete = completing.lab_hosts if "lab" in words else completing.inventory_nodes
    assert complete(inner, words[-1]) == offered


def test_a_group_lists_its_commands() -> None:
    app = group("A group.")
    assert app.info.help == "A group."


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_a_command_lets_it_clean_up_and_a_hangup_that_comes_twice_does_too(number: signal.Signals) -> None:
    done: list[str] = []

    async def changing() -> None:
        try:
            signal.raise_signal(number)
            await asyncio.sleep(60)
        finally:
            done.append("begun to take back")
            if number is not signal.SIGINT:  # whose second leaves at once
                signal.raise_signal(number)
            for _ in range(3):
                await asyncio.sleep(0)
            done.append("taken back")

    with pytest.raises(KeyboardInterrupt):
        Context(None, Output(), False, {}).run(changing())
    assert done == ["begun to take back", "taken back"]


def test_a_hangup_that_is_ignored_stays_so() -> None:
    """nohup."""

    async def changing() -> str:
        signal.raise_signal(signal.SIGHUP)
        for _ in range(5):  # in which the loop would hear of it
            await asyncio.sleep(0)
        return "changed"

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert Context(None, Output(), False, {}).run(changing()) == "changed"
    finally:
        signal.signal(signal.SIGHUP, before)
