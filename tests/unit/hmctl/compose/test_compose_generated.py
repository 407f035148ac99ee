"""Generated compose files, resolved by us and by Docker Compose itself: the same comes out.

HYPERMESH_COMPOSE_EXAMPLES=1000 looks for more.
"""

import os
import re
import shutil

import pytest
from compose_canon import canonical, differences
from compose_cases import HOME, Case, judged, needs_docker_compose, ours_of
from compose_services import SERVICE
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hmcore.config import yaml_writing

pytestmark = needs_docker_compose


def compared(case):
    tree, said = judged(case)
    assert tree is not None, said
    project, ours = ours_of(case)
    assert project.name == tree["name"]
    theirs = canonical(tree, tree["name"])
    for section in ("networks", "volumes", "secrets", "configs"):  # `config` leaves out what no service uses
        assert set(theirs[section]) <= set(ours[section])
        ours[section] = {name: ours[section][name] for name in theirs[section]}
    return differences(ours, theirs)


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def generated(folder, documents, **more):
    """A case of files that were just made."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    files = []
    for index, document in enumerate(documents):
        files.append(folder / f"compose.{index}.yaml")
        files[-1].write_text(yaml_writing.dump(document))
    environment = {"HOME": HOME, **more.pop("environment", {})}
    return Case(tuple(files), more.pop("env_files", ()), environment, ("*",))


# Each example asks a process, so a failing one is not made smaller: its services are independent of each other anyway.
QUIET = settings(
    max_examples=int(os.environ.get("HYPERMESH_COMPOSE_EXAMPLES", "12")),
    derandomize="HYPERMESH_COMPOSE_EXAMPLES" not in os.environ,  # the same ones each time, unless somebody looks for more
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NAMES = st.sampled_from(["A", "B_1", "_C", "EMPTY", "nope"])
WORDS = st.text(alphabet=list("ab -:?+/.=,'\"\\"), max_size=6)


def references(inner):
    operator = st.sampled_from([":-", "-", ":+", "+"])
    return st.one_of(
        NAMES.map(lambda name: f"${{{name}}}"),
        st.tuples(NAMES, st.sampled_from([" ", ".", "-", "}"])).map(lambda pair: f"${pair[0]}{pair[1]}"),
        st.tuples(NAMES, operator, inner).map(lambda parts: f"${{{parts[0]}{parts[1]}{parts[2]}}}"),
        st.just("$$"),
    )


INNER = st.recursive(
    WORDS, lambda inner: st.lists(st.one_of(WORDS, references(inner).filter(lambda one: not one.endswith("}}")))).map("".join), max_leaves=6
)
TEMPLATES = st.lists(st.one_of(WORDS, references(INNER)), max_size=4).map("".join).filter(lambda text: "$}" not in text)


def balanced(text):
    """Compose counts braces oddly where they stand side by side; so do not we."""
    depth = 0
    for sign in text:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0:
            return False
    return depth == 0


@pytest.mark.long
@QUIET
@given(st.lists(TEMPLATES.filter(balanced), min_size=20, max_size=120))
def test_variables(folder, templates):
    environment = {"A": "value", "B_1": "with $dollar ${A}", "_C": "-", "EMPTY": ""}
    document = {"services": {"app": {"image": "a", "environment": {f"V{index}": text for index, text in enumerate(templates)}}}}
    assert compared(generated(folder / "g", [document], environment=environment)) == []


REST = {
    "networks": {"n": {}, "m": {}},
    "volumes": {"vol": {}},
    "secrets": {"s": {"file": "./s"}, "t": {"file": "./t"}},
}


def consistent(service):
    """No two things at one place in one list: of volumes Compose refuses that, as convert.py does; of secrets it keeps one or the other."""
    volumes = [item.split(":")[1] if isinstance(item, str) else item["target"] for item in service.get("volumes", [])]
    secrets = [{"source": item} if isinstance(item, str) else item for item in service.get("secrets", [])]
    places = [*volumes, *(secret.get("target", f"/run/secrets/{secret['source']}") for secret in secrets)]
    return len(places) == len(set(places))


def around(services, **more):
    return {"services": {**services, "db": {"image": "db"}, "mq": {"image": "mq"}}, **REST, **more}


@pytest.mark.long
@QUIET
@given(st.lists(st.tuples(SERVICE.filter(consistent), SERVICE.filter(consistent)), min_size=3, max_size=12))
def test_merging(folder, pairs):
    below = around({f"s{index}": {"image": "i", **one} for index, (one, _) in enumerate(pairs)})
    above = {"services": {f"s{index}": other for index, (_, other) in enumerate(pairs) if other}}
    assert compared(generated(folder / "g", [below, *([above] if above["services"] else [])])) == []


def tagged(service):
    """Some of its parts with a tag, which `dump` does not know and TAG puts in afterwards."""
    tags = st.lists(st.sampled_from(["", "", "reset@", "override@"]), min_size=len(service), max_size=len(service))
    return tags.map(lambda tags: {tag + key: part for tag, (key, part) in zip(tags, service.items(), strict=True)})


TAG = re.compile(r"(reset|override)@([\w-]+):")


@pytest.mark.long
@QUIET
@given(st.lists(st.tuples(SERVICE.filter(consistent), SERVICE.filter(consistent).flatmap(tagged)), min_size=3, max_size=12))
def test_merging_with_tags(folder, pairs):
    below = around({f"s{index}": {"image": "i", **one} for index, (one, _) in enumerate(pairs)})
    above = {"services": {f"s{index}": {"image": "i", **other} for index, (_, other) in enumerate(pairs)}}
    case = generated(folder / "g", [below, above])
    case.files[1].write_text(TAG.sub(r"\2: !\1", case.files[1].read_text()))
    assert compared(case) == []


@pytest.mark.long
@QUIET
@given(st.lists(st.tuples(SERVICE.filter(consistent), SERVICE.filter(consistent)), min_size=3, max_size=8))
def test_extending(folder, pairs):
    """In the same file, and from another one in another folder."""
    bases = {f"b{index}": {"image": "i", **one} for index, (one, _) in enumerate(pairs)}
    here = {f"s{index}": {**other, "extends": f"b{index}"} for index, (_, other) in enumerate(pairs)}
    there = {f"t{index}": {**other, "extends": {"service": f"b{index}", "file": "sub/base.yaml"}} for index, (_, other) in enumerate(pairs)}
    case = generated(folder / "g", [around({**bases, **here, **there})])
    (folder / "g" / "sub").mkdir()
    (folder / "g" / "sub" / "base.yaml").write_text(yaml_writing.dump({"services": bases}))
    assert compared(case) == []


ENTRY = st.tuples(
    st.sampled_from(["", "export ", " ", "\t"]),
    st.sampled_from(["A", "B", "C_1", "D.e", "lower"]),
    st.sampled_from(["=", " = ", ": ", "= "]),
    st.one_of(
        st.text(alphabet=list("ab $#'\"\\{}1"), max_size=8).filter(
            lambda text: text.strip()[:1] not in ("'", '"') and "${" not in text and text.strip()[:1] != "#"
        ),
        st.text(alphabet=list('ab $#"\n1=:'), max_size=8).map(lambda text: f"'{text}'"),
        st.text(alphabet=list("ab #'\n1=:nt"), max_size=8).map(lambda text: f'"{text}"'),
        st.sampled_from(
            ['"\\n\\t\\$A\\"q\\""', '"${A:-x}${nope-y}"', "$A-${B}", "'it\\'s'", '"\\\\ \\x \\061 \\0"', '"a"  # said', "a # said", "a#b"]
        ),
    ),
).map("".join)


@pytest.mark.long
@QUIET
@given(
    st.lists(st.one_of(ENTRY, st.just("# a comment"), st.just(""), st.just("OUTSIDE")), max_size=25).map(
        lambda lines: "".join(f"{line}\n" for line in lines)
    )
)
def test_files_of_variables(folder, text):
    names = ["A", "B", "C_1", "D.e", "lower", "OUTSIDE"]
    document = {"services": {"app": {"image": "a", "environment": names}, "own": {"image": "a", "env_file": "own.env"}}}
    case = generated(folder / "g", [document], environment={"OUTSIDE": "o", "nope": "is $set"})
    (folder / "g" / ".env").write_text(text)
    (folder / "g" / "own.env").write_text(text)
    assert compared(case) == []
