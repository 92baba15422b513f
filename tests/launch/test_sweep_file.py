"""Sweep files: what W&B's schema refuses (golden/schema_violations.json), what YAML does, and what cannot be run here."""

import json
from pathlib import Path

import pytest

from meddiff.common.errors import UserError
from meddiff.launch.schema import schema_problems
from meddiff.launch.sweep_file import read_sweep_file

GOLDEN = json.loads((Path(__file__).parent / "golden" / "schema_violations.json").read_text())
#: What our sentence must name of each file that is refused.
NAMED = {
    "unknown key": "note:",
    "metrics grid": "metrics:",
    "metrics single": "metrics:",
    "optuna + early_terminate": "early_terminate:",
    "hyperband none": "early_terminate:",
    "hyperband max only": "early_terminate:",
    "slash name": "parameters.a/b:",
    "plus name": "parameters.+a:",
    "min str 3e-4": "parameters.a.min:",
    "log_uniform v1": "parameters.a:",
    "prob not 1": "parameters.a.probabilities:",
    "run_cap 0": "run_cap:",
    "empty values": "parameters.a.values:",
}
HEAD = "method: grid\ncommand:\n  - run\n  - ${args}\nparameters:\n"


def refusal(tmp_path: Path, text: str) -> str:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as told:
        read_sweep_file(file)
    for sentence in told.value.args:
        assert sentence.startswith(str(file))
        assert "\n" not in sentence
    return str(told.value)


@pytest.mark.parametrize("name", GOLDEN)
def test_what_w_and_b_refuses_is_refused_and_nothing_else(name):
    problems = schema_problems(GOLDEN[name]["config"])
    assert bool(problems) == bool(GOLDEN[name]["violations"])
    assert not problems or problems[0].startswith(NAMED[name])


def test_every_refused_golden_is_looked_at():
    assert {name for name, case in GOLDEN.items() if case["violations"]} == set(NAMED)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method: grid\ncommand: [run, ${args}]\nparameters: {a: {values: [1]}}\n", 'needs quotes, "${args}"'),
        ("method: random\nrun_cap: 2\ncommand: [run]\nparameters: {a: {min: 1e-4, max: 1.0}}\n", "write 0.0001"),
        ("method: random\nrun_cap: 2\ncommand: [run]\nparameters: {a: {min: 1e-5, max: 1.0}}\n", "write 1.0e-05"),
        (HEAD + "  a:\n    values: [on, off]\n", "YAML reads on as true (line 7)"),
        (HEAD + "  a:\n    value: null\n", 'write "null" in quotes'),
        (HEAD + "  a:\n    values: [1, null]\n", 'write "null" in quotes'),
        (HEAD + "  a:\n    value: {x: 1, y: null}\n", "becomes the text 'None'"),
        (HEAD + "  model:\n    parameters:\n      lr:\n        values: [1, 2]\n", "write model.lr as the name"),
        (HEAD + "  a:\n    value: 2026-11-26\n", "is a date to YAML: write it in quotes"),
        (HEAD + "  a:\n    value: .nan\n", "must be finite"),
        (HEAD + "  a:\n    value: [{1: 2, x: 3}]\n", "must be texts"),
        (HEAD + '  a:\n    value: "x\\0y"\n', "NUL"),
    ],
)
def test_yaml_traps_are_said_in_one_sentence(text, said, tmp_path):
    assert said in refusal(tmp_path, text)


@pytest.mark.parametrize("given", ['"on"', "true", '"null"', "[a, b c]", "1e-4", "{x: 1}"])
def test_what_is_written_as_advised_is_taken(given, tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(HEAD + f"  a:\n    value: {given}\n")
    assert read_sweep_file(file).parameters


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1\n", "is no sweep file"),
        ("method: grid\nparameters: {a: {values: [1]}}\n", "command: there is none, and no program"),
        ("method: grid\nprogram: t.py\nparameters: {a: {min: 0.0, max: 1.0}}\n", "a grid needs value, values"),
        ("method: random\nprogram: t.py\nparameters: {a: {min: 0.0, max: 1.0}}\n", "run_cap: a sweep of method random"),
        ("method: bayes\nprogram: t.py\nrun_cap: 3\nparameters: {a: {min: 0, max: 1}}\n", "needs a metric to improve"),
        (
            "method: custom\nprogram: t.py\nrun_cap: 3\nmetric: {name: x}\nscheduler: {engine: ax}\n"
            "parameters: {a: {min: 0, max: 1}}\n",
            "of the engines only optuna runs here",
        ),
        ("method: grid\nprogram: t.py\nscheduler: {engine: wandb}\nparameters: {a: {value: 1}}\n", "W&B's server only"),
        (
            "method: bayes\nprogram: t.py\nrun_cap: 3\nmetric: {name: x}\nparameters: {a: {distribution: normal}}\n",
            "Optuna has no normal",
        ),
        (
            "method: grid\nprogram: t.py\nearly_terminate: {type: hyperband, min_iter: 2}\nparameters: {a: {value: 1}}\n",
            "needs a metric to judge runs by",
        ),
        (
            "method: grid\nprogram: t.py\nmetric: {name: x}\nearly_terminate: {type: hyperband, max_iter: 1, s: 1}\n"
            "parameters: {a: {value: 1}}\n",
            "no band is left",
        ),
        (
            "method: random\nprogram: t.py\nrun_cap: 3\nparameters: {a: {min: 2, max: 1}}\n",
            "min 2 is not less than max 1",
        ),
    ],
)
def test_what_cannot_be_run_here_is_refused(text, said, tmp_path):
    assert said in refusal(tmp_path, text)


def test_a_metric_may_be_called_as_it_was_before(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(HEAD + "  a: {value: 1}\nmetric: {name: fidelity/fid_domain}\n")
    (objective,) = read_sweep_file(file).objectives
    assert (objective.name, objective.goal) == ("fidelity/fd_domain", "minimize")


def test_traps_of_words_are_none_where_the_parameters_are_no_words(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("method: grid\ncommand: [run, '${args_json_file}']\nparameters:\n  a: {value: null}\n")
    assert read_sweep_file(file).config["parameters"] == {"a": {"value": None}}
