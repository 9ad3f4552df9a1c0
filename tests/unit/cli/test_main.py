"""How the command line ends where it was not understood."""

from __future__ import annotations

import json
import sys

import pytest

from fleet.cli.errors import USAGE
from fleet.cli.main import run


@pytest.mark.parametrize(
    "words",
    [
        ("bogus", "-o", "json"),
        ("-o", "json", "bogus"),
        ("ls", "--bogus", "-o", "json"),
        ("ls", "--bogus", "--output", "json"),
        ("ls", "--bogus", "--output=json"),
        ("run", "-ojson"),
    ],
    ids=" ".join,
)
def test_who_asks_for_json_gets_a_problem_document_whatever_is_wrong_with_the_rest(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fleet", *words])
    with pytest.raises(SystemExit) as e:
        run()
    said = capsys.readouterr()
    problem = json.loads(said.out)
    assert (e.value.code, problem["type"]) == (USAGE, "urn:fleet:invalid")
    assert problem["detail"] in said.err


def test_nothing_is_on_stdout_unless_it_was_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fleet", "bogus", "-o", "name"])
    with pytest.raises(SystemExit):
        run()
    assert capsys.readouterr().out == ""
