"""What generations changed, in few words."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from hmcore.apps.calls import AppsReply
from hmcore.apps.records import App, Generation
from hmcore.apps.spec import AppSpec, ContainerSpec, Port, Resources, ServiceSpec, Update, Volume, spec_digest
from hmctl.actions.apps.history import MOST_SAID, changed, changed_words, history
from hmctl.actions.apps.view import Seen

WEB = ServiceSpec(container=ContainerSpec(image="web:1", environment={"TOKEN": "hunter2", "MODE": "slow"}), replicas=3)


def app(web: ServiceSpec | None = WEB, **more: Any) -> AppSpec:
    services = {"db": ServiceSpec(container=ContainerSpec(image="db:1"))}
    return AppSpec(services=services if web is None else services | {"web": web}, **more)


def web(**container: Any) -> ServiceSpec:
    return replace(WEB, container=replace(WEB.container, **container))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (app(), app(), "nothing"),
        (app(), app(replace(web(image="web:2"), replicas=5)), "web: image, replicas 3 -> 5"),
        (app(web(image_id="sha256:1")), app(web(image_id="sha256:2")), "web: image"),
        (app(), app(None), "web: removed"),
        (app(None), app(), "web: created"),
        (app(), app(web(environment={"TOKEN": "hunter3", "MODE": "slow"})), "web: environment.TOKEN"),
        (app(), app(web(environment={"TOKEN": "hunter2", "MODE": "fast"})), "web: environment.MODE"),
        (app(), app(web(limits=Resources(memory=1 << 30))), "web: limits.memory nothing -> 1g"),
        (app(), app(web(read_only=True)), "web: read_only false -> true"),
        (app(), app(replace(WEB, update=Update(parallelism=2))), "web: update.parallelism 1 -> 2"),
        (app(), app(replace(WEB, ports=(Port(target=80, published=80), Port(target=81, published=81)))), "web: ports"),
        (app(), app(volumes={"data": Volume(name="data")}), "volumes"),
    ],
)
def test_what_changed_is_said_in_few_words(old: AppSpec, new: AppSpec, said: str) -> None:
    assert changed_words(changed(old, new)) == said


def test_much_that_changed_is_counted_in_words_and_whole_as_data() -> None:
    found = changed(app(), app(web(environment={f"V{number}": "x" for number in range(9)})))
    assert len(found["web"]) == 11
    assert changed_words(found).endswith(f", and {11 - MOST_SAID} more")
    assert len(changed_words(found).split(", ")) == MOST_SAID + 1


def test_each_is_compared_with_the_one_before_it_that_is_kept() -> None:
    specs = {1: app(), 4: app(replace(WEB, replicas=5)), 5: app(replace(WEB, replicas=4))}
    made = [Generation(app="shop", number=number, spec=spec, digest=spec_digest(spec)) for number, spec in specs.items()]
    seen = Seen("node1", True, AppsReply(index=9, apps=[App(name="shop", generation=5)], generations=made[::-1]))
    found = history(seen, seen.app("shop"))
    assert [(each.number, changed_words(each.changed)) for each in found.generations] == [
        (1, "-"),
        (4, "web: replicas 3 -> 5"),
        (5, "web: replicas 5 -> 4"),
    ]
