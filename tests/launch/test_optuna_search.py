"""Bayes and several objectives: the mapping is W&B's own, and a study rebuilt from the list of runs asks the same again."""

import json

import pytest

pytest.importorskip("optuna")

from meddiff.common.errors import UserError
from meddiff.launch.optuna_search import Trial, distribution, front, next_point
from meddiff.launch.parameters import flat, same
from meddiff.launch.sweep_file import OPTUNA_KINDS
from tests.builders.sweeps import runner_of, states, write_sweep

PARAMETERS = {
    "x": {"min": 0.0, "max": 4.0},
    "lr": {"distribution": "log_uniform_values", "min": 1e-6, "max": 1e-2},
    "n": {"min": 1, "max": 8},
    "c": {"values": [True, False]},
    "words": {"values": [["a", "b"], ["c"]]},
    "k": {"value": 7},
    "nested": {"parameters": {"y": {"min": 0.0, "max": 4.0}}},
}


@pytest.mark.parametrize(
    "config",
    [
        {"value": 3},
        {"values": [1, "a", True]},
        {"min": 1, "max": 9},
        {"min": 0.5, "max": 9},
        {"distribution": "uniform", "min": 0, "max": 1},
        {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0},
        {"distribution": "q_uniform", "min": 0, "max": 10, "q": 2},
        {"distribution": "q_uniform", "min": 0, "max": 10},
        {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.25},
        {"distribution": "q_log_uniform_values", "min": 1, "max": 100},
        {"distribution": "q_log_uniform_values", "min": 1, "max": 100, "q": 10},
        {"distribution": "q_log_uniform_values", "min": 0.1, "max": 10.0, "q": 1},
    ],
    ids=json.dumps,
)
def test_the_mapping_is_that_of_w_and_b_s_scheduler(config):
    oracle = pytest.importorskip("wandb.sdk.sweeps.scheduler.optuna")
    (parameter,) = flat({"p": config}).values()
    assert parameter.kind in OPTUNA_KINDS
    assert distribution(parameter) == oracle.sweep_parameter_to_distribution(config)


@pytest.mark.parametrize("kind", ["normal", "beta", "inv_log_uniform_values"])
def test_what_optuna_has_not_is_refused_by_both(kind):
    oracle = pytest.importorskip("wandb.sdk.sweeps.scheduler.optuna")
    bounds = {"min": 0.1, "max": 1.0} if "uniform" in kind else {}
    with pytest.raises(ValueError, match="no optuna equivalent"):
        oracle.sweep_parameter_to_distribution({"distribution": kind, **bounds})
    with pytest.raises(UserError, match=f"Optuna has no {kind}"):
        distribution(*flat({"p": {"distribution": kind, **bounds}}).values())


def run_trials(count: int, seed: int, goals: list[str]) -> list[Trial]:
    """Trials of a toy problem, each asked for after a "kill": only the list of runs is kept, as JSON."""
    trials: list[Trial] = []
    for number in range(count):
        stored = json.loads(json.dumps([[one.values, one.state, list(one.objectives)] for one in trials]))
        values = next_point(flat(PARAMETERS), goals, [Trial(*one) for one in stored], seed)
        x = float(str(values["x"]))
        objectives = [(x - 1) ** 2, (x - 3) ** 2][: len(goals)]
        state = "fail" if number == 3 else "running" if number == count - 1 else "complete"
        trials.append(Trial(values, state, objectives if state == "complete" else ()))  # type: ignore[arg-type]
    return trials


@pytest.mark.parametrize("goals", [["minimize"], ["minimize", "maximize"]])
def test_the_same_list_asks_the_same_question(goals):
    first, second = run_trials(14, 0, goals), run_trials(14, 0, goals)
    assert [one.values for one in first] == [one.values for one in second]
    assert [one.values for one in first] != [one.values for one in run_trials(14, 1, goals)]
    assert len({str(same(one.values)) for one in first}) == 14
    values = first[0].values
    assert values["k"] == 7
    assert set(values) == set(PARAMETERS)
    assert isinstance(values["nested"], dict)


def test_it_learns_from_what_it_is_told():
    """The control is a study that is told nothing: of the last twenty points more lie near the minimum."""
    informed = run_trials(40, 0, ["minimize"])
    near = sum(abs(float(str(one.values["x"])) - 1) < 0.5 for one in informed[20:])
    blind = [next_point(flat(PARAMETERS), ["minimize"], [], seed) for seed in range(20)]
    assert near >= 10
    assert near > sum(abs(float(str(one["x"])) - 1) < 0.5 for one in blind)


def test_the_front_is_what_no_other_beats():
    points = [(1.0, 1.0), (2.0, 2.0), (1.5, 0.5), (3.0, 2.0), (1.0, 1.0)]
    assert front(points, ["minimize", "maximize"]) == [0, 1, 4]
    assert front(points, ["minimize", "minimize"]) == [0, 2, 4]
    assert front([], ["minimize"]) == []


def test_two_objectives_run_to_their_end_and_mark_the_front(tmp_path):
    from meddiff.launch.table import write_rows
    from meddiff.runs.tables import read_table

    file = write_sweep(
        tmp_path,
        {"base": {"min": 0.0, "max": 9.0}, "steps": 2, "pause": 0.0},
        method="custom",
        run_cap=5,
        scheduler={"engine": "optuna"},
        metrics=[{"name": "score", "goal": "minimize"}, {"name": "other", "goal": "maximize"}],
    )
    runner = runner_of(file, jobs=2)
    runner.run()
    assert states(runner) == ["finished"] * 5
    table = read_table(write_rows(runner))
    best = min(table, key=lambda row: float(row["score"]))
    assert [row["number"] for row in table if row["on_front"] == "1"] == [best["number"]]  # other = -score
    assert float(table[0]["best score"]) < float(table[0]["score"])  # it grows
    assert runner.record.runs[1].values["steps"] == 2


def test_bayes_has_one_objective(tmp_path):
    file = write_sweep(
        tmp_path,
        {"base": {"min": 0.0, "max": 9.0}, "fail": {"values": [0, 4]}, "steps": 1},
        method="bayes",
        run_cap=6,
        metric={"name": "score", "goal": "minimize"},
    )
    runner = runner_of(file, jobs=2)
    runner.run()
    assert len(states(runner)) == 6
    assert set(states(runner)) <= {"finished", "failed"}
