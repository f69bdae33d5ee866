"""Files as Laravel reads them: what phpdotenv 5.6 makes of a line, and then Laravel's ``env()``."""

from __future__ import annotations

import pytest

from reverb._dotenv import Entry, parse


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("A = b", "b"),
        ("  A=b  ", "b"),
        ("export A=b", "b"),
        ("export\t\"A\"='b c'", "b c"),
        ("'A'=b", "b"),
        ("A=", ""),
        ("A= # a comment", ""),
        ("A=#b", ""),
        ("A=b # a comment", "b"),
        ("A=b#c", "b"),
        ("A='b#c' # a comment", "b#c"),
        ('A="b#c"#a comment', "b#c"),
        ("A=b=c==", "b=c=="),
        ("A=base64:x+/=", "base64:x+/="),
        ("A=b'c\"d", "b'c\"d"),
        (r"A=b\n\q", r"b\n\q"),
        (r"A='b\n\q'", r"b\n\q"),
        (r'A="\n\r\t\f\v"', "\n\r\t\f\v"),
        (r'A="a \"quote\" and \\"', 'a "quote" and \\'),
        (r'A="pa\$s"', "pa$s"),
        ("A=pa$s", "pa$s"),
        ('A="pa$s"', "pa$s"),
        ("A=${HOME}/x", "/home/ann/x"),
        ('A="${HOME}/x"', "/home/ann/x"),
        ("A='a${HOME}b'", "a${HOME}b"),
        (r'A="\${HOME}"', "${HOME}"),
        ("A=$HOME", "$HOME"),
        ("A=${ABOVE}!", "from above!"),
        ("A=${EMPTY}!", "!"),
        ("A=${NO_SUCH}", "${NO_SUCH}"),
        ("A=${BELOW}", "${BELOW}"),
        ("A=${NOTHING}", "${NOTHING}"),
        ("A=null", None),
        ("A=(NULL)", None),
        ("A=empty", ""),
        ("A=(true)", "true"),
        ("A=(false)", "false"),
        ("A=\"'b'\"", "b"),
        ("A", None),
        ("A=first\nA=second", "second"),
        ('A="b\n#c\n\nd"', "b\n#c\n\nd"),
        ('A="b\r\nc"', "b\nc"),
        ("A=b\rB=c", "b"),
        ("A=ü€😀", "ü€😀"),
    ],
)
def test_values(line: str, value: str | None) -> None:
    text = f"ABOVE='from above'\nNOTHING\nEMPTY=\n{line}\nBELOW=x\n"
    entry = parse(text, {"HOME": "/home/ann"})["A"]
    assert (entry.value, entry.problem) == (value, "")


def test_the_environment_goes_before_lines_above() -> None:
    assert parse("A=file\nB=${A}", {"A": "environment"})["B"].value == "environment"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("A=b c", "has more text after a space"),
        ("A='b' c", "has more text after"),
        ('A="b"c', "has more text after"),
        ("A='b", "quote that is not closed"),
        ('A="b', "quote that is not closed"),
        ("A='b\nc'", "quote that is not closed"),
        (r'A="C:\Users"', "not a valid escape"),
        (r'A="b\"', "quote that is not closed"),
    ],
)
def test_what_laravel_refuses_is_a_problem_of_that_variable_alone(line: str, problem: str) -> None:
    entries = parse(f"# a comment\n\n{line}\nB=c\n", {})
    assert entries["A"].line == 3
    assert entries["A"].value is None
    assert problem in entries["A"].problem
    assert entries["B"].value == "c"


@pytest.mark.parametrize("line", ["=b", "A-B=c", "# A=b", "Ä=b", "some text", "A!=b"])
def test_other_lines_are_passed_over(line: str) -> None:
    assert parse(line, {}) == {}


def test_lines_are_counted() -> None:
    entries = parse('# one\r\nA="two\r\nthree"\r\n\r\nB=five\rC=six\n', {})
    assert {name: entry.line for name, entry in entries.items()} == {"A": 2, "B": 5, "C": 6}


@pytest.mark.parametrize(
    ("line", "expected"),
    [("A=b#c", True), ("A=b #c", False), ("A=#c", False), ("A='b'#c", False)],
)
def test_a_value_that_may_have_been_cut_off_is_marked(line: str, expected: bool) -> None:
    assert parse(line, {})["A"].ends_at_hash is expected


def test_the_file_of_a_laravel_application() -> None:
    text = (
        'APP_NAME="My Shop"\nAPP_KEY=base64:c2VjcmV0\nAPP_URL=http://localhost\n\nDB_PASSWORD=\n'
        'REVERB_APP_KEY=key\nREVERB_HOST="localhost"\nREVERB_PORT=8080\nREVERB_SCHEME=http\n\n'
        'VITE_REVERB_APP_KEY="${REVERB_APP_KEY}"\nVITE_REVERB_HOST="${REVERB_HOST}"\n'
    )
    entries = parse(text, {})
    assert entries["APP_NAME"] == Entry(1, "My Shop")
    assert entries["VITE_REVERB_APP_KEY"] == Entry(11, "key")
    assert entries["VITE_REVERB_HOST"] == Entry(12, "localhost")
