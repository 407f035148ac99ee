"""Settings and presets: the table of design section 8, and what cannot work together."""

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.config.catalogue import catalogue, value_at
from hmcore.config.conflicts import conflicts
from hmcore.config.presets import DEFAULT_PRESET, PRESETS, default_control_nodes, settings_for
from hmcore.config.settings import Settings, Upgrade
from hmcore.errors import ConfigError

# design.md, section 8, row by row: development, balanced, high-performance, high-reliability.
TABLE = {
    "initialization_timeout": (60, 60, 60, 120),
    "membership.heartbeat": (0.5, 0.5, 0.25, 1),
    "membership.suspect": (2, 2, 1, 5),
    "membership.down": (4, 4, 2, 10),
    "raft.heartbeat": (0.2, 0.2, 0.1, 0.5),
    "raft.election_min": (1, 1, 0.5, 2.5),
    "raft.election_max": (2, 2, 1, 5),
    "calls.timeout": (10, 10, 5, 30),
    "calls.retries": (3, 3, 3, 5),
    "health.interval": (5, 10, 5, 10),
    "health.timeout": (2, 5, 2, 5),
    "registry.ttl": (30, 60, 30, 120),
    "registry.refresh": (10, 20, 10, 30),
    "metrics.interval": (5, 10, 5, 10),
    "security.mode": ("audit", "enforce", "enforce", "enforce"),
    "optional_layers": ("degrade", "degrade", "degrade", "refuse"),
    "upgrade.batch": ("all", 1, "25%", 1),
    "upgrade.soak": (0, 0, 0, 30),
}


@pytest.mark.parametrize("path", TABLE)
def test_the_presets_are_those_of_the_design(path):
    assert tuple(value_at(preset.settings, path) for preset in PRESETS.values()) == TABLE[path]


def test_the_presets_control_nodes_are_those_of_the_design():
    assert [(p.name, p.control_nodes, p.control_minimum) for p in PRESETS.values()] == [
        ("development", 1, 1),
        ("balanced", 3, 1),
        ("high-performance", 3, 1),
        ("high-reliability", 5, 3),
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_works_by_itself(name):
    assert conflicts(PRESETS[name].settings) == []


def test_the_defaults_are_balanced():
    assert settings_for(DEFAULT_PRESET) == Settings()


def test_every_setting_says_what_it_trades():
    for setting in catalogue():
        assert len(setting.description) > 20, setting.path
        assert setting.default == value_at(Settings(), setting.path)
        if isinstance(setting.default, float):
            assert setting.unit == "s", setting.path


ROOT = Path(__file__).parents[4]
# What a part that gets one group of settings calls it, where that is not the group's own name.
ALIASES = {
    "membership": ("node_agent/orchestration", "timing"),
    "raft": ("node_agent/consensus", "timing"),
    "transport": ("node_agent/transport", "limits"),
}
METHODS = {"upgrade.batch": "upgrade.workers_at_once"}


def reads():
    """Every `owner.attribute` in the sources that act upon settings, as (package/part, owner, attribute); leading underscores left out.
    hmcore/config only checks them, but for inventory.py, which gives each host its port."""
    sources = [path for name in ("hmctl", "hmcore", "node_agent") for path in (ROOT / name).rglob("*.py")]
    found = set()
    for path in sources:
        place = path.relative_to(ROOT)
        if place.parts[:2] == ("hmcore", "config") and place.name != "inventory.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = re.search(r"(\w+)$", ast.unparse(node.value))
                if owner:
                    found.add(("/".join(place.parent.parts[:2]), owner[1].lstrip("_"), node.attr))
    return found


@pytest.mark.long
def test_every_setting_is_acted_upon():
    seen = reads()
    anywhere = {(owner, attribute) for _, owner, attribute in seen}
    unread = set()
    for setting in catalogue():
        group, _, name = METHODS.get(setting.path, setting.path).rpartition(".")
        folder, alias = ALIASES.get(group, ("", ""))
        if (group or "settings", name) not in anywhere and (folder, alias, name) not in seen:
            unread.add(setting.path)
    assert unread == set()


def test_overrides_change_what_they_name_and_nothing_else():
    changed = settings_for("high-reliability", {"membership": {"down": 20}, "upgrade": {"batch": "50 %"}})
    assert (changed.membership.down, changed.membership.suspect) == (20.0, 5.0)
    assert changed.upgrade.batch == "50%"
    assert changed.raft == PRESETS["high-reliability"].settings.raft


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        Settings().raft.heartbeat = 1.0  # type: ignore[misc]


def problems(overrides, preset="balanced"):
    with pytest.raises(ConfigError) as refused:
        settings_for(preset, overrides)
    return {problem.path.removeprefix("settings."): f"{problem.message} ({problem.hint})" for problem in refused.value.problems}


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        ({"membership": {"suspect": 1.0}}, "membership.suspect", "two heartbeats (0.5 s each): one lost packet"),
        ({"membership": {"down": 2.0}}, "membership.down", "must be suspect before it is down (at least 4)"),
        ({"raft": {"election_min": 0.9}}, "raft.election_min", "under 5 Raft heartbeats (0.2 s each)"),
        ({"raft": {"election_min": 0.9}}, "raft.election_min", "at least 1, or raft.heartbeat at most 0.18"),
        ({"raft": {"election_max": 1.0}}, "raft.election_max", "split the vote (about 2)"),
        ({"calls": {"timeout": 2.0}}, "calls.timeout", "every write would fail when a leader dies (at least 4)"),
        ({"health": {"timeout": 11}}, "health.timeout", "checks would pile up (at most 10)"),
        ({"health": {"interval": 31}}, "health.interval", "over half of registry.ttl (60 s)"),
        ({"registry": {"refresh": 31}}, "registry.refresh", "over half the ttl (60 s)"),
        ({"transport": {"reconnect_max": 0.05}}, "transport.reconnect_max", "under reconnect_min"),
        ({"membership": {"heartbeat": 0}}, "membership.heartbeat", "must be above 0, not 0"),
        ({"membership": {"heartbeat": -1}}, "membership.heartbeat", "must be above 0, not -1"),
        ({"membership": {"heartbeat": "1s"}}, "membership.heartbeat", "must be a number, not '1s'"),
        ({"membership": {"heartbeat": True}}, "membership.heartbeat", "must be a number, not true"),
        ({"membership": {"heartbeat": float("inf")}}, "membership.heartbeat", "must be"),
        ({"membership": {"heartbeat": float("nan")}}, "membership.heartbeat", "must be"),
        ({"membership": {"heartbeat": None}}, "membership.heartbeat", "must be a number, not empty"),
        ({"membership": {"heart_beat": 1}}, "membership.heart_beat", "unknown key (did you mean heartbeat?)"),
        ({"membership": []}, "membership", "must be a mapping, not a list (keys: heartbeat, suspect, down)"),
        ({"membrship": {}}, "membrship", "unknown key (did you mean membership?)"),
        ({"zzz": {}}, "zzz", "unknown key (allowed: initialization_timeout"),
        ({"calls": {"retries": 1.5}}, "calls.retries", "must be a whole number, not the number 1.5"),
        ({"calls": {"retries": -1}}, "calls.retries", "must be at least 0, not -1"),
        ({"transport": {"port": 65536}}, "transport.port", "must be at most 65535, not 65536"),
        ({"security": {"mode": "audt"}}, "security.mode", "one of off, audit, enforce, not 'audt' (did you mean audit?)"),
        ({"security": {"mode": False}}, "security.mode", "not false"),
        ({"network": {"cidr": "10.210.0.1/16"}}, "network.cidr", "without host bits, such as 10.77.0.0/16"),
        ({"network": {"cidr": "fd00::/48"}}, "network.cidr", "must be an IPv4 network"),
        ({"network": {"cidr": "127.0.0.0/8"}}, "network.cidr", "no host can have an address"),
        ({"network": {"cidr": "0.0.0.0/0"}}, "network.cidr", "no host can have an address"),
        ({"network": {"cidr": "240.0.0.0/8"}}, "network.cidr", "no host can have an address"),
        ({"network": {"subnet_prefix": 29}}, "network.subnet_prefix", "must be at most 28"),
        (
            {"network": {"cidr": "10.77.0.0/25"}},
            "network.subnet_prefix",
            "a /24 for each node does not fit into 10.77.0.0/25 (28 leaves room",
        ),
        ({"network": {"cidr": "10.77.0.0/30"}}, "network.subnet_prefix", "28 at most, and a larger network.cidr"),
        ({"fencing": {"lease": 2.5}, "raft": {"election_max": 3}}, "fencing.lease", "does not outlast an election"),
        ({"fencing": {"after": 9.0}}, "fencing.after", "is not beyond the lease"),
        ({"network": {"vxlan_port": 7443}}, "network.vxlan_port", "is transport.port"),
        ({"network": {"mode": False}}, "network.mode", "not false"),
        ({"network": {"encapsulation": "ipip"}}, "network.encapsulation", "one of auto, plain, vxlan"),
        ({"upgrade": {"batch": 0}}, "upgrade.batch", "must be all, a number"),
        ({"upgrade": {"batch": "101%"}}, "upgrade.batch", "must be all, a number"),
        ({"upgrade": {"batch": 1.5}}, "upgrade.batch", "must be all, a number"),
        ({"upgrade": {"batch": True}}, "upgrade.batch", "must be all, a number"),
        ({"upgrade": {"batch": [1]}}, "upgrade.batch", "must be all, a number"),
    ],
)
def test_what_cannot_work_is_refused_with_why_and_what_would(overrides, path, words):
    found = problems(overrides)
    assert words in found[path]


def test_every_mistake_is_found_at_once():
    found = problems({"membership": {"hartbeat": 1, "down": 1}, "raft": {"heartbeat": 3}, "calls": None})
    assert list(found) == ["membership.hartbeat", "calls", "membership.down", "raft.election_min"]


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match=r"no preset is called 'balancd' \(did you mean balanced\?\)"):
        settings_for("balancd")


@pytest.mark.parametrize(
    ("batch", "workers", "at_once"),
    [("all", 7, 7), ("all", 0, 1), (1, 7, 1), (10, 7, 7), ("25%", 40, 10), ("25%", 3, 1), ("100%", 7, 7), ("25%", 0, 1)],
)
def test_how_many_workers_are_upgraded_at_once(batch, workers, at_once):
    assert Upgrade(batch=batch).workers_at_once(workers) == at_once


@pytest.mark.parametrize(
    ("preset", "hosts", "control"),
    [
        *(("balanced", 0, 1), ("balanced", 1, 1), ("balanced", 2, 1), ("balanced", 3, 3), ("balanced", 9, 3)),
        *(("development", 2, 1), ("development", 4, 3)),
        *(("high-reliability", 4, 3), ("high-reliability", 5, 5), ("high-reliability", 9, 5)),
    ],
)
def test_how_many_control_nodes_there_are_by_default(preset, hosts, control):
    assert default_control_nodes(preset, hosts) == control


SECONDS = st.floats(min_value=0.01, max_value=100)


@given(SECONDS, SECONDS, SECONDS, SECONDS, SECONDS)
def test_what_passes_keeps_the_promises_that_the_agent_relies_on(heartbeat, suspect, down, election, longest):
    overrides = {
        "membership": {"heartbeat": heartbeat, "suspect": suspect, "down": down},
        "raft": {"heartbeat": 0.01, "election_min": election, "election_max": longest},
        "calls": {"timeout": 1000},
    }
    try:
        settings = settings_for("balanced", overrides)
    except ConfigError as error:
        assert {problem.path.split(".")[1] for problem in error.problems} <= {"membership", "raft", "fencing"}  # noqa: PT017  either may happen
    else:
        assert 2 * settings.membership.heartbeat < settings.membership.suspect < settings.membership.down
        assert 5 * settings.raft.heartbeat <= settings.raft.election_min < settings.raft.election_max < settings.calls.timeout
        assert 1.25 * settings.raft.election_max <= settings.fencing.lease < 1.02 * (settings.fencing.lease + 0.9) < settings.fencing.after
