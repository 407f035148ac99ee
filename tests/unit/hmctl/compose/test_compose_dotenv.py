"""Files of variables, line by line. (Generated ones are held against Docker Compose: test_compose_generated.py.)"""

import pytest

from hmctl.compose import dotenv
from hmctl.compose.trouble import Trouble

OUTSIDE = {"OUT": "outside", "BOTH": "outside"}


def read(text, reader=dotenv.read):
    trouble, known = Trouble(), dotenv.Variables(OUTSIDE.get)
    reader(text, "x.env", known, trouble)
    return known, [f"{problem.line}: {problem.message}" for problem in trouble.all()]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b", "b"),
        ("export A=b", "b"),
        ("A = b  # said", "b"),
        ("A=b#c", "b#c"),
        ("A: b", "b"),
        ("A=", ""),
        ("A='$OUT \\n' # said", "$OUT \\n"),
        ("A='it\\'s'", "it's"),
        ('A="$OUT\\n"', "outside\n"),
        ('A="\\$OUT"', "$OUT"),
        ('A="two\nlines"', "two\nlines"),
        ('A="\\\\"', "\\"),
        ('A="\\0101\\0061"', "A1"),
        ('A="\\061 \\0 \\0899"', "\\61 \\ \\899"),  # as Compose has it: four digits, of 0 to 7
        ("A=${OUT:-x}${NOT-y}", "outsidey"),
        ("A=$$OUT", "$OUT"),
        ("BOTH=inside\nA=$BOTH", "outside"),
        ("FIRST=1\nA=${FIRST}2", "12"),
        ("A=1\r\nA=2\r\n", "2"),
    ],
)
def test_values(text, value):
    known, said = read(text)
    assert known.values["A"] == value
    assert said == []


def test_a_name_alone_has_the_value_that_it_has_outside():
    known, said = read("OUT\nNOT\n")
    assert known.values == {"OUT": "outside"}
    assert known.places["OUT"].line == 1
    assert said == []


def test_mistakes_have_their_lines_and_hide_no_other_line():
    known, said = read("A=1\nnot a name=2\n\n# a comment\nB='open\nC=${\nD=${NOT:?said}\n")
    assert known.values == {"A": "1", "D": ""}
    assert said == [
        "2: 'not a name' is no name of a variable",
        "5: the ' that begins here is not ended",
        "6: a ${ names no variable",
        "7: the variable NOT must be set: said",
    ]


def test_raw_files_are_taken_as_they_are():
    known, said = read("A='$OUT' # said\n\n# a comment\nOUT\nNOT\nwith space=1\n", dotenv.read_raw)
    assert known.values == {"A": "'$OUT' # said", "OUT": "outside"}
    assert said == ["6: 'with space' is no name of a variable"]
