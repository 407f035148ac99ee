"""hmctl config and hmctl ca: what is said, in which form, and with which exit code. No secret is ever among it."""

import json
import stat
from datetime import UTC, datetime

import pytest
import yaml

from hmcore.config import yaml12
from hmcore.config.agent import parse_agent_config
from hmcore.errors import UsageError
from hmctl.actions.config_diff import Change, ConfigDiff, NodeDiff
from hmctl.actions.config_report import ConfigReport, NodeOutcome
from hmctl.cli.main import run

INVENTORY = """\
id: hm-abc123defg
name: prod
settings: {raft: {heartbeat: 0.1}}
ssh: {user: admin, sudo_password: "${SUDO_PASSWORD}", key: id, bastion: jump@gate}
hosts:
  - {name: node1, address: 10.0.0.1, role: control, labels: {zone: a}}
  - {name: node2, address: 10.0.0.2, role: control}
  - {name: node3, address: 10.0.0.3, role: control}
  - {name: node4, address: 10.0.0.4, role: worker}
"""
SECRET = "hunter2 is no password"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a valid inventory, and an operator's data folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HMCTL_INVENTORY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("SUDO_PASSWORD", SECRET)
    (tmp_path / "cluster.yaml").write_text(INVENTORY)
    (tmp_path / "id").touch()
    return tmp_path


def hmctl(capsys, *argv):
    code = run(argv)
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    return code, said.out, said.err


# validate


def test_a_valid_inventory(here, capsys):
    code, out, err = hmctl(capsys, "config", "validate")
    assert (code, out, err) == (0, "cluster.yaml is valid: 4 hosts, 3 of them control nodes, preset balanced\n", "")


def test_every_mistake_is_listed_and_the_exit_code_is_2(here, capsys):
    (here / "cluster.yaml").write_text(INVENTORY.replace("role: worker", "rol: worker").replace("0.1", "fast").replace("node2", "node1"))
    code, out, err = hmctl(capsys, "config", "validate")
    assert code == 2
    assert [line.split(": ")[:3] for line in out.splitlines()[:-1]] == [
        ["error", "cluster.yaml:3", "settings.raft.heartbeat"],
        ["error", "cluster.yaml:7", "hosts[1].name"],
        ["error", "cluster.yaml:9", "hosts[3].rol"],
    ]
    assert out.splitlines()[-1] == "3 mistakes"
    assert err == ""


def test_mistakes_for_machines(here, capsys):
    (here / "cluster.yaml").write_text(INVENTORY.replace("role: worker", "rol: worker"))
    code, out, _ = hmctl(capsys, "config", "validate", "-o", "json")
    assert code == 2
    assert json.loads(out) == {
        "file": "cluster.yaml",
        "valid": False,
        "problems": [
            {
                "severity": "error",
                "file": "cluster.yaml",
                "line": 9,
                "path": "hosts[3].rol",
                "message": "unknown key",
                "hint": "did you mean role?",
            }
        ],
    }


def test_warnings_do_not_make_it_invalid(here, capsys):
    (here / "cluster.yaml").write_text(INVENTORY.replace("role: worker", "role: control"))
    (here / "id").unlink()
    code, out, _ = hmctl(capsys, "config", "validate")
    assert code == 0
    assert [line.split(": ")[0] for line in out.splitlines()] == ["warning", "warning", "cluster.yaml is valid"]
    code, out, _ = hmctl(capsys, "config", "validate", "-o", "json")
    document = json.loads(out)
    assert document["valid"]
    assert {problem["severity"] for problem in document["problems"]} == {"warning"}


def test_an_inventory_that_is_not_there(here, capsys):
    assert hmctl(capsys, "-i", "none.yaml", "config", "validate")[0] == 2
    (here / "cluster.yaml").unlink()
    code, _, err = hmctl(capsys, "config", "validate")
    assert code == 2
    assert "hmctl init" in err


# show


def test_show_hides_passwords_and_resolves_the_rest(here, capsys):
    code, out, _ = hmctl(capsys, "config", "show")
    assert code == 0
    shown = yaml12.load(out, "f").value
    ssh = shown["hosts"][0]["ssh"]
    assert (ssh["user"], ssh["key"], ssh["sudo_password"], ssh["bastion"]["address"]) == ("admin", str(here / "id"), "(hidden)", "gate")
    assert ssh["bastion"]["sudo_password"] is None
    assert shown["settings"]["raft"] == {"heartbeat": 0.1, "election_min": 1.0, "election_max": 2.0}
    code, out, _ = hmctl(capsys, "config", "show", "-o", "json")
    assert json.loads(out) == shown


# render


def test_render_is_what_the_agent_will_read(here, capsys):
    code, out, _ = hmctl(capsys, "config", "render", "node4")
    assert code == 0
    config = parse_agent_config(out, "agent.yaml")
    assert (config.node, str(config.role), [voter.name for voter in config.voters]) == ("node4", "worker", ["node1", "node2", "node3"])
    assert not (here / "data").exists(), "showing makes nothing"


def test_render_of_all_nodes(here, capsys):
    _, out, _ = hmctl(capsys, "config", "render")
    assert [document["node"] for document in yaml.safe_load_all(out)] == ["node1", "node2", "node3", "node4"]
    _, out, _ = hmctl(capsys, "config", "render", "-o", "json")
    assert list(json.loads(out)) == ["node1", "node2", "node3", "node4"]


def test_render_of_an_unknown_node_names_the_nearest(here, capsys):
    code, _, err = hmctl(capsys, "config", "render", "nod4")
    assert code == 2
    assert "did you mean node4?" in err


# presets


def test_presets_are_a_table_with_units(here, capsys):
    _, out, _ = hmctl(capsys, "config", "presets")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line and ":" not in line}
    assert rows["SETTING"] == ["DEVELOPMENT", "BALANCED", "HIGH-PERFORMANCE", "HIGH-RELIABILITY"]
    assert rows["raft.heartbeat"] == ["0.2", "s", "0.2", "s", "0.1", "s", "0.5", "s"]
    assert rows["upgrade.batch"] == ["all", "1", "25%", "1"]
    assert rows["transport.high_water_bytes"] == ["4", "MiB"] * 4


def test_presets_for_machines_come_with_every_reason(here, capsys):
    _, out, _ = hmctl(capsys, "config", "presets", "-o", "json")
    document = json.loads(out)
    assert list(document["presets"]) == ["development", "balanced", "high-performance", "high-reliability"]
    assert document["presets"]["high-reliability"]["settings"]["upgrade"] == {"batch": 1, "soak": 30.0}
    assert all(setting["description"] for setting in document["settings"])
    _, verbose, _ = hmctl(capsys, "config", "presets", "-v")
    assert document["settings"][0]["description"] in verbose


def test_what_changing_a_setting_takes_is_said(here, capsys):
    _, out, _ = hmctl(capsys, "config", "presets", "-o", "json")
    effects = {setting["path"]: setting["effect"] for setting in json.loads(out)["settings"]}
    assert {path for path, effect in effects.items() if effect != "restart"} == {
        "upgrade.batch",
        "upgrade.soak",
        "transport.port",
        "network.mode",
        "network.cidr",
        "network.subnet_prefix",
        "network.vxlan_port",
    }
    _, verbose, _ = hmctl(capsys, "config", "presets", "-v")
    lines = {line.partition(": ")[0]: line for line in verbose.splitlines()}
    assert lines["raft.heartbeat"].endswith("Applying it restarts the agents, one by one.")
    assert lines["upgrade.batch"].endswith("Takes effect at once: only hmctl reads it.")
    assert lines["transport.port"].endswith("A running cluster cannot change it.")


# ca


@pytest.fixture
def authority(here):

    from hmctl.state import OperatorStore

    store = OperatorStore.open("hm-abc123defg")
    store.create_authority(datetime.now(UTC))
    return store


def test_without_a_ca_the_ways_to_get_one_are_named(here, capsys):
    for argv in (["ca", "show"], ["ca", "export", "ca.json"]):
        code, out, err = hmctl(capsys, *argv)
        assert (code, out) == (1, "")
        assert "hmctl deploy" in err
        assert "hmctl ca import" in err
    assert not (here / "ca.json").exists()


def test_the_ca_is_carried_to_another_machine(here, capsys, authority, monkeypatch):
    bootstrap = authority.bootstrap()
    code, out, err = hmctl(capsys, "ca", "export", "ca.json")
    assert code == 0
    assert "hmctl ca import ca.json" in out
    assert "private key" in err
    assert stat.S_IMODE((here / "ca.json").stat().st_mode) == 0o600

    monkeypatch.setenv("XDG_DATA_HOME", str(here / "elsewhere"))
    code, out, _ = hmctl(capsys, "ca", "import", "ca.json")
    assert code == 0
    from hmctl.state import OperatorStore

    there = OperatorStore.open("hm-abc123defg")
    assert str(there.folder).startswith(str(here / "elsewhere"))
    assert there.authority() == authority.authority()
    assert there.bootstrap() == bootstrap


def test_a_viewers_certificate_is_for_looking_only_and_never_written_over(here, capsys, authority):
    from hmcore import pki

    code, out, _ = hmctl(capsys, "ca", "viewer", "prometheus", "--to", "prom")
    assert code == 0
    assert "prometheus.key in prom" in out
    certificate, key = ((here / "prom" / name).read_bytes() for name in ("prometheus.pem", "prometheus.key"))
    ca = (here / "prom" / "ca.pem").read_bytes()
    identity = pki.verify(certificate, ca, datetime.now(UTC), cluster="hm-abc123defg", serving=False)
    assert identity == pki.Identity("hm-abc123defg", pki.Kind.VIEWER, "prometheus")
    assert pki.public_key(key) == pki.public_key(certificate)
    assert stat.S_IMODE((here / "prom" / "prometheus.key").stat().st_mode) == 0o600

    code, out, err = hmctl(capsys, "ca", "viewer", "prometheus", "--to", "prom")
    assert (code, out) == (2, "")
    assert "prom/prometheus.key exists already" in err
    assert (here / "prom" / "prometheus.key").read_bytes() == key
    assert "fix: --to DIR writes to another folder; to make it anew: rm prom/prometheus.key prom/prometheus.pem\n" in err
    code, _, err = hmctl(capsys, "ca", "viewer", "Prometheus 1")
    assert code == 2
    assert "is no name" in err
    assert "fix: choose such a name" in err


def test_what_is_no_exported_ca_is_refused_with_what_makes_one(here, capsys):
    (here / "README.md").write_text("# A project")
    code, _, err = hmctl(capsys, "ca", "import", "README.md")
    assert code == 2
    assert "README.md was not written by `hmctl ca export`" in err
    assert "fix: name the file that it wrote" in err
    assert "why:" not in err


def test_show_says_what_is_here(here, capsys, authority):
    from hmcore import pki

    code, out, _ = hmctl(capsys, "ca", "show", "-o", "json")
    document = json.loads(out)
    assert code == 0
    assert (document["cluster"], document["can_issue"], document["formed_at"]) == ("hm-abc123defg", True, None)
    assert document["fingerprint"] == pki.fingerprint(authority.ca_certificate())
    _, out, _ = hmctl(capsys, "ca", "show")
    assert "PRIVATE KEY" not in out
    assert document["fingerprint"] in out


def test_another_ca_is_never_replaced(here, capsys, authority, monkeypatch):
    hmctl(capsys, "ca", "export", "ca.json")
    assert hmctl(capsys, "ca", "export", "ca.json")[0] == 2, "nor is a file"
    monkeypatch.setenv("XDG_DATA_HOME", str(here / "elsewhere"))

    from hmctl.state import OperatorStore

    mine = OperatorStore.open("hm-abc123defg").create_authority(datetime.now(UTC))
    code, _, err = hmctl(capsys, "ca", "import", "ca.json")
    assert code == 1
    assert "another CA" in err
    assert OperatorStore.open("hm-abc123defg").authority() == mine


# diff, apply


@pytest.mark.parametrize("command", [["diff"], ["apply", "--dry-run"]])
def test_the_limit_on_connections_holds_for_files_and_for_agents_asked_through_ssh(here, capsys, monkeypatch, command):
    limits = {}

    class Connections:
        def __init__(self, *args, limit=None, **more):
            limits["files"] = limit

        async def close(self):
            limits["closed"] = True

    def asked(access, remotes, at_once=None):
        limits["agents"] = at_once

    async def look(action):
        action.agents(action.store, {})
        raise UsageError("enough seen")

    monkeypatch.setattr("hmctl.remote.ssh.Connector", Connections)
    monkeypatch.setattr("hmctl.phases.agents.LiveAgents", asked)
    monkeypatch.setattr("hmctl.client.Access.of", lambda store: None)
    monkeypatch.setattr("hmctl.actions.config_apply.ConfigApply.diff", look)
    monkeypatch.setattr("hmctl.actions.config_apply.ConfigApply.apply", look)
    code, _, err = hmctl(capsys, "config", *command, "--concurrency", "7")
    assert (code, limits) == (2, {"files": 7, "agents": 7, "closed": True}), err


def test_the_plan_of_a_dry_run_is_its_result(here, capsys, monkeypatch):
    change = Change("settings.metrics.interval", 10, 7)
    node = NodeDiff("node1", "differs", (change,), restart=True)

    async def planned(action):
        action.show_plan(ConfigDiff("prod", True, (change,), (node,), ()), ["node1"])
        return ConfigReport("prod", True, True, False, None, None, (NodeOutcome("node1", "planned", (str(change),)),))

    monkeypatch.setattr("hmctl.client.Access.of", lambda store: None)
    monkeypatch.setattr("hmctl.actions.config_apply.ConfigApply.apply", planned)
    code, out, _ = hmctl(capsys, "config", "apply", "--dry-run", "-q")
    assert (code, out) == (0, "node1\n  ~ settings.metrics.interval 10 -> 7\norder: node1\nNothing was changed.\n")
