"""hmctl init: what is typed becomes a valid inventory, or says what is wrong with it; nothing is overwritten."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hmcore.config.inventory import Places, load_inventory, parse_inventory
from hmcore.errors import UsageError
from hmctl.actions import init
from hmctl.cli.main import run

PLACES = Places(Path("/"), Path("/"))


def composed(*hosts, preset="balanced", control=None):
    text = init.compose(init.plan_hosts(hosts, preset=preset, control=control), id="hm-abc123defg", name="prod", preset=preset)
    return init.check(text, "cluster.yaml")[0]


def roles(inventory):
    return "".join(str(host.role)[0] for host in inventory.hosts)


@pytest.mark.parametrize(
    ("count", "preset", "control", "expected"),
    [
        (1, "balanced", None, "c"),
        (2, "balanced", None, "cw"),
        (3, "balanced", None, "ccc"),
        (4, "balanced", None, "cccw"),
        (6, "balanced", None, "cccwww"),
        (4, "development", None, "cccw"),
        (4, "high-reliability", None, "cccw"),
        (6, "high-reliability", None, "cccccw"),
        (6, "balanced", 5, "cccccw"),
        (6, "balanced", 1, "cwwwww"),
    ],
)
def test_roles_are_written_out(count, preset, control, expected):
    inventory = composed(f"root@10.0.0.[1-{count}]", preset=preset, control=control)
    assert roles(inventory) == expected
    assert [host.name for host in inventory.hosts] == [f"node{number}" for number in range(1, count + 1)]


def test_what_hosts_share_stands_once():
    hosts = init.plan_hosts(["root@10.0.0.[1-2]:2222"], preset="balanced", control=None)
    text = init.compose(hosts, id="hm-abc123defg", name="prod", preset="balanced")
    assert "\nssh: {user: root, port: 2222}\n" in text
    assert text.count("2222") == 1
    inventory = composed("root@10.0.0.1", "admin@web:2200", "fd00::3", "x@[fd00::4]:22")
    assert [(str(host.ssh), host.address) for host in inventory.hosts] == [
        ("root@10.0.0.1", "10.0.0.1"),
        ("admin@web:2200", "web"),
        ("fd00::3", "fd00::3"),
        ("x@[fd00::4]:22", "fd00::4"),
    ]


def test_what_was_not_said_is_left_to_ssh():
    (host,) = composed("10.0.0.1").hosts
    assert (host.ssh.user, host.ssh.port) == (None, None)


@pytest.mark.parametrize(
    ("hosts", "options", "words"),
    [
        (["10.0.0.1"], {"preset": "fast"}, "no preset is called 'fast'"),
        (["10.0.0.1"], {"preset": "high-reliability"}, "needs at least 3 control nodes"),
        (["10.0.0.[1-5]"], {"preset": "high-reliability", "control": 1}, "needs at least 3 control nodes"),
        (["10.0.0.1"], {"control": 2}, "2 control nodes of 1 hosts is not possible"),
        (["10.0.0.1"], {"control": 0}, "not possible"),
        (["10.0.0.[1-3]", "root@10.0.0.2"], {}, "10.0.0.2 is given twice"),
        (["fd00::1", "[FD00::1]:22"], {}, "fd00::1 is given twice"),
        (["10.0.0.1", "127.0.0.1"], {}, "cannot reach a loopback address"),
        (["root@"], {}, "there is no address"),
        (["10.0.0.[3-1]"], {}, "runs backwards"),
        ([], {}, "at least one host"),
    ],
)
def test_what_cannot_be_is_refused(hosts, options, words):
    with pytest.raises(UsageError) as refused:
        composed(*hosts, **options)
    assert words in refused.value.message


def test_cluster_ids_are_random_and_valid():
    ids = {init.new_cluster_id() for _ in range(100)}
    assert len(ids) == 100
    for id in ids:
        parse_inventory(f"id: {id}\nname: a\npreset: development\nhosts: [{{address: h, role: control}}]", "f", {}, PLACES)


LABELS = st.text(alphabet="abc019-", min_size=1, max_size=8)
HOSTS = st.builds(
    lambda user, address, port: f"{user}{address}{port}",
    st.sampled_from(["", "root@", "a.b-c@"]),
    st.one_of(LABELS, st.sampled_from(["10.0.0.1", "10.0.0.[2-4]", "[fd00::1]", "on", "1e3", "0x1f", "null", "true", "22"])),
    st.sampled_from(["", ":22", ":2222"]),
)


@given(st.lists(HOSTS, max_size=6), st.sampled_from(["prod", "1e3", "0x1f", "on", "null", "true", "22"]))
@example(["1e3", "null@h"], "0o7")
def test_whatever_is_accepted_gives_a_valid_inventory_of_just_these_hosts(hosts, name):
    try:
        planned = init.plan_hosts(hosts, preset="balanced", control=None)
    except UsageError:
        return
    text = init.compose(planned, id="hm-abc123defg", name=name, preset="balanced")
    inventory, _ = init.check(text, "f")
    assert inventory.name == name
    assert [(host.address, host.ssh.user, host.ssh.port or 22) for host in inventory.hosts] == [
        (host.spec.address, host.spec.user, host.spec.port or 22) for host in planned
    ]


# The command


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HMCTL_INVENTORY", raising=False)
    return tmp_path


def test_the_file_is_valid_and_the_next_step_is_named(here, capsys):
    assert run(["init", "--name", "prod", "root@10.0.0.[1-3]"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["Wrote cluster.yaml: 3 hosts (3 control, 0 workers), preset balanced.", "Next: hmctl deploy"]
    assert said.err == ""
    inventory, warnings = load_inventory("cluster.yaml", {"HOME": str(here)})
    assert (inventory.name, warnings) == ("prod", ())


def test_nothing_is_overwritten_unless_forced(here, capsys):
    path = here / "cluster.yaml"
    path.write_text("id: hm-precious00\n")
    assert run(["init", "10.0.0.1"]) == 2
    assert path.read_text() == "id: hm-precious00\n"
    assert "--force" in capsys.readouterr().err
    assert run(["init", "--force", "10.0.0.[1-3]"]) == 0
    assert "had the id hm-precious00" in capsys.readouterr().err
    load_inventory(path, {})


def test_the_inventory_option_names_the_file(here, capsys, monkeypatch):
    assert run(["init", "-i", "a b.yaml", "10.0.0.[1-3]"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Next: hmctl -i 'a b.yaml' deploy"
    monkeypatch.setenv("HMCTL_INVENTORY", "c.yaml")
    assert run(["init", "10.0.0.[1-3]"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Wrote c.yaml (named by $HMCTL_INVENTORY): 3 hosts (3 control, 0 workers), preset balanced.",
        "Next: hmctl deploy",
    ]
    assert (here / "c.yaml").exists()
    assert not (here / "cluster.yaml").exists()


def test_the_file_of_a_forgotten_variable_is_not_first_of_all_to_be_overwritten(here, capsys, monkeypatch):
    monkeypatch.setenv("HMCTL_INVENTORY", "lab.yaml")
    (here / "lab.yaml").write_text("id: hm-precious00\n")
    assert run(["init", "10.0.0.1"]) == 2
    err = capsys.readouterr().err
    assert "lab.yaml, which $HMCTL_INVENTORY names, exists already; nothing was written" in err
    assert "fix: `unset HMCTL_INVENTORY` to write cluster.yaml" in err
    assert run(["init", "-i", "lab.yaml", "10.0.0.1"]) == 2
    assert "HMCTL_INVENTORY" not in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_to_be_made(here, capsys):
    assert run(["init", "-i", "no such/cluster.yaml", "10.0.0.1"]) == 2
    assert "error: there is no folder no such for no such/cluster.yaml\n  fix: mkdir -p 'no such'\n" in capsys.readouterr().err


def test_a_dash_prints_it(here, capsys):
    assert run(["init", "-i", "-", "10.0.0.[1-3]"]) == 0
    parse_inventory(capsys.readouterr().out, "f", {}, PLACES)
    assert list(here.iterdir()) == []


def test_machines_get_json(here, capsys):
    assert run(["init", "-o", "json", "root@10.0.0.[1-2]"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["hosts"] == [
        {"name": "node1", "address": "10.0.0.1", "role": "control"},
        {"name": "node2", "address": "10.0.0.2", "role": "worker"},
    ]
    assert document["id"] in (here / "cluster.yaml").read_text()


@pytest.mark.parametrize(
    "argv",
    [[], ["--preset", "fast", "h"], ["--name", "A b", "h"], ["--control", "2", "h"], ["host:99999"], ["-i", "no/such/folder.yaml", "h"]],
)
def test_usage_errors_leave_no_file(here, capsys, argv):
    assert run(["init", *argv]) == 2
    assert capsys.readouterr().out == ""
    assert list(here.iterdir()) == []


def test_an_even_number_of_control_nodes_is_warned_about(here, capsys):
    assert run(["init", "--control", "2", "10.0.0.[1-2]"]) == 0
    assert "2 control nodes survive no more failures than 1" in capsys.readouterr().err
