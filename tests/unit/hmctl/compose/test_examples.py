"""The apps of examples/ are what they say they are: they load and convert without a word of warning, and fit on three nodes together."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hmcore.apps.spec import AppSpec
from hmctl.compose.app import App, app_of
from hmctl.compose.contents import contents_of

ROOT = Path(__file__).parents[4]
EXAMPLES = ROOT / "examples"
FILES = sorted(EXAMPLES.glob("*/compose.yaml"))


def app(name: str, **environment: str) -> App:
    return app_of((EXAMPLES / name / "compose.yaml",), environment=environment)


def spec(name: str) -> AppSpec:
    return app(name).converted.spec


def test_all_are_looked_at() -> None:
    assert [path.parent.name for path in FILES] == ["agent", "visitors", "web"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_it_is_read_without_a_warning_and_all_that_it_names_is_there(path: Path) -> None:
    found = app(path.parent.name)
    assert found.name == path.parent.name
    assert found.converted.warnings == ()
    assert found.converted.builds == {}
    assert {each.container.image for each in found.converted.spec.services.values()} == {"busybox"}
    contents = contents_of(found.project, found.converted.contents)
    assert contents.keys() == found.converted.contents.keys()
    assert {config for kind, config in contents if kind == "config"} == set(found.converted.spec.configs)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_its_comments_name_itself_and_the_ports_that_it_has(path: Path) -> None:
    text, ports = path.read_text(), {port.published for each in spec(path.parent.name).services.values() for port in each.ports}
    assert f"hmctl app deploy -f examples/{path.parent.name}/compose.yaml" in text
    named = {int(port) for port in re.findall(r"curl http://\S+?:(\d+)/", text)}
    assert named == (ports or {9101})


@pytest.mark.parametrize("script", sorted(EXAMPLES.rglob("*.sh")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_its_scripts_are_scripts(script: Path) -> None:
    done = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_two_publish_the_same_port() -> None:
    published = [port.published for path in FILES for each in spec(path.parent.name).services.values() for port in each.ports]
    assert len(published) == len(set(published)) == 2


def test_the_web_service_keeps_nothing_and_is_replaced_gently() -> None:
    web = spec("web").services["web"]
    assert (web.mode, web.replicas, web.update.order, web.update.failure_action) == ("replicated", 3, "start-first", "rollback")
    assert not any(mount.kind == "volume" for mount in web.container.mounts)
    greeted = app("web", GREETING="Servus", IMAGE="shop/web:2").converted.spec.services["web"].container
    assert (greeted.environment["GREETING"], greeted.image) == ("Servus", "shop/web:2")


def test_the_database_has_a_volume_and_a_secret_of_the_cluster_and_is_not_published() -> None:
    found = spec("visitors")
    database = found.services["db"]
    assert database.ports == ()
    assert [mount.source for mount in database.container.mounts] == ["data"]
    assert database.update.order == "stop-first"
    assert {name: source.name for name, source in found.secrets.items()} == {"db-password": "visitors-db"}
    assert found.services["web"].depends_on["db"].condition == "healthy"


def test_the_agent_is_on_every_node() -> None:
    agent = spec("agent").services["agent"]
    assert (agent.mode, agent.container.network_mode) == ("global", "host")


def test_what_the_demo_runs_is_there() -> None:
    demo = (ROOT / "tools" / "demo.sh").read_text()
    assert set(re.findall(r"examples/\S+?\.(?:sh|yaml)", demo)) == {"examples/image.sh", "examples/web/compose.yaml"}
    assert ":8080/" in demo
