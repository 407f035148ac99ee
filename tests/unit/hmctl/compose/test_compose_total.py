"""Whatever the files hold: a project, or a ConfigError that says where. Nothing else, and soon."""

import contextlib
import re
import time
from pathlib import Path

import pytest
from compose_services import SERVICE
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hmcore.config import yaml_writing
from hmcore.errors import ConfigError
from hmctl.compose import assembly, dotenv, extends, interpolation
from hmctl.compose.load import load
from hmctl.compose.project import Project
from hmctl.compose.substitution import MAX_LENGTH, Malformed, substitute
from hmctl.compose.trouble import Trouble

FOLDER = "/home/me/shop"
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be
ENVIRONMENT = {"HOME": "/home/me", "A": "value", "EMPTY": "", "TRUE": "true", "N": "3", "NOT": "s3cr3t"}


def loaded(*files, more=(), profiles=()):
    """`files`: texts or bytes, the later over the earlier ones. `more`: others, by name."""
    held = {f"{FOLDER}/{index}.yaml": text for index, text in enumerate(files)} | {
        f"{FOLDER}/{name}": text for name, text in dict(more).items()
    }

    def read(path):
        if str(path) not in held:
            raise FileNotFoundError(2, "No such file or directory")
        return held[str(path)] if isinstance(held[str(path)], bytes) else held[str(path)].encode(errors="surrogatepass")

    paths = [Path(f"{FOLDER}/{index}.yaml") for index in range(len(files))]
    return load(paths, name="shop", env_files=[], environment=ENVIRONMENT, profiles=profiles, read=read), held


def any_files(*files, **options):
    """None, if they are refused."""
    try:
        project, held = loaded(*files, **options)
    except ConfigError as error:
        refused_well(error)
        return None
    assert isinstance(project, Project)
    assert all(problem.warning and problem.line for problem in project.warnings)
    assert all(place.file in held and 1 <= place.line <= str(held[place.file]).count("\n") + 2 for place in project.places.values())
    every_part_has_a_place(project, project.value, ())
    return project


def refused_well(error):
    assert any(not problem.warning for problem in error.problems)
    assert all(problem.file.startswith(FOLDER) and problem.line for problem in error.problems)


def every_part_has_a_place(project, value, path):
    assert path in project.places
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        every_part_has_a_place(project, child, (*path, key))


TEXTS = st.text(alphabet=list("ab1$${}:-+?._ \n\\'\"=#/~é"), max_size=24)
VALUES = st.dictionaries(st.sampled_from(["a", "b", "a1", "_"]), TEXTS)


@given(TEXTS, VALUES)
@example("${a:-" * 33 + "}" * 33, {})
@example("${a", {})
@example("$", {})
def test_any_text_is_substituted_or_malformed(text, values):
    try:
        outcome = substitute(text, values.get)
    except Malformed:
        assert "$" in text
        return
    assert isinstance(outcome.text, str)
    assert set(outcome.unset).isdisjoint(values)
    assert outcome.used or outcome.text == substitute(text, {}.get).text


@given(st.text(max_size=30))
def test_a_text_is_kept_by_doubling_its_dollars(text):
    assert substitute(text.replace("$", "$$"), {}.get).text == text


@pytest.mark.long
@pytest.mark.parametrize(
    "text", ["${a:-" * 100_000, "${a:-" * 100_000 + "}" * 100_000, "$" * 300_000, "${" * 100_000, "${a}" * 100_000, "{}" * 100_000]
)
def test_long_texts_are_done_soon(text):
    began = time.process_time()
    with contextlib.suppress(Malformed):
        assert len(substitute(text, {"a": "x" * 50}.get).text) <= MAX_LENGTH
    assert time.process_time() - began < 3


@given(TEXTS | st.text(max_size=20), st.booleans())
def test_any_file_of_variables_has_values_or_a_mistake_with_its_line(text, raw):
    trouble = Trouble()
    known = dotenv.Variables({"a": "outside"}.get)
    (dotenv.read_raw if raw else dotenv.read)(text, "x.env", known, trouble)
    assert all(isinstance(value, str) and name for name, value in known.values.items())
    assert set(known.places) == set(known.values)
    for place in (*known.places.values(), *trouble.all()):
        assert place.file == "x.env"
        assert 1 <= place.line <= text.count("\n") + 1


WORDS = """services networks volumes secrets configs include name version x-a web db image build environment env_file labels ports
    depends_on extends deploy replicas healthcheck test profiles command ulimits ipam config subnet logging driver file service path
    required external condition <<"""
TELLING = "web db 80 a=b ./x ~/y $A ${A ${B:?need} ${EMPTY:+x} $$ 0.yaml 1.yaml 2.yaml x.env true no *"
KEYS = st.sampled_from(WORDS.split())
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.sampled_from(TELLING.split()), TEXTS)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12)


def files_of(trees, tags):
    """As text; with tags where a number says so."""
    texts = []
    for tree in trees:
        lines = yaml_writing.dump(tree).split("\n")
        for position, tag in tags:
            spot = position % len(lines)
            lines[spot] = re.sub(r"^( *[\w<.-]+:)( |$)", rf"\1 {tag}\2", lines[spot])
        texts.append("\n".join(lines))
    return texts


TAGS = st.lists(st.tuples(st.integers(0, 99), st.sampled_from(["!reset", "!override", "!other"])), max_size=3)


@BUSY
@given(st.lists(TREES, min_size=1, max_size=3), TAGS, TEXTS)
def test_any_trees_are_a_project_or_a_config_error(trees, tags, variables):
    any_files(*files_of(trees, tags), more={"x.env": variables, ".env": variables})


def service(inner):
    return st.dictionaries(KEYS, inner, max_size=5)


FILES = st.fixed_dictionaries(
    {"services": st.dictionaries(st.sampled_from(["web", "db"]), st.builds(lambda given, odd: {**given, **odd}, SERVICE, service(TREES)))},
    optional={
        "include": st.lists(st.sampled_from(["0.yaml", "1.yaml", "x.env", {"path": ["1.yaml", "2.yaml"]}]), max_size=2),
        "volumes": TREES,
        "networks": st.dictionaries(KEYS, st.dictionaries(KEYS, TREES)),
    },
)


@pytest.mark.long
@settings(BUSY, max_examples=50)
@given(st.lists(FILES, min_size=1, max_size=3), TAGS, st.sampled_from([(), ("*",), ("web",)]))
def test_any_services_are_a_project_or_a_config_error(trees, tags, profiles):
    any_files(*files_of(trees, tags), profiles=profiles)


@pytest.mark.long
@BUSY
@given(st.lists(SERVICE, min_size=1, max_size=3))
def test_good_services_are_read_again_as_themselves(services):
    """What was resolved is resolved: once more, it is the same."""
    rest = {"secrets": {"s": {"file": "/s"}, "t": {"file": "/t"}}}
    project = any_files(
        yaml_writing.dump({"services": {f"s{n}": {"image": "i", **one, "depends_on": []} for n, one in enumerate(services)}, **rest})
    )
    assert project is not None
    again = any_files(yaml_writing.dump(project.value))
    assert again is not None
    assert again.value == project.value


@pytest.mark.parametrize(
    "part",
    [
        "services: ${NOT}",
        "services: {a: '${NOT}'}",
        "services: {a: {image: i, environment: '${NOT}'}}",
        "services: {a: {image: i, ports: 'x${NOT}'}}",
        "services: {a: {image: i, init: '${NOT}'}}",
        "services: {a: {image: i, deploy: {replicas: '${NOT}'}}}",
        "services: {a: {image: i, networks: {n: '${NOT:-x}'}}}",
        "${NOT}",
    ],
)
def test_what_a_variable_holds_is_not_shown_where_something_else_is_wanted(part):
    with pytest.raises(ConfigError, match="the text from the environment") as caught:
        loaded(part)
    assert "s3cr3t" not in str(caught.value)


@given(st.binary(max_size=60))
@example(b"\xff\xfe")
@example(b"services: {a: {image: '\\ud800'}}")
@example(b"services:\n\ta: 1")
def test_any_bytes_are_a_project_or_a_config_error(content):
    any_files(content)
    any_files("services: {a: {image: i, env_file: x.env}}", more={"x.env": content, ".env": content})


CHAIN = "".join(f"  s{n}: {{image: i, extends: s{n + 1}}}\n" for n in range(80))
DEEP = {f"f{n}": f"include: [f{n + 1}]\n" for n in range(30)}
ONE = "services: {a: {image: i}}\n"


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        (f"include: [b]\n{ONE}", {"b": "include: [c]\n", "c": "include: [b]\n"}, "include each other"),
        (f"include: [{'b, ' * 600}]\n", {"b": ONE}, "more than 500 files"),
        ("include: [f0]\n", DEEP, "more than 20 files"),
        (f"services:\n{CHAIN}  s80: {{image: i}}\n", {}, "more than 50 services"),
        (f"services: {{a: {{image: i, command: '{'${A}' * 300_000}'}}}}", {}, "longer than"),
    ],
    ids=["a circle", "many files", "deep", "a chain", "long"],
)
def test_what_is_too_much_is_refused_soon(text, more, words):
    began = time.process_time()
    with pytest.raises(ConfigError, match=words):
        loaded(text, more=more)
    assert time.process_time() - began < 20


TWICE = "services: {a: {image: i}, b: {extends: a}, c: {extends: a}, d: {extends: a}}"


@pytest.mark.parametrize(
    ("limit", "text", "more", "words"),
    [
        ((interpolation, "MAX_TOTAL", 9), "services: {a: {image: '${A}', hostname: '${A}'}}", {}, "too much text"),
        ((dotenv, "MAX_TOTAL", 9), ONE, {".env": "X=value\nY=value\n"}, "too much text"),
        ((extends, "MAX_PARTS", 4), TWICE, {}, "more than 4 parts once they are extended"),
        ((assembly, "MAX_PARTS", 9), "include: [b]\n", {"b": TWICE}, "more than 9 parts with what is included"),
    ],
    ids=["variables", "files of variables", "extends", "include"],
)
def test_each_limit_is_one(monkeypatch, limit, text, more, words):
    """With the usual limits it would take files that nobody wants to wait for."""
    assert any_files(text, more=more)
    monkeypatch.setattr(*limit)
    with pytest.raises(ConfigError, match=words):
        loaded(text, more=more)


def test_what_is_included_often_counts_as_often(monkeypatch):
    large = "services:\n" + "".join(f"  s{n}: {{image: i}}\n" for n in range(100))  # 202 parts
    assert any_files("include: [b, b, b]\n", more={"b": large})
    monkeypatch.setattr(assembly, "MAX_READ", 600)
    with pytest.raises(ConfigError, match="more than 600 parts are to be read"):
        loaded("include: [b, b, b]\n", more={"b": large})
