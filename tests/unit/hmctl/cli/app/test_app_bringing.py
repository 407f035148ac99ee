"""What hmctl app deploy brings to the cluster before it deploys: images, built or found out, and contents of secrets and configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from app_world import World, service
from docker_archives import Made, layer, oci

from hmcore.apps.records import Image
from hmcore.apps.spec import AppSpec
from hmcore.images.archive import read
from hmcore.images.calls import Pinned
from hmcore.images.names import familiar
from hmctl.actions import images
from hmctl.actions.apps.images import asked
from hmctl.cli import main

SECRETIVE = """\
services: {web: {image: web:1, secrets: [key], configs: [rules]}}
secrets: {key: {file: ./key}}
configs: {rules: {content: "a: 1"}}
"""


def test_contents_are_given_to_the_cluster_once_the_plan_is_agreed_to(
    world: World, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "compose.yaml").write_text(SECRETIVE)
    (folder / "key").write_text("hunter2")
    assert main.run(["app", "deploy"]) == 2  # nobody can say yes
    assert world.contents == {}
    assert main.run(["app", "deploy", "-y"]) == 0
    assert world.contents == {("secret", "shop/key"): b"hunter2", ("config", "shop/rules"): b"a: 1"}
    first = world.state.generations["shop@1"].spec
    assert first.secrets["key"].digest == world.digest(b"hunter2")
    assert main.run(["app", "deploy"]) == 0
    assert "nothing was changed" in capsys.readouterr().out
    (folder / "key").write_text("hunter3")
    assert main.run(["app", "deploy", "-y"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "shop is healthy, as generation 2\n"
    assert "secret key: other content" in captured.err
    assert "hunter" not in captured.err


def test_contents_that_cannot_be_had_are_told_before_anything_is_done(
    world: World, folder: Path, docker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "compose.yaml").write_text(SECRETIVE.replace("image: web:1", "build: ."))
    assert main.run(["app", "deploy", "-y"]) == 2
    assert "key cannot be read: No such file" in capsys.readouterr().err
    assert not (docker / "docker.log").exists()
    (folder / "compose.yaml").write_text("services: {web: {image: w, secrets: [key]}}\nsecrets: {key: {external: true}}\n")
    assert main.run(["app", "deploy", "-y"]) == 2
    assert "the cluster does not have the secret key\n  fix: hmctl secret set key" in capsys.readouterr().err
    assert world.state.apps == {}


def test_what_is_built_is_built_here_pushed_and_then_deployed(
    world: World, folder: Path, docker: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made((layer("base", b"0"), layer("top", b"1")), ("shop-web:latest",))
    (docker / "docker.tar").write_bytes(oci(made))
    (folder / "compose.yaml").write_text("services: {web: {build: {context: ., args: {A: b}}}}\n")
    brought: list[tuple[str, str]] = []

    async def push(archive: Path, *, name: str, **more: Any) -> list[images.Pushed]:
        with archive.open("rb") as file:
            (image,) = read(file)
        brought.append((name, image.id))
        record = Image(name=familiar(name), id=image.id)
        return [images.Pushed(image=record, node="node1", size=2_000_000, sent=1_000_000, was_there=1_000_000)]

    monkeypatch.setattr(images, "push", push)
    assert main.run(["app", "deploy"]) == 2  # nobody can say yes
    assert (brought, world.images) == ([], {})
    assert main.run(["app", "deploy", "-y"]) == 0
    captured = capsys.readouterr()
    assert "web: built shop-web" in captured.err
    assert "shop-web: pushed, 1.0 MB sent" in captured.err
    assert brought == [("shop-web", made.id)]
    assert world.images == {"shop-web:latest": made.id}
    assert world.state.generations["shop@1"].spec.services["web"].container.image_id == made.id
    asked = (docker / "docker.log").read_text().splitlines()
    assert asked[0] == f"build --tag shop-web --file {folder}/Dockerfile --build-arg A=b {folder}"
    assert main.run(["app", "deploy", "-y"]) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert len(brought) == 1


def test_a_build_that_fails_says_what_docker_said_and_changes_nothing(
    world: World, folder: Path, docker: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "compose.yaml").write_text("services: {web: {build: .}}\n")
    (docker / "broken").touch()
    assert main.run(["app", "deploy", "-y"]) == 1
    said = capsys.readouterr().err
    assert "error: docker build of shop-web failed:" in said
    assert "no space left on device" in said
    monkeypatch.setenv("PATH", "/nowhere")
    assert main.run(["app", "deploy", "-y"]) == 1
    said = capsys.readouterr().err
    assert "there is no docker command here" in said
    assert "hmctl image push" in said
    assert world.state.apps == {}


def test_what_an_image_is_is_found_out_once_and_another_one_is_another_deployment(
    world: World, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.images = {"web:1": f"sha256:{'a' * 64}", "db:1": f"sha256:{'b' * 64}"}
    assert main.run(["app", "deploy", "-y"]) == 0
    assert world.state.generations["shop@1"].spec.services["web"].container.image_id == f"sha256:{'a' * 64}"
    assert main.run(["app", "deploy", "-y"]) == 0
    assert "nothing was changed" in capsys.readouterr().out
    world.images["web:1"] = f"sha256:{'c' * 64}"
    assert main.run(["app", "deploy", "-y"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "shop is healthy, as generation 2\n"
    assert "web:1 is another one now (aaaaaaaaaaaa -> cccccccccccc)" in captured.err


def test_an_image_that_nobody_has_is_told_with_the_services_that_want_it(
    world: World, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.gone = {"web:1"}
    assert main.run(["app", "deploy", "-y"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: web:1 of web: no registry gives it",
        "  fix: look elsewhere",
    ]
    assert world.state.apps == {}


def test_images_are_looked_for_as_the_file_says(world: World, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    id, other = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
    world.images = {"web:1": id}
    (folder / "compose.yaml").write_text(f"""
services:
  plain: {{image: "web:1"}}
  kept: {{image: "web:1", pull_policy: missing}}
  fresh: {{image: "db:1", pull_policy: always}}
  own: {{image: "db:1@{other}", pull_policy: never}}
""")
    assert main.run(["app", "deploy", "-y"]) == 0
    asked = {each.pull: each for each in world.resolved}
    assert {pull: each.names for pull, each in asked.items()} == {
        "": ("web:1",),
        "missing": ("web:1",),
        "always": ("db:1",),
        "never": (f"db:1@{other}",),
    }
    assert asked["missing"].had == {}
    assert main.run(["app", "deploy", "-y"]) == 0
    assert {each.pull: each for each in world.resolved}["missing"].had == {"web:1": Pinned(image="web:1", id=id)}
    assert "nothing was changed" in capsys.readouterr().out
    world.gone = {"db:1"}
    assert main.run(["app", "deploy", "-y"]) == 1
    assert "error: db:1 of fresh: no registry gives it" in capsys.readouterr().err


def test_while_a_registry_gives_no_answer_an_app_can_be_changed_and_keeps_its_images(
    world: World, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = f"sha256:{'a' * 64}"
    world.registry = {"example.org/web:1": digest}
    file = "services: {web: {image: 'example.org/web:1', deploy: {replicas: %d}}}\n"
    (folder / "compose.yaml").write_text(file % 2)
    assert main.run(["app", "deploy", "-y"]) == 0
    assert "could not be asked" not in capsys.readouterr().err
    world.silent = {"example.org/web:1": "connection refused"}
    (folder / "compose.yaml").write_text(file % 3)
    assert main.run(["app", "deploy", "-y"]) == 0
    said = capsys.readouterr().err
    kept = f"warning: example.org could not be asked: example.org/web:1 stays as it is, {digest} (connection refused)"
    assert said.index(kept) < said.index("replicas: 2 -> 3"), "known before the plan is agreed to"
    assert "image" not in said.replace(kept, "").partition("replicas: 2 -> 3")[2]
    (web,) = world.state.generations["shop@2"].spec.services.values()
    assert (web.container.image, web.container.image_id, web.replicas) == (f"example.org/web:1@{digest}", "", 3)
    (folder / "compose.yaml").write_text("services: {web: {image: 'example.org/web:1', pull_policy: always}}\n")
    assert main.run(["app", "deploy", "-y"]) == 1
    assert "error: example.org/web:1 of web: no registry gives it" in capsys.readouterr().err


def test_what_an_app_has_is_told_by_the_services_that_ask() -> None:
    """One kept its image by `missing`, another got it anew."""
    old, new = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
    present = shop_of(kept=f"web:1@{old}", plain=f"web:1@{new}")
    for name, pull, digest in (("plain", "", new), ("kept", "missing", old), ("third", "", old)):
        request = asked(shop_of(**{name: "web:1"}), pull, present)
        assert request is not None
        assert request.had == {"web:1": Pinned(image=f"web:1@{digest}")}
    for pull in ("always", "never"):
        request = asked(shop_of(plain="web:1"), pull, present)
        assert request is not None
        assert request.had == {}


def shop_of(**images: str) -> AppSpec:
    return AppSpec(services={name: service(image, 1) for name, image in images.items()})


def test_agents_that_cannot_say_what_an_image_is_do_not_keep_anybody_from_deploying(
    world: World, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.is_old = True
    assert main.run(["app", "deploy", "-y"]) == 0
    assert "warning: what images are is not found out once" in capsys.readouterr().err
    assert world.state.generations["shop@1"].spec.services["web"].container.image_id == ""
