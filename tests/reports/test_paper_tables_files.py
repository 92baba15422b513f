"""What the paper's tables read and write: runs and models, formats, bad input."""

import csv
import io
import json
import math
from pathlib import Path

import pytest

from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS
from meddiff.reports.paper.build import build_tables, render, write_tables
from meddiff.reports.paper.cells import MACRO, MICRO, PRINTED, Cell, Table
from meddiff.reports.paper.pooling import group_models
from meddiff.reports.paper.render import RENDERERS, plain
from meddiff.runs.evaluation_folder import read_evaluation
from tests.builders.evaluation_folders import column, make_evaluation

ROOT = Path(__file__).parent.parent.parent


# Reading.


def test_runs_are_grouped_by_all_but_the_seed(evaluated_runs, six_runs, tmp_path):
    models = group_models([read_evaluation(run) for run in [*six_runs, evaluated_runs["frozen-label"]]])
    assert [(m.label, len(m.evaluations)) for m in models] == [
        ("frozen impression", 3),
        ("learnable impression", 3),
        ("frozen label", 1),
    ]
    base = make_evaluation(tmp_path / "base" / "t", "base", images=0)
    models = group_models([read_evaluation(six_runs[0]), read_evaluation(six_runs[0]), read_evaluation(base)])
    assert [(m.label, len(m.evaluations)) for m in models] == [("frozen", 1), ("base", 1)]
    # a second run of the same seed is no further seed
    make_evaluation(tmp_path / "again" / "t9", "frozen", 0)
    models = group_models([read_evaluation(six_runs[0]), read_evaluation(tmp_path / "again" / "t9")])
    assert [(m.label, len(m.evaluations)) for m in models] == [("frozen t0", 1), ("frozen t9", 1)]
    # nor is a run with another learning rate
    other = tmp_path / "other" / "t1"
    make_evaluation(other, "frozen", 1)
    config = (
        (other / "config.yaml")
        .read_text()
        .replace("model:\n  init_args:", "model:\n  init_args:\n    learning_rate: 1.0")
    )
    (other / "config.yaml").write_text(config)
    assert len(group_models([read_evaluation(six_runs[0]), read_evaluation(other)])) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "No run is given"),
        ((["nowhere"],), "No run folder at nowhere"),
        ((["."], [8]), "no table 8"),
        ((["."], [1], None, -1), "min_occurrences is -1"),
    ],
)
def test_bad_input_is_a_sentence(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        build_tables(*arguments)


def test_a_run_without_evaluation_names_the_command(tmp_path):
    with pytest.raises(UserError, match=f"run `lightning evaluate all --run {tmp_path}` first"):
        build_tables([tmp_path])
    out = make_evaluation(tmp_path / "t")
    (out / "evaluation.json").write_text("{")
    with pytest.raises(UserError, match="evaluate again"):
        build_tables([tmp_path / "t"])


def test_differing_settings_are_said(evaluated_runs, tmp_path):
    out = make_evaluation(tmp_path / "t", "learnable")
    about = json.loads((out / "evaluation.json").read_text())
    about["parts"]["grounding"]["timesteps"] = 40
    (out / "evaluation.json").write_text(json.dumps(about))
    notes = build_tables([evaluated_runs["frozen0"], tmp_path / "t"], [1], intervals=False)[0].notes
    assert any("differ in their settings (timesteps)" in note for note in notes)


def test_what_was_not_measured_is_one_line(paper_tables, tmp_path):
    assert paper_tables["table2"].missing == "Table 2 needs MS-COCO: a run trained and evaluated on the cohort mscoco."
    out = make_evaluation(tmp_path / "t")
    for name in ("grounding", "impressions", "words", "fidelity", "diversity", "classifier"):
        (out / f"{name}.csv").unlink()
    found = build_tables([tmp_path / "t"])
    assert [bool(table.missing) for table in found] == [True] * 7
    assert found[0].missing == f"Table 1 needs grounding: `lightning evaluate grounding --run {tmp_path / 't'}`."
    assert all("\n" not in table.missing for table in found)


# Writing.


def test_text_is_aligned_and_says_how_to_read_it(paper_tables):
    text = RENDERERS["text"](paper_tables["table1"])
    lines = text.splitlines()
    rule = lines[1]
    assert set(rule) == {"-"}
    block = lines[2 : lines.index(rule, 4)]
    end = block[0].index("n phrases, paper") + len("n phrases, paper")
    assert {line[:end][-1] for line in block[2:] if "printed" not in line} <= set("0123456789")
    assert "Compare micro with micro" in text
    assert "standard deviation over seeds" in text
    assert "Paired tests" in text


def test_csv_holds_full_numbers(paper_tables):
    rows = list(csv.DictReader(io.StringIO(RENDERERS["csv"](paper_tables["table3"]))))
    cells = column(paper_tables["table3"], "frozen")
    assert [row["class"] for row in rows] == [*FINDINGS, MICRO, MACRO, PRINTED]
    for row in rows[:-1]:
        cell = cells[row["class"]]
        assert float(row["frozen"]) == pytest.approx(cell.value, rel=1e-5)
        assert float(row["frozen std"]) == pytest.approx(cell.std, rel=1e-5)
        assert (row["frozen low"] == "") == (cell.low is None)
    assert rows[-1]["paper: BioViL-L average"] == "macro"


def test_markdown_and_latex_are_whole():
    table = Table(
        "table1",
        "A 100 % title",
        ["class", "x"],
        [[Cell("a_b & c|d"), Cell(0.5, 0.1, 0.4, 0.6, digits=1)]],
        ["50 % of it."],
    )
    markdown = RENDERERS["markdown"](table)
    assert "| a_b & c\\|d | 0.5 ± 0.1 [0.4, 0.6] |" in markdown
    assert "| --- | ---: |" in markdown
    latex = RENDERERS["latex"](table)
    assert r"a\_b \& c\textbar{}d & 0.5 $\pm$ 0.1 [0.4, 0.6] \\" in latex
    assert r"\caption{A 100 \% title}" in latex
    assert latex.count(r"\begin") == latex.count(r"\end") == 2


def test_numbers_are_printed_plainly():
    assert plain(Cell(-0.0001, digits=2)) == "0.00"
    assert plain(Cell(-0.126, digits=2)) == "-0.13"
    assert plain(Cell(3e-9, digits=4)) == "<0.0001"
    assert plain(Cell(0.0, digits=1)) == "0.0"
    assert plain(Cell()) == ""


@pytest.mark.parametrize("style", ["text", "markdown", "csv", "latex"])
def test_every_table_renders_in_every_format(paper_tables, style):
    text = render(list(paper_tables.values()), style)
    assert "nan" not in text.lower().replace("finance", "")
    assert "None" not in text
    assert text.endswith("\n")


def test_files_are_one_a_table_and_format(paper_tables, tmp_path):
    written = write_tables(list(paper_tables.values()), tmp_path / "new" / "tables")
    names = sorted(path.name for path in written)
    expected = [f"table{n}.{end}" for n in range(1, 8) for end in ("txt", "md", "csv", "tex")]
    assert names == sorted([*expected, *(f"table{n}_tests.csv" for n in (1, 3, 7))])
    assert sorted(path.name for path in (tmp_path / "new" / "tables").iterdir()) == names
    assert (tmp_path / "new" / "tables" / "table2.md").read_text() == paper_tables["table2"].missing + "\n"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_tables(list(paper_tables.values()), tmp_path / "file")


def test_the_same_input_gives_the_same_text(paper_tables, six_runs):
    assert render(build_tables(six_runs), "text") == render(list(paper_tables.values()), "text")
    assert math.isfinite(column(paper_tables["table1"], "frozen", "CNR")[MICRO].low)
