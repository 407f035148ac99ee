"""agent.yaml: written by hmctl, read by the agent, the same on both sides."""

from pathlib import Path

import pytest

from hmcore.config.agent import AgentConfig, agent_config_for, dump_agent_config, load_agent_config, parse_agent_config
from hmcore.config.inventory import Places, parse_inventory
from hmcore.errors import ConfigError
from hmcore.records import Role

INVENTORY = """
id: hm-abc123defg
name: prod
preset: high-performance
settings: {transport: {port: 17443}, upgrade: {batch: 2}}
hosts:
  - {name: a, address: 10.0.0.1, role: control, labels: {z: "1e3", a: "on"}}
  - {name: b, address: fd00::2, role: control, port: 9000}
  - {name: c, address: 10.0.0.3, role: control}
  - {name: d, address: 10.0.0.4, role: worker}
"""


def config(name="a", text=INVENTORY):
    inventory, _ = parse_inventory(text, "f", {}, Places(Path("/"), Path("/")))
    return agent_config_for(inventory, inventory.host(name), "b00t")


def test_every_node_is_told_the_same_cluster_and_its_own_place():
    first, worker = config("a"), config("d")
    assert [(v.name, v.address, v.port) for v in first.voters] == [
        ("a", "10.0.0.1", 17443),
        ("b", "fd00::2", 9000),
        ("c", "10.0.0.3", 17443),
    ]
    assert worker.voters == first.voters
    assert (worker.node, worker.role, worker.address, worker.port) == ("d", Role.WORKER, "10.0.0.4", 17443)
    assert (first.cluster_id, first.cluster_name, first.bootstrap, first.preset) == ("hm-abc123defg", "prod", "b00t", "high-performance")
    assert first.settings.raft.heartbeat == 0.1
    assert (first.apps, config("d", INVENTORY.replace("role: worker", "role: worker, apps: false")).apps) == (True, False)


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_what_is_written_reads_back_the_same(name, tmp_path):
    path = tmp_path / "agent.yaml"
    path.write_text(dump_agent_config(config(name)))
    assert load_agent_config(path) == config(name)
    assert dump_agent_config(load_agent_config(path)) == path.read_text()


def test_a_file_that_says_nothing_of_apps_was_written_before_anybody_could():
    text = dump_agent_config(config())
    assert "apps: true\n" in text
    assert parse_agent_config(text.replace("apps: true\n", ""), "f") == config()


def test_the_order_of_labels_in_the_inventory_changes_nothing():
    swapped = INVENTORY.replace('z: "1e3", a: "on"', 'a: "on", z: "1e3"')
    assert dump_agent_config(config(text=swapped)) == dump_agent_config(config())
    one, other = (config().model_copy(update={"labels": labels}) for labels in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}))
    assert dump_agent_config(one) == dump_agent_config(other)


def refused(change):
    text = dump_agent_config(config())
    with pytest.raises(ConfigError) as error:
        parse_agent_config(change(text), "agent.yaml")
    return [str(problem) for problem in error.value.problems]


def test_every_mistake_is_found_with_its_line():
    def change(text):
        return (
            text.replace("role: control", "role: boss").replace("port: 17443\nlabels", "port: 0\nlabels").replace("bootstrap:", "bootstrp:")
        )

    found = refused(change)
    assert [line.split(": ")[0] for line in found] == ["agent.yaml:1", "agent.yaml:3", "agent.yaml:5", "agent.yaml:7"]
    assert "bootstrap: is missing" in found[0]
    assert "did you mean bootstrap?" in found[1]
    assert "must be one of control, worker, not 'boss'" in found[2]
    assert "must be at least 1, not 0" in found[3]


def test_settings_that_cannot_work_are_refused_here_too():
    (found,) = refused(lambda text: text.replace("election_min: 0.5", "election_min: 0.05"))
    assert "settings.raft.election_min" in found


def test_what_is_no_configuration_is_refused(tmp_path):
    for text in ("", "[]", "a: b: c", "x"):
        assert refused(lambda _, text=text: text)
    with pytest.raises(ConfigError, match="cannot be read: No such file") as missing:
        load_agent_config(tmp_path / "none.yaml")
    assert "hmctl deploy" in str(missing.value.fix)


def test_paths_have_their_places():
    defaults = config()
    assert isinstance(defaults, AgentConfig)
    assert (defaults.data_dir, defaults.pki_dir) == (Path("/var/lib/hypermesh"), Path("/etc/hypermesh/pki"))
    moved = parse_agent_config(dump_agent_config(defaults).replace("/var/lib/hypermesh", "/data/a"), "f")
    assert moved.data_dir == Path("/data/a")
