"""What a valid inventory comes to: defaults, ranges, paths, variables. What is said about invalid ones: test_inventory_cases.py."""

import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hmcore.config.checks import check_metrics
from hmcore.config.inventory import Places, SshTarget, load_inventory, parse_inventory
from hmcore.config.settings import Metrics, Settings
from hmcore.errors import ConfigError, UsageError
from hmcore.records import Role

PLACES = Places(Path("/place"), Path("/home/op"))
HEAD = "id: hm-abc123defg\nname: prod\npreset: development\n"


def parse(text, environment=None, places=PLACES):
    inventory, warnings = parse_inventory(HEAD + text, "cluster.yaml", environment or {}, places)
    return inventory, [str(warning) for warning in warnings]


def ssh(text, environment=None, places=PLACES):
    """The SSH target of the first host."""
    return parse(text, environment, places)[0].hosts[0].ssh


def test_the_shortest_inventory():
    inventory, warnings = parse("hosts: [root@10.0.0.1]")
    (host,) = inventory.hosts
    assert (host.name, host.address, host.port, host.role) == ("node-10-0-0-1", "10.0.0.1", 7443, Role.CONTROL)
    assert host.ssh == SshTarget("10.0.0.1", user="root")
    assert (inventory.id, inventory.name, inventory.preset, inventory.packages) == ("hm-abc123defg", "prod", "development", "install")
    assert warnings == []


def test_the_preset_is_balanced_unless_said():
    text = "id: hm-abc123defg\nname: prod\nhosts: [{address: '10.0.0.[1-3]', role: control}]"
    inventory, warnings = parse_inventory(text, "f", {}, PLACES)
    assert (inventory.preset, inventory.settings.upgrade.batch, warnings) == ("balanced", 1, ())


@pytest.mark.parametrize(
    ("host", "user", "port"),
    [
        ("{address: 10.0.0.1, role: control}", "top", 2201),
        ("{address: 'own@10.0.0.1:2202', role: control}", "own", 2202),
        ("{address: 'own@10.0.0.1:2202', role: control, ssh: {user: ssh, port: 2203}}", "ssh", 2203),
        ("{address: 'own@10.0.0.1:2202', role: control, ssh: {address: 'apart@192.0.2.1:2204'}}", "apart", 2204),
        ("own@10.0.0.1", "own", 2201),
    ],
)
def test_the_nearest_word_counts(host, user, port):
    target = ssh(f"ssh: {{user: top, port: 2201}}\nhosts: [{host}]")
    assert (target.user, target.port) == (user, port)


def test_nothing_said_is_left_to_ssh():
    target = ssh("hosts: [{address: web1, role: control}]")
    assert (target.user, target.port, target.key, target.agent, target.config, target.known_hosts) == (None, None, None, True, None, None)


def test_ssh_may_go_to_another_address_than_the_nodes_do():
    inventory, _ = parse("hosts: [{address: 10.0.0.1, role: control, port: 9000, ssh: {address: bastion.example.org, port: 2201}}]")
    (host,) = inventory.hosts
    assert (host.address, host.port, host.ssh.address, host.ssh.port) == ("10.0.0.1", 9000, "bastion.example.org", 2201)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("keys/id", "/place/keys/id"),
        ("../id", "/id"),
        ("~/.ssh/id", "/home/op/.ssh/id"),
        ("/etc/id", "/etc/id"),
        ("~", "/home/op"),
        ("~x/id", "/place/~x/id"),
    ],
)
def test_paths_start_at_the_inventory_or_at_home(written, meant):
    target = ssh(f'ssh: {{key: "{written}", known_hosts: "{written}", config: "{written}"}}\nhosts: [root@h]')
    assert (target.key, target.known_hosts, target.config) == (Path(meant),) * 3


def test_the_operators_ssh_config_is_read_unless_told_otherwise():
    places = Places(Path("/place"), Path("/home/op"), Path("/home/op/.ssh/config"))
    assert ssh("hosts: [root@h]", places=places).config == Path("/home/op/.ssh/config")
    assert ssh("ssh: {config: false}\nhosts: [root@h]", places=places).config is None
    assert ssh("ssh: {config: false}\nhosts: [{address: h, role: control, ssh: {config: ./c}}]", places=places).config == Path("/place/c")


def test_a_bastion_in_one_line_and_in_full():
    short = ssh("ssh: {key: k, known_hosts: kh, bastion: 'jump@gate:2222'}\nhosts: [root@h]").bastion
    long = ssh("ssh: {key: k, known_hosts: kh, bastion: {address: gate, user: jump, port: 2222}}\nhosts: [root@h]").bastion
    assert short == long == SshTarget("gate", user="jump", port=2222, key=Path("/place/k"), known_hosts=Path("/place/kh"))


def test_a_bastion_may_have_its_own_key_and_its_own_bastion():
    target = ssh("ssh: {key: k, agent: false, bastion: {address: inner, key: k2, bastion: me@outer}}\nhosts: [root@h]")
    inner, outer = target.bastion, target.bastion.bastion
    assert (inner.address, inner.key, inner.agent) == ("inner", Path("/place/k2"), False)
    assert (outer.address, outer.user, outer.key, outer.bastion) == ("outer", "me", Path("/place/k2"), None)


def test_a_hosts_bastion_replaces_the_default_one():
    target = ssh("ssh: {bastion: {address: a, user: x}}\nhosts: [{address: h, role: control, ssh: {bastion: b}}]")
    assert (target.bastion.address, target.bastion.user) == ("b", None)


@pytest.mark.parametrize(
    ("said", "sudo", "password"),
    [
        ("{user: root}", False, None),
        ("{user: admin}", True, None),
        ("{}", True, None),
        ("{user: root, sudo: true}", True, None),
        ("{user: admin, sudo: false}", False, None),
        ("{user: admin, sudo_password: '${PW}'}", True, "0123"),
        ("{user: root, sudo_password: '${PW}'}", False, None),
        ("{user: admin, sudo_password: '${EMPTY}'}", True, None),
    ],
)
def test_sudo_where_we_are_not_root(said, sudo, password):
    target = ssh(f"ssh: {said}\nhosts: [{{address: h, role: control}}]", {"PW": "0123", "EMPTY": ""})
    assert (target.sudo, target.sudo_password) == (sudo, password)
    assert "0123" not in repr(target)


def test_ranges_stand_for_hosts():
    inventory, _ = parse("hosts:\n  - {address: '10.0.0.[1-3]', role: control, labels: {zone: a}}\n  - root@web[09-10].example.org:22\n")
    assert [(host.name, host.address, host.role) for host in inventory.hosts] == [
        ("node-10-0-0-1", "10.0.0.1", Role.CONTROL),
        ("node-10-0-0-2", "10.0.0.2", Role.CONTROL),
        ("node-10-0-0-3", "10.0.0.3", Role.CONTROL),
        ("web09", "web09.example.org", Role.WORKER),
        ("web10", "web10.example.org", Role.WORKER),
    ]
    assert inventory.hosts[2].labels == {"zone": "a"}
    assert [host.name for host in inventory.worker_hosts] == ["web09", "web10"]
    assert len(inventory.control_hosts) == 3


def test_variables_become_what_they_mean():
    inventory, _ = parse(
        """
settings: {raft: {heartbeat: "${BEAT}"}, upgrade: {batch: "${BATCH:-2}"}, security: {mode: "${MODE:-off}"}}
hosts:
  - {name: "n-${N}", address: "10.0.0.${N}", role: "${ROLE:-control}", port: "${PORT}", labels: {a: "${N}"}, ssh: {agent: "${NO}"}}
""",
        {"BEAT": "0.05", "N": "7", "PORT": "9000", "NO": "false"},
    )
    (host,) = inventory.hosts
    assert (inventory.settings.raft.heartbeat, inventory.settings.upgrade.batch, inventory.settings.security.mode) == (0.05, 2, "off")
    assert (host.name, host.address, host.port, host.labels, host.ssh.agent) == ("n-7", "10.0.0.7", 9000, {"a": "7"}, False)
    for text in (host.name, host.address, host.labels["a"]):
        assert type(text) is str


def test_the_environment_cannot_change_the_shape_of_the_document():
    with pytest.raises(ConfigError, match="is no name"):
        parse('hosts: [{name: "${X}", address: h, role: control}]', {"X": "a, role: worker}, {name: b"})


def test_an_empty_variable_takes_the_default():
    assert ssh('ssh: {user: "${U:-admin}"}\nhosts: [h]', {"U": ""}).user == "admin"


def test_a_literal_dollar_brace():
    target = ssh("ssh: {user: admin, sudo_password: '$${PW}$PW'}\nhosts: [h]")
    assert target.sudo_password == "${PW}$PW"


def test_hosts_can_be_found_by_name():
    inventory, _ = parse("hosts: [{name: alpha, address: h, role: control}]")
    assert inventory.host("alpha") is inventory.hosts[0]
    with pytest.raises(UsageError) as refused:
        inventory.host("alhpa")
    assert refused.value.fix == "did you mean alpha?"


def test_hosts_can_be_keys():
    inventory, _ = parse("hosts: [{name: alpha, address: h, role: control, labels: {a: b}, ssh: {bastion: b}}]")
    assert {inventory.hosts[0]: 1, inventory.hosts[0].ssh: 2}


def test_anchors_live_under_x():
    inventory, _ = parse("x-a: &a {role: control}\nhosts: [{name: n, address: h, <<: *a}]")
    assert inventory.hosts[0].role is Role.CONTROL


def test_json_is_an_inventory_too():
    document = {"id": "hm-abc123defg", "name": "prod", "preset": "development", "hosts": [{"name": "n", "address": "h", "role": "control"}]}
    inventory, _ = parse_inventory(json.dumps(document), "f", {}, PLACES)
    assert inventory.hosts[0].name == "n"


# Reading files


def write(folder, text="hosts: [{address: h, role: control}]\n"):
    path = folder / "cluster.yaml"
    path.write_text(HEAD + text)
    return path


def test_a_file_is_read_relative_to_its_folder(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    path = write(tmp_path / "sub", "ssh: {key: id}\nhosts: [{address: h, role: control}]\n")
    monkeypatch.chdir(tmp_path)
    inventory, warnings = load_inventory("sub/cluster.yaml", {"HOME": str(tmp_path)})
    assert inventory.hosts[0].ssh.key == path.parent / "id"
    assert inventory.file == "sub/cluster.yaml"
    assert [str(warning) for warning in warnings] == [f"sub/cluster.yaml: ssh.key: there is no file {path.parent / 'id'}"]


def test_the_ssh_config_counts_only_if_it_is_there(tmp_path):
    path = write(tmp_path)
    assert load_inventory(path, {"HOME": str(tmp_path)})[0].hosts[0].ssh.config is None
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").touch()
    assert load_inventory(path, {"HOME": str(tmp_path)})[0].hosts[0].ssh.config == tmp_path / ".ssh/config"


def test_a_dash_is_stdin(tmp_path, monkeypatch):
    content = io.TextIOWrapper(io.BytesIO(write(tmp_path, "hosts: [{address: h, role: contrl}]\n").read_bytes()))
    monkeypatch.setattr(sys, "stdin", content)
    with pytest.raises(ConfigError, match=r"<stdin>:4: hosts\[0\]\.role: must be control or worker"):
        load_inventory("-", {})


@pytest.mark.parametrize(("name", "reason"), [("none.yaml", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read(tmp_path, name, reason):
    with pytest.raises(ConfigError, match=reason) as refused:
        load_inventory(tmp_path / name, {})
    assert "hmctl init" in str(refused.value.fix)


# Whatever is written


KEYS = [
    "id",
    "name",
    "preset",
    "settings",
    "ssh",
    "hosts",
    "packages",
    "address",
    "role",
    "labels",
    "port",
    "user",
    "key",
    "bastion",
    "config",
]
SETTINGS = [
    "sudo",
    "sudo_password",
    "agent",
    "raft",
    "heartbeat",
    "upgrade",
    "batch",
    "transport",
    "control",
    "worker",
    "balanced",
    "development",
]
ODDITIES = [
    "hm-abc123defg",
    "10.0.0.1",
    "root@10.0.0.[1-3]",
    "${A}",
    "${B:-1}",
    "${",
    "",
    "x-y",
    "on",
    "<<",
    "[key]",
    "[1]",
    "*",
    "&",
    "@",
    "a:b",
]
WORDS = st.sampled_from([*KEYS, *SETTINGS, *ODDITIES])
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-5, 70000), st.floats(), WORDS, st.text(max_size=5))
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=5)), max_leaves=12
)
HOSTS = st.lists(
    st.one_of(WORDS, st.dictionaries(st.sampled_from(["name", "address", "role", "port", "labels", "ssh"]), DOCUMENTS, max_size=5)),
    max_size=3,
)
INVENTORIES = st.fixed_dictionaries(
    {}, optional={"id": WORDS, "name": WORDS, "preset": WORDS, "settings": DOCUMENTS, "ssh": DOCUMENTS, "hosts": HOSTS}
)


@given(st.one_of(DOCUMENTS, INVENTORIES), st.dictionaries(st.sampled_from("AB"), st.text(max_size=5)))
@example({"hosts": [{"address": "h", "ssh": {"bastion": {"bastion": {"address": 5}}}}]}, {})
@example({"hosts": [{"address": "h", "labels": {"[key]": 1, "": 2}}]}, {})
def test_any_document_is_an_inventory_or_a_config_error(document, environment):
    text = json.dumps(document)
    try:
        inventory, _ = parse_inventory(text, "f", environment, PLACES)
    except ConfigError as error:
        found = [str(problem) for problem in error.problems if not problem.warning]
    else:
        found = [host.name for host in inventory.control_hosts]
    assert found, "neither a mistake nor a control node"


@pytest.mark.parametrize(("address", "warned"), [("127.0.0.1", False), ("0.0.0.0", False), ("::", False), ("10.0.0.1", True)])
def test_an_address_of_one_node_cannot_serve_the_metrics_of_all(address, warned):
    found = list(check_metrics(Settings(metrics=Metrics(address=address, tls="mutual"))))
    assert [mistake.warning for mistake in found] == [True] * warned
    assert all("does not have the address 10.0.0.1" in mistake.message for mistake in found)
