"""tools/tradeoff_results.py: the page out of rows, a sweep shared by machines, and one cell of the experiment trained again."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from meddiff.cli.arguments import read_yaml
from meddiff.cli.main import dispatch
from meddiff.common.errors import UserError
from meddiff.launch.search import grid
from meddiff.launch.sweep_file import read_sweep_file
from meddiff.launch.table import write_rows
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.reports.experiment import rows
from meddiff.reports.experiment.answer import NOTHING
from meddiff.runs import names
from tests.builders.experiments import Truth, make_run, make_sweep
from tests.builders.sweeps import folders, runner_of, states, write_sweep
from tools.tradeoff_results import MADE, PAGE, RESULTS, SWEEPS, collect, go_on, main, page

ROOT = Path(__file__).resolve().parents[1]


def parts(text: str) -> dict[str, str]:
    """The made parts of a page."""
    return {match[2]: match[0].split("\n", 1)[1].rpartition("\n")[0] for match in MADE.finditer(text)}


def test_without_rows_the_page_that_ships_claims_nothing() -> None:
    """Not one number."""
    there = parts(PAGE.read_text(encoding="utf-8"))
    if not (RESULTS / rows.RUNS).is_file():
        assert there["answer"] == NOTHING
        assert not re.search(r"\d", "".join(there.values()))


def test_rows_that_ship_make_the_page_that_ships(tmp_path: Path) -> None:
    """Nobody has written a number into it by hand."""
    text = PAGE.read_text(encoding="utf-8")
    for name in (rows.RUNS, rows.PHRASES):
        if (RESULTS / name).is_file():
            (tmp_path / name).write_bytes((RESULTS / name).read_bytes())
    made = parts(page(tmp_path, text, tmp_path / "tradeoff_on_phantoms.svg"))
    assert made == parts(text)


def test_the_tool_makes_a_page_of_runs_and_again_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = make_sweep(tmp_path / "runs" / "phantom_tradeoff", Truth(), Truth(cnr=0.6, distance=13.0))
    unfinished = make_run(sweep / "0099-99999999", Truth(), 9, frozen=True)
    (unfinished / names.FINISHED).unlink()
    results = tmp_path / "results"
    results.mkdir()
    assert main(["--results", str(results), "collect", str(sweep)]) == 0
    out = capsys.readouterr()
    assert "10 runs in" in out.out
    assert "left out, not finished" in out.err
    text = PAGE.read_text(encoding="utf-8")
    once = page(results, text, tmp_path / "x.svg")
    assert "macro CNR falls: −0." in parts(once)["answer"]
    assert "![the trade-off over training](../img/x.svg)" in once
    assert "`lightning sweep sweeps/phantom_tradeoff.yaml`" in parts(once)["tables"]
    assert page(results, once, tmp_path / "x.svg") == once  # made parts take their own place
    assert (results / "claims.csv").read_text().startswith("table,train_images,base,")
    with pytest.raises(UserError, match="needs answer, picture, tables"):
        page(results, text.replace("made: tables", "made: others"), tmp_path / "x.svg")


def test_what_the_tool_refuses_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--results", str(tmp_path), "collect", str(tmp_path / "nowhere")]) == 2
    assert "is no run and no sweep" in capsys.readouterr().err
    assert main(["--results", str(tmp_path), "merge", str(tmp_path)]) == 2
    assert "name the folder of another machine's tables" in capsys.readouterr().err
    assert main(["--results", str(tmp_path), "go-on", "sweeps/phantom_rates.yaml", "--part", "3/2"]) == 2
    assert "write 2/3 for the second of three machines" in capsys.readouterr().err


def test_every_table_names_sweeps_that_are_there() -> None:
    for name in {sweep for some in SWEEPS.values() for sweep in some}:
        assert (ROOT / "sweeps" / f"{name}.yaml").is_file()


# ---- another machine ------------------------------------------------------------------------------------------------


def test_a_sweep_goes_on_with_what_has_no_rows_and_is_this_machine_s(tmp_path: Path) -> None:
    """Six runs: one has rows, two are the other machine's, three are left; nothing is run twice, and none is forgotten."""
    file = write_sweep(tmp_path, {"base": [1, 2, 3, 4, 5, 6], "steps": 1})
    whole = tmp_path / "whole"
    whole.mkdir()
    everything = runner_of(write_sweep(whole, {"base": [1, 2, 3, 4, 5, 6], "steps": 1}), jobs=3)
    everything.run()
    digests = [folder.name.partition("-")[2] for folder in folders(whole / "sweep.yaml")]
    results = tmp_path / "results"
    results.mkdir()
    rows.write(results, rows.Collected({(f"trial/{digests[1]}", 16): {"run": f"trial/{digests[1]}", "images": "16"}}))
    assert go_on(str(file), tmp_path, results, "1/2") == 3
    assert go_on(str(file), tmp_path, results, "1/2") == 3  # again: nothing is written twice
    runner = runner_of(file, jobs=3)
    runner.run()
    assert len(runner.record.runs) == 6
    made = {folder.name.partition("-")[2] for folder in folders(file)}
    assert made == {digests[0], digests[2], digests[4]}
    assert sorted(states(runner)) == ["finished"] * 4 + ["stopped"] * 2
    write_rows(runner)  # also of runs that have no folder
    other = tmp_path / "other"
    other.mkdir()
    there = write_sweep(other, {"base": [1, 2, 3, 4, 5, 6], "steps": 1})
    assert go_on(str(there), other, results, "2/2") == 2
    second = runner_of(there, jobs=3)
    second.run()
    assert {folder.name.partition("-")[2] for folder in folders(there)} == {digests[3], digests[5]}


def test_a_search_cannot_be_shared_out(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, {"base": {"min": 1, "max": 5}}, method="random", run_cap=4)
    with pytest.raises(UserError, match="only a grid can be shared out"):
        go_on(str(file), tmp_path, tmp_path, "1/2")


def test_strengths_of_confounders_are_compared_on_the_same_images() -> None:
    """Of the three strengths only training images differ, and in them only the confounders."""
    sweep = read_sweep_file(ROOT / "sweeps" / "phantom_confounders.yaml")
    texts = {str(values["data.phantom.confounders"]) for values in grid(sweep.parameters)}
    reference = read_yaml(ROOT / "configs" / "quickstart.yaml")["data"]["init_args"]["phantom"]["confounders"]
    cohorts = [
        PhantomCohort(PhantomOptions(n=260, val=0, grounding=40, fidelity=20, confounders=tuple(some)))
        for some in (reference, *(yaml.safe_load(text) for text in sorted(texts)))
    ]
    assert len(cohorts) == 3
    train = 200
    for one in cohorts[1:]:
        assert one.plan.labels == cohorts[0].plan.labels
        assert one.plan.confounders[train:] == cohorts[0].plan.confounders[train:]
        assert one.plan.confounders[:train] != cohorts[0].plan.confounders[:train]
    for index in (train, train + 45):  # of both held-out splits
        assert all(np.array_equal(one[index].image, cohorts[0][index].image) for one in cohorts)


# ---- made again -----------------------------------------------------------------------------------------------------


def test_one_cell_at_a_twentieth_of_its_length_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the commands that the page names. Rows that no longer come out are to be made anew by the same commands."""
    text = PAGE.read_text(encoding="utf-8")
    (command,) = re.findall(r"^lightning (fit -c configs/debug/phantom_twentieth\.yaml)$", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning"])
    # one process renders: the bytes are the same, and each would have torch to read
    assert dispatch([*command.split(), "--data.processes", "1"]) == 0
    again = collect([tmp_path / "runs" / "phantom_twentieth"], tmp_path)
    before = rows.read(RESULTS / "one_twentieth")
    assert [images for _, images in sorted(again.runs)] == [images for _, images in sorted(before.runs)] == [0, 1600]
    for (_, row), (_, other) in zip(sorted(again.runs.items()), sorted(before.runs.items()), strict=True):
        assert {name: row[name] for name in rows.SETTINGS} == {name: other[name] for name in rows.SETTINGS}
        for figure in other.keys() - set(rows.FIRST):
            assert float(row[figure]) == pytest.approx(float(other[figure]), rel=0.02, abs=0.02), figure
    (scores,) = [found for (_, figure), found in again.phrases.items() if figure == "cnr"]
    (earlier,) = [found for (_, figure), found in before.phrases.items() if figure == "cnr"]
    assert scores == pytest.approx(earlier, rel=0.02, abs=0.03)
    # 100 steps have moved it: the rows are not those of the base
    first, last = (float(row["fidelity/fd_domain"]) for _, row in sorted(again.runs.items()))
    assert last < 0.9 * first


def test_the_cell_is_one_of_the_experiment() -> None:
    """A twentieth of the steps, and the settings of a point of the sweep."""
    sweep = read_sweep_file(ROOT / "sweeps" / "phantom_tradeoff.yaml")
    point = {"model.freeze_text_encoder": True, "model.min_snr_gamma": 5.0, "model.unet": "assets/phantom_base", "seed_everything": 0}  # fmt: skip # noqa: E501
    assert point in list(grid(sweep.parameters))
    (row, *_) = rows.read(RESULTS / "one_twentieth").runs.values()
    assert (row["encoder"], row["weights"], row["base"], row["seed"]) == ("frozen", "min-SNR 5", "phantom_base", "0")
    assert int(row["train_images"]) * 20 == 32000
