"""Names in specs, and what becomes of them."""

from __future__ import annotations

from hmcore.apps.records import Image
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
from hmcore.images.calls import Pinned
from hmcore.images.pinning import had, known, open_names, pinned

ID, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def spec(**images: tuple[str, str]) -> AppSpec:
    return AppSpec(services={name: ServiceSpec(container=ContainerSpec(image=image, image_id=id)) for name, (image, id) in images.items()})


def test_names_are_asked_for_once_and_only_where_they_are_open() -> None:
    made = spec(a=("web:1", ""), b=("web:1", ""), c=("nginx", ""), d=("db:1", ID), e=(f"nginx@{ID}", ""))
    assert open_names(made) == ("nginx", "web:1")
    assert open_names(made, digests=True) == ("nginx", f"nginx@{ID}", "web:1")


def test_what_a_name_was_found_to_be() -> None:
    made = spec(a=("nginx", ""), b=(f"nginx:latest@{OTHER}", ""), c=(ID, ID), d=("web:1", ID))
    assert had(made, "docker.io/library/nginx") == Pinned(image=f"nginx:latest@{OTHER}")
    assert had(made, "web:1") == Pinned(image="web:1", id=ID)
    assert [had(made, name) for name in ("nginx:1", "web", "x", "No Name", ID)] == [None] * 5
    made = spec(a=(f"nginx:1@{ID}", ""), b=(f"nginx:1@{OTHER}", ""), c=("nginx:1", ID))
    assert had(made, "nginx:1") == had(made, "nginx:1", ["x", "a"]) == Pinned(image=f"nginx:1@{ID}")
    assert had(made, "nginx:1", ["b"]) == Pinned(image=f"nginx:1@{OTHER}"), "each service by its own word first"
    assert had(made, "nginx:1", ["c", "x"]) == Pinned(image="nginx:1", id=ID)


def test_a_spec_is_pinned() -> None:
    made = spec(a=("web:1", ""), b=("nginx", ""), c=("db:1", ""), d=("web:1", OTHER))
    found = {"web:1": Pinned(image="web:1", id=ID), "nginx": Pinned(image=f"nginx:latest@{OTHER}")}
    assert pinned(made, found) == spec(a=("web:1", ID), b=(f"nginx:latest@{OTHER}", ""), c=("db:1", ""), d=("web:1", OTHER))
    assert open_names(pinned(made, found)) == ("db:1",)
    assert pinned(pinned(made, found), found) == pinned(made, found)


def test_an_image_is_known_by_any_way_to_write_its_name_and_by_its_id() -> None:
    image, former = Image(name="web:latest", id=ID), Image(name="", id=OTHER)
    table = {each.key: each for each in (image, former)}
    for said in ("web", "docker.io/library/web", "index.docker.io/web:latest", ID):
        assert known(table, said) == image
    assert known(table, OTHER) == former
    for said in ("web:1", "example.org/web", "No Name", "", OTHER[:-1] + "c"):
        assert known(table, said) is None
