"""Commands written as text: the words that a shell makes of them, and what Compose drops."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmctl.compose.parts.words import Split, split


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  ", []),
        ("nginx -g 'daemon off;'", ["nginx", "-g", "daemon off;"]),
        ("bundle exec thin -p 3000", ["bundle", "exec", "thin", "-p", "3000"]),
        ('sh -c "echo \\"hi\\" && true"', ["sh", "-c", 'echo "hi" && true']),
        ("a\\ b c", ["a b", "c"]),
        ("a '' b", ["a", "", "b"]),
        ("--opt='a b'c", ["--opt=a bc"]),
        ("'it'\\''s'", ["it's"]),
        ('"\\n \\$HOME"', ["\\n $HOME"]),
        ("'\\n'", ["\\n"]),
        ("a\n  b\tc\r\nd", ["a", "b", "c", "d"]),
        ("a \\\n b", ["a", "b"]),
        ("echo `date now`", ["echo", "`date now`"]),
        ("echo $(date now) x", ["echo", "$(date now)", "x"]),
        ("echo $HOME ${X}", ["echo", "$HOME", "${X}"]),
        ("--opt=# x", ["--opt=#", "x"]),
    ],
)
def test_words(text, words):
    assert split(text) == Split(tuple(words))


@pytest.mark.parametrize(
    ("text", "words", "dropped"),
    [
        ("a && b", ["a"], "&& b"),
        ("a;b", ["a"], ";b"),
        ("run >/dev/null", ["run"], ">/dev/null"),
        ("a 'b' | c", ["a", "b"], "| c"),
        ("& x", [], "& x"),
    ],
)
def test_no_shell_heeds_operators(text, words, dropped):
    assert split(text) == Split(tuple(words), dropped)


@pytest.mark.parametrize("text", ["'a", '"a', "a \\", "`a", "(a)", "a)", "$(a", "a (b)"])
def test_what_does_not_end(text):
    assert split(text) is None


@given(st.lists(st.text()))
def test_quoted_words_come_back(words):
    assert split(shlex.join(words)) == Split(tuple(words))


@given(st.text(alphabet="ab \\'\"`$()&;|<>\n"))
def test_any_text_can_be_split_or_not(text):
    found = split(text)
    if found is not None:
        assert not found.dropped or found.dropped[0] in ";&|<>"
        assert text.endswith(found.dropped)


def test_a_long_word_is_no_burden():
    assert split("x" * 1_000_000) == Split(("x" * 1_000_000,))
    assert split('"' + "x" * 1_000_000 + '"') == Split(("x" * 1_000_000,))
