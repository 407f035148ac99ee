"""What a name means when an app is deployed: the cluster's image, a registry's, or the one that is here."""

from __future__ import annotations

import threading

import pytest
from msgspec.structs import replace

from hmcore.apps.records import Image, ImageLayer
from hmcore.apps.secrets import Credentials
from hmcore.errors import HyperMeshError, ImageUnavailable, LayerDown, RegistryDenied, RegistrySilent, SecretsLocked
from hmcore.images.calls import Pinned
from hmcore.images.pinning import known
from node_agent.container.local_images import LocalImage
from node_agent.container.pinning import Pinning

ID, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
IMAGE = Image(name="web:1", id=ID, layers=(ImageLayer(digest=OTHER, diff_id=OTHER, size=1),))


class Docker:
    def __init__(self, *, here: str = "", manifest: str = "", error: HyperMeshError | None = None) -> None:
        self.here = here
        self.answer = manifest
        self.error = error
        self.asked: list[tuple[str, str, object]] = []
        self.found: list[str] = []
        self.hold: threading.Event | None = None

    def find(self, name: str) -> LocalImage | None:
        self.found.append(name)
        return LocalImage(self.here) if self.here else None

    def manifest(self, repository: str, tag: str, credentials: tuple[str, str] | None) -> str:
        self.asked.append((repository, tag, credentials))
        if self.hold is not None:
            self.hold.wait(20)
        if self.error is not None:
            raise self.error
        return self.answer


async def credentials(host: str) -> Credentials | None:
    return Credentials("anna", "secret") if host == "example.org" else None


def pinning(docker: Docker | None, timeout: float = 5.0) -> Pinning:
    return Pinning(
        record=lambda image: known({"web:1": IMAGE}, image),
        docker=lambda: docker,
        registries=credentials,
        timeout=timeout,
    )


@pytest.mark.parametrize("name", ["web:1", "docker.io/library/web:1", ID])
async def test_the_clusters_own_comes_first(name: str) -> None:
    docker = Docker(here=OTHER, manifest=OTHER)
    assert await pinning(docker).pin(name) == Pinned(image=name, id=ID)
    assert (docker.asked, docker.found) == ([], [])


async def test_a_registry_is_asked_once_for_all_nodes() -> None:
    docker = Docker(here=ID, manifest=OTHER)
    assert await pinning(docker).pin("example.org/team/web") == Pinned(image=f"example.org/team/web:latest@{OTHER}")
    assert await pinning(docker).pin("nginx:1.27") == Pinned(image=f"nginx:1.27@{OTHER}")
    assert docker.asked == [("example.org/team/web", "latest", ("anna", "secret")), ("nginx", "1.27", None)]
    assert await pinning(docker).pin(f"nginx:1.27@{ID}") == Pinned(image=f"nginx:1.27@{ID}")
    assert await pinning(docker).pin(OTHER) == Pinned(image=OTHER, id=OTHER)
    assert len(docker.asked) == 2


async def test_what_no_registry_has_may_be_here() -> None:
    docker = Docker(here=OTHER, error=ImageUnavailable("Docker refuses: pull access denied"))
    assert await pinning(docker).pin("nginx") == Pinned(image="nginx", id=OTHER)
    assert docker.found == ["nginx:latest"]


async def test_always_is_the_registrys_and_no_other() -> None:
    docker = Docker(here=ID, manifest=OTHER)
    assert await pinning(docker).pin("web:1", "always") == Pinned(image=f"web:1@{OTHER}")
    docker = Docker(here=OTHER, error=ImageUnavailable("Docker refuses: pull access denied"))
    with pytest.raises(ImageUnavailable, match=r"always takes no other: .*access denied") as error:
        await pinning(docker).pin("web:1", "always")
    assert str(error.value.fix).startswith("without pull_policy: always the cluster's own is taken: hmctl image push web:1")
    assert docker.found == []


async def test_never_is_any_but_the_registrys() -> None:
    docker = Docker(here=OTHER, manifest=OTHER)
    assert await pinning(docker).pin("web:1", "never") == Pinned(image="web:1", id=ID)
    assert await pinning(docker).pin("nginx", "never") == Pinned(image="nginx", id=OTHER)
    assert await pinning(docker).pin(f"nginx:1@{ID}", "never") == Pinned(image=f"nginx:1@{ID}", id=OTHER)
    assert docker.found == ["nginx:latest", f"nginx@{ID}"]
    for nowhere in (Docker(manifest=OTHER), None):
        with pytest.raises(ImageUnavailable, match="pull_policy: never asks nobody else"):
            await pinning(nowhere).pin("nginx", "never")
    assert docker.asked == []


async def test_missing_is_what_the_app_had_unless_the_cluster_has_its_own() -> None:
    docker, had = Docker(manifest=OTHER), Pinned(image=f"nginx:latest@{ID}")
    assert await pinning(docker).pin("nginx", "missing", had) == had
    assert docker.asked == []
    assert await pinning(docker).pin("web:1", "missing", had) == Pinned(image="web:1", id=ID)
    assert await pinning(docker).pin("nginx", "missing") == Pinned(image=f"nginx:latest@{OTHER}")
    assert await pinning(docker).pin("nginx", "", had) == Pinned(image=f"nginx:latest@{OTHER}")


async def test_what_nobody_has_says_why_and_what_helps() -> None:
    docker = Docker(error=ImageUnavailable("Docker refuses: pull access denied"))
    with pytest.raises(ImageUnavailable, match=r"no image nginx:latest.*access denied") as error:
        await pinning(docker).pin("nginx")
    assert error.value.fix == "hmctl image push nginx:latest, from where Docker has it"
    with pytest.raises(ImageUnavailable, match="Docker does not answer"):
        await pinning(None).pin("nginx")
    with pytest.raises(ImageUnavailable, match="Docker does not answer"):
        await pinning(Docker(error=LayerDown("Docker does not answer"))).pin("nginx")
    with pytest.raises(ImageUnavailable, match="no name"):
        await pinning(docker).pin("No Name")


@pytest.mark.parametrize(
    ("name", "registry", "asked"),
    [
        ("example.org:5000/web:1", "example.org:5000", "asked without credentials"),
        ("example.org/web:1", "example.org", "asked as anna"),
        ("web", "docker.io", "asked without credentials"),
    ],
)
async def test_a_registry_that_does_not_let_in_who_asks_is_told_with_what_helps(name: str, registry: str, asked: str) -> None:
    docker = Docker(error=RegistryDenied("Docker refuses: unauthorized"))
    with pytest.raises(ImageUnavailable, match=f"gives it: Docker refuses: unauthorized; and the registry was {asked}$") as error:
        await pinning(docker).pin(name)
    assert str(error.value.fix).startswith(f"hmctl secret set --registry {registry} --username USER; or hmctl image push {name}")


async def test_a_registry_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    docker = Docker()
    docker.hold = threading.Event()
    with pytest.raises(ImageUnavailable, match=r"docker\.io did not answer"):
        await pinning(docker, 0.05).pin("nginx")
    docker.hold.set()


HAD = Pinned(image=f"nginx:latest@{ID}")


@pytest.mark.parametrize("error", [RegistrySilent("connection refused"), LayerDown("Docker does not answer")])
async def test_while_a_registry_cannot_be_asked_an_app_keeps_what_it_has(error: HyperMeshError) -> None:
    """Not what the leader's Docker happens to have under that name: other bytes, which no other node might have."""
    docker = Docker(here=OTHER, error=error)
    assert await pinning(docker).pin("nginx", "", HAD) == replace(HAD, unasked=error.message)
    assert docker.found == []
    assert await pinning(docker).pin("nginx") == Pinned(image="nginx", id=OTHER), "it has nothing yet"
    assert await pinning(docker).pin("web:1", "", HAD) == Pinned(image="web:1", id=ID), "the cluster's own comes first"
    assert await pinning(docker).pin("nginx", "never", HAD) == Pinned(image="nginx", id=OTHER), "no registry was to be asked"
    with pytest.raises(ImageUnavailable, match=f"always takes no other: {error.message}"):
        await pinning(docker).pin("nginx", "always", HAD)


async def test_an_app_keeps_what_it_has_while_the_leaders_docker_is_away_or_too_slow() -> None:
    assert (await pinning(None).pin("nginx", "", HAD)).unasked == "Docker does not answer here"
    docker = Docker()
    docker.hold = threading.Event()
    kept = await pinning(docker, 0.05).pin("nginx", "", HAD)
    assert kept == replace(HAD, unasked="docker.io did not answer within 0.05 s")
    docker.hold.set()


@pytest.mark.parametrize(
    "no", [ImageUnavailable("Docker refuses: manifest unknown"), RegistryDenied("Docker refuses: unauthorized: authentication required")]
)
async def test_what_a_registry_says_no_to_is_not_kept(no: HyperMeshError) -> None:
    with pytest.raises(ImageUnavailable, match="no registry gives it: Docker refuses"):
        await pinning(Docker(error=no)).pin("nginx", "", HAD)
    assert await pinning(Docker(here=OTHER, error=no)).pin("nginx", "", HAD) == Pinned(image="nginx", id=OTHER)


async def test_that_credentials_could_not_be_had_does_not_make_silence_a_no() -> None:
    async def locked(host: str) -> Credentials | None:
        raise SecretsLocked("no control node opens secrets")

    asked = Pinning(record=lambda image: None, docker=lambda: Docker(error=RegistrySilent("connection refused")), registries=locked)
    why = "connection refused; and the registry was asked without credentials: no control node opens secrets"
    assert await asked.pin("nginx", "", HAD) == replace(HAD, unasked=why)
