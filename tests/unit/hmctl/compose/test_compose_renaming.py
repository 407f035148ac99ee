"""Services with dots in their names, which Compose allows: mapped to dashes, with everything that refers to them."""

import pytest
from composing import converted, project_of, refused_file

from hmcore.apps.spec import Dependency
from hmcore.errors import ConfigError
from hmctl.compose.app import app_of
from hmctl.compose.show import as_file

FILE = """
services:
  my.web:
    image: nginx
    networks: [front, back]
    volumes: [./data:/data]
  my.db: {image: db}
  host.net: {image: h, network_mode: host}
  long: {image: a, depends_on: {my.web: {condition: service_started}}, links: [my.db, "my.web:w"], networks: {front: , default: }}
  short: {image: a, depends_on: [my.db]}
networks: {front: , back: }
"""
SHORT = "the name of a service cannot have dots"


def test_it_is_told_what_to_call_them():
    found = refused_file(FILE)
    hint = "{}, with networks: {{default: {{aliases: [{}]}}}} if others call it {}"
    assert [line for line in found if SHORT in line] == [
        f"compose.yaml:{line}: services.{old}: {SHORT} ({hint.format(old.replace('.', '-'), old, old)})"
        for line, old in ((3, "my.web"), (7, "my.db"), (8, "host.net"))
    ]
    assert len(found) == 4  # what else is wrong with such a service is told with it, where the file has it
    assert found[1].startswith("compose.yaml:6: services.my.web.volumes[0]: a path of this machine")


def test_names_and_who_refers_to_them():
    app = converted(FILE, ignore_unsupported=True)
    services = app.spec.services
    assert list(services) == ["my-web", "my-db", "host-net", "long", "short"]
    assert services["my-web"].container.networks == {"front": ("my.web", "w"), "back": ("my.web",)}
    assert services["my-db"].container.networks == {"default": ("my.db",)}
    assert services["host-net"].container.networks == {}
    assert services["long"].depends_on == {"my-web": Dependency(), "my-db": Dependency(restart=True)}
    assert services["short"].depends_on == {"my-db": Dependency()}
    assert "compose.yaml:3: services.my.web: the name of a service cannot have dots: it is called my-web here, and my.web besides" in [
        str(problem).partition(" (")[0] for problem in app.warnings
    ]


@pytest.mark.parametrize(
    "text",
    [
        "services: {a.b: {image: x}, a-b: {image: x}}",
        "services: {a.b: {image: x}, A-B: {image: x}}",
        "services: {a.b-c: {image: x}, a-b.c: {image: x}}",
        "services: {.a: {image: x}}",
        "services: {a..: {image: x}}",
        "services: {'a.b c': {image: x}}",
    ],
)
def test_one_that_cannot_be_renamed_stays_a_mistake(text):
    assert "cannot be the name of a service" in refused_file(text, ignore_unsupported=True)[0]


@pytest.mark.parametrize("networks", ["5", "[5]", "{default: {aliases: 5}}", "[[a]]"])
def test_other_mistakes_are_told_as_ever(networks):
    plain = refused_file(f"services: {{ab: {{image: x, networks: {networks}}}}}")
    dotted = refused_file(f"services: {{a.b: {{image: x, networks: {networks}}}}}")
    assert [line.replace("a.b", "ab") for line in dotted if SHORT not in line] == plain


def test_paths_of_this_machine_are_still_known_and_the_shown_file_is_the_app(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "compose.yaml").write_text(FILE.replace("./data", "../data"))
    with pytest.raises(ConfigError, match=r"services\.my\.web\.volumes\[0\]: a path of this machine"):
        app_of([folder / "compose.yaml"], environment={})
    app = app_of([folder / "compose.yaml"], environment={}, ignore_unsupported=True)
    (tmp_path / "shown.yaml").write_text(as_file(app.converted.counted))
    assert app_of([tmp_path / "shown.yaml"], environment={}).converted.spec == app.converted.spec


def test_nothing_is_done_where_there_is_no_such_name():
    project = project_of("services: {web: {image: x}}")
    assert converted("services: {web: {image: x}}").counted == project
