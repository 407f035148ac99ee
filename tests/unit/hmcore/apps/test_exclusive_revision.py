"""A service that becomes exclusive needs other containers: the fence knows only those that were made for it."""

from __future__ import annotations

from msgspec.structs import replace

from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec, revision

DB = ServiceSpec(container=ContainerSpec(image="db:1"))


def test_exclusive_is_part_of_the_revision_where_it_is_set() -> None:
    plain, fenced = (revision(AppSpec(services={"db": service}), "db") for service in (DB, replace(DB, exclusive=True)))
    assert plain != fenced
    assert plain == "00a28f2d85245bdb"  # as it always was: nothing that runs is replaced for this
