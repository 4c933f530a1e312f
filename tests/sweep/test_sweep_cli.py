"""The command line: exit status, what is printed, and how soon."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mlmodeldev.sweep.__main__ import main

GOOD = "method: grid\nparameters: {a: {values: [1, 2, 3]}}\n"
BAD = "method: grid\nparameters: {a: {values: []}}\n"


def test_check_prints_problems_and_exits_2(write, capsys):
    good, bad = write(GOOD, "good.yaml"), write(BAD, "bad.yaml")
    assert main(["check", str(good)]) == 0
    assert f"{good}: ok, grid, 3 trials" in capsys.readouterr().out
    assert main(["check", str(good), str(bad)]) == 2
    out = capsys.readouterr().out
    assert f"{bad}:2: error: parameters.a: values must be a list" in out


def test_check_as_json(write, capsys):
    bad = write(BAD)
    assert main(["check", "--json", str(bad)]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["files"]) == (False, [str(bad)])
    (problem,) = [p for p in answer["problems"] if p["severity"] == "error"]
    assert (problem["file"], problem["line"], problem["key"]) == (str(bad), 2, "parameters.a")


def test_settings_are_handed_on(write, capsys):
    assert main(["check", str(write(GOOD))], settings={"b": 1}) == 2
    assert "'a' is no setting of the trainer" in capsys.readouterr().out


def test_list_prints_trials(write, capsys):
    path = str(write(GOOD))
    assert main(["list", path, "--count", "2"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["a=1", "a=3"]
    assert main(["list", path, "--json"]) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["overrides"]["a"] for entry in entries] == [1, 3, 2]


@pytest.mark.parametrize("arguments", [["list", "none.yaml"], ["list", "{file}", "--count", "-1"]])
def test_bad_input_is_one_line_and_2(arguments, write, capsys):
    file = str(write(GOOD))
    assert main([argument.format(file=file) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_as_a_module_and_into_a_closed_pipe(write):
    text = "method: grid\nparameters: {a: {min: 1, max: 300000}}\n"
    command = f"{sys.executable} -m mlmodeldev.sweep list {write(text)} | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
