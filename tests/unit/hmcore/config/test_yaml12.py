"""YAML 1.2 as the specification has it, lines for people, and no input that does anything else than give a value or a ConfigError."""

import json
import math

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from hmcore.config import yaml12, yaml_writing
from hmcore.errors import ConfigError


@pytest.fixture(params=["libyaml", "python"])
def parser(request, monkeypatch):
    """Both of PyYAML's parsers: not every machine has libyaml."""
    if request.param == "python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)


def value(text):
    return yaml12.load(text, "f").value


def refused(text):
    with pytest.raises(ConfigError) as error:
        yaml12.load(text, "f")
    return [str(problem) for problem in error.value.problems]


# https://yaml.org/spec/1.2.2/#1032-tag-resolution, and what YAML 1.1 made of the same words
CORE = [
    ("null", None), ("Null", None), ("NULL", None), ("~", None), ("", None), ("nULL", "nULL"),
    ("true", True), ("True", True), ("TRUE", True), ("false", False), ("FALSE", False),
    ("on", "on"), ("yes", "yes"), ("No", "No"), ("off", "off"), ("y", "y"), ("tRUE", "tRUE"),
    ("0", 0), ("-19", -19), ("+5", 5), ("0o7", 7), ("0o17", 15), ("0x3A", 58), ("012", 12), ("-0x3A", "-0x3A"), ("0o8", "0o8"),
    ("22:22", "22:22"), ("190:20:30", "190:20:30"), ("1_000", "1_000"), ("0b101", "0b101"),
    ("0.", 0.0), ("-0.0", -0.0), (".5", 0.5), ("+12e03", 12e3), ("-2E+05", -2e5), ("1e3", 1000.0), ("12e45", 12e45),
    (".", "."), ("1.e", "1.e"),
    (".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf), ("inf", "inf"), ("nan", "nan"),
    ("2026-11-22", "2026-11-22"), ("=", "="), ("1.2.3", "1.2.3"), ("hm-abc", "hm-abc"), ("10.0.0.1", "10.0.0.1"),
]  # fmt: skip


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(("text", "expected"), CORE)
def test_scalars_mean_what_the_core_schema_says(text, expected):
    found = value(f"k: {text}")["k"]
    assert (found, type(found)) == (expected, type(expected))
    assert value(f"k: '{text}'")["k"] == text


@pytest.mark.usefixtures("parser")
def test_nan_and_numbers_beyond_reason():
    assert math.isnan(value("k: .nan")["k"])
    assert value("k: " + "9" * 5000) == {"k": math.inf}  # not an int that Python refuses to print
    assert value("k: 1e999") == {"k": math.inf}


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("k: !!str 12", "12"),
        ("k: !!int '12'", 12),
        ("k: !!float 1", 1.0),
        ("k: !!null ''", None),
        ("k: !!bool true", True),
        ("k: ! 12", "12"),
        ("k: !!seq [a]", ["a"]),
        ("k: !!map {a: b}", {"a": "b"}),
    ],
)
def test_core_tags(text, expected):
    found = value(text)["k"]
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.usefixtures("parser")
def test_every_part_has_its_line():
    text = "a: 1\nb:\n  c:\n    - x\n    - d: 2\n      e: |\n        text\n        more\nf: {g: 3,\n  h: 4}\n"
    lines = yaml12.load(text, "f").lines
    assert lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "c", 0): 4,
        ("b", "c", 1): 5,
        ("b", "c", 1, "d"): 5,
        ("b", "c", 1, "e"): 6,
        ("f",): 9,
        ("f", "g"): 9,
        ("f", "h"): 10,
    }


@pytest.mark.usefixtures("parser")
def test_anchors_and_merges():
    text = "base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\nboth: {<<: [*b, *o], x: 0}\nlist: [*b, *b]\nkey: &k word\n*k : again\n"
    assert value(text) == {
        "base": {"x": 1, "y": 2},
        "other": {"y": 3, "z": 4},
        "both": {"x": 0, "y": 2, "z": 4},
        "list": [{"x": 1, "y": 2}, {"x": 1, "y": 2}],
        "key": "word",
        "word": "again",
    }
    assert yaml12.load(text, "f").lines[("both", "z")] == 2  # where it was written
    assert value("a: {'<<': 1}") == {"a": {"<<": 1}}  # quoted it is a key like any other


@pytest.mark.usefixtures("parser")
def test_keys_are_text_as_written():
    assert value("on: 1\n80: 2\n~: 3\n1.0: 4") == {"on": 1, "80": 2, "~": 3, "1.0": 4}


@pytest.mark.usefixtures("parser")
def test_a_repeated_key_is_a_mistake_that_hides_no_other():
    assert refused("a: 1\nb: {c: 1, c: 2}\na: 3") == [
        "f:3: a: this key is given twice (the first is in line 1)",
        "f:2: b.c: this key is given twice (the first is in line 2)",
    ]
    document = yaml12.parse("a: 1\na: 2", "f")
    assert document.value == {"a": 2}
    assert len(document.problems) == 1


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: b: c", 1, 'text that contains ": " needs quotes'),
        ("a:\n\t- b", 2, "indent with spaces"),
        ("a: 1\nb: [1,\nc: 2", 3, "a flow sequence that begins in line 2"),
        ("a: @here", 1, "needs quotes"),
        ("a: 1\n---\nb: 2", 2, "a second document"),
        ("a: *nobody", 1, "refers to nothing above"),
        ("a: &x [*x]", 1, "refers to nothing above"),
        ("a: !!python/object:os.system {}", 1, "means nothing here"),
        ("a: !secret 1", 1, "means nothing here"),
        ("a: !!int x", 1, "is no int"),
        ("a: !!int true", 1, "is no int"),
        ("\n? [a, b]\n: 1", 2, "a key must be plain text"),
        ("a:\n  <<: 5", 2, "<< merges mappings"),
        ('a: "\\ud800"', 1, ""),
        ('a: "\\UFFFFFFFF"', 1, ""),
        (b"a: 1\nb: \xff", 2, "UTF-8"),
        ("a: \x00", 1, ""),
        ("[" * 100, 1, "deeper"),
        ("{a: " * 100, 1, "deeper"),
        ("- " * 100, 1, "deeper"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text, line, words):
    (problem,) = refused(text)
    assert words in problem
    assert problem.startswith((f"f:{line}: ", "f: ")), problem


@pytest.mark.usefixtures("parser")
def test_a_second_merge_key_is_a_repeated_key():
    document = yaml12.parse("a: &a {x: 1}\nb: &b {y: 2}\nc:\n  <<: *a\n  <<: *b\n", "f")
    assert [(problem.line, problem.path) for problem in document.problems] == [(5, "c.<<")]
    assert document.value == {"a": {"x": 1}, "b": {"y": 2}, "c": {"x": 1}}


@pytest.mark.usefixtures("parser")
def test_a_reader_can_have_tags_and_scalars_of_its_own():
    text = "a: !t 1\nb: !t '1'\nc: !t [1]\nd: !t {e: 2}\nf: !t\ng: 3\nh: '3'\n"
    document = yaml12.parse(text, "f", tags={"!t"}, scalar=lambda text: f"<{text}>")
    assert document.value == {"a": "<1>", "b": "1", "c": ["<1>"], "d": {"e": "<2>"}, "f": "<>", "g": "<3>", "h": "3"}
    assert document.tags == {(key,): "!t" for key in "abcdf"}
    with pytest.raises(ConfigError, match="the tag !t means nothing here"):
        yaml12.parse(text, "f")


@pytest.mark.usefixtures("parser")
def test_aliases_cannot_multiply_without_bound():
    levels = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"] + [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert "more than 200000 parts" in refused("\n".join(levels))[0]
    chain = ["a0: &a0 [1]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100)]
    assert "deeper" in refused("\n".join(chain))[0]
    merged = ["a0: &a0 {k0: 1}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: 1}}" for n in range(1, 40)]
    assert refused("\n".join(merged))


def test_a_document_too_large_is_not_even_tried():
    assert "larger than" in refused("#" * (yaml12.MAX_BYTES + 1))[0]


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "\ufeff", b"\xef\xbb\xbf"])
def test_an_empty_document_is_null(text):
    assert value(text) is None


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("text", ["\ufeffa: 1", b"\xef\xbb\xbfa: 1", "%YAML 1.2\n---\na: 1\n...\n", "a: 1\r\n"])
def test_marks_and_directives_are_no_content(text):
    assert value(text) == {"a": 1}


ALPHABET = st.characters(codec="utf-8", exclude_categories=["Cs"])
YAMLISH = st.text(alphabet=st.sampled_from(list("ab01:-?[]{},&*!|>'\"%@`#~<. \t\n\r\\x_\u00e9\ufeff\x85")), max_size=60)


@given(st.one_of(st.text(max_size=80), YAMLISH, st.binary(max_size=80)))
def test_any_input_is_a_value_or_a_config_error(text):
    try:
        document = yaml12.parse(text, "f")
    except ConfigError as error:
        places = [problem.line for problem in error.problems]
    else:
        places = [*document.lines.values(), *(problem.line for problem in document.problems)]
        json.dumps(document.value).encode()
        yaml_writing.dump(document.value)
    assert places
    assert all(line is None or 1 <= line <= len(text) + 1 for line in places)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(alphabet=ALPHABET),
    st.sampled_from([text for text, _ in CORE]),
)
KEYS = st.one_of(st.text(alphabet=ALPHABET, min_size=1), st.sampled_from([text for text, _ in CORE]))
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)), max_leaves=15
)


@given(VALUES)
@example("\x85")  # a line break to YAML 1.1's emitter, content to its reader
@example({"12e45": "0o17"})
def test_what_is_dumped_reads_back_the_same(document):
    text = yaml_writing.dump(document)
    assert same(yaml12.load(text, "f").value, document)
    assert yaml_writing.dump(document) == text


JSON_TEXT = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=0xD7FF, exclude_categories=["Cc", "Cs"]))


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), JSON_TEXT), lambda i: st.lists(i) | st.dictionaries(JSON_TEXT, i), max_leaves=10
    )
)
def test_json_is_yaml(document):
    assert yaml12.load(json.dumps(document, ensure_ascii=False), "f").value == document


def same(one, other):
    """Equal, and of the same types throughout (1 is not 1.0, nor True)."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_several_documents_where_they_are_wanted():
    text = "a: &x 1\n---\n- *x\n---\n# nothing\n---\nb: {c: 2, c: 3}\n"
    documents = yaml12.parse_all(text, "f")
    assert [document.value for document in documents] == [{"a": 1}, [1], None, {"b": {"c": 3}}]
    assert documents[3].lines[("b",)] == 7
    assert [problem.line for document in documents for problem in document.problems] == [7]
    assert yaml12.parse_all("", "f") == ()
    with pytest.raises(ConfigError, match="f:2: a second document begins here"):
        yaml12.parse(text, "f")


def test_documents_have_one_bound_together(monkeypatch):
    monkeypatch.setattr(yaml12, "MAX_PARTS", 20)
    assert len(yaml12.parse_all("---\n[1, 2]\n" * 6, "f")) == 6
    with pytest.raises(ConfigError, match="more than 20 parts"):
        yaml12.parse_all("---\n[1, 2]\n" * 7, "f")
    monkeypatch.setattr(yaml12, "MAX_DOCUMENTS", 3)
    with pytest.raises(ConfigError, match="f:4: more than 3 documents"):
        yaml12.parse_all("--- 1\n" * 4, "f")
