"""A benchmark's rows beside ours: shared where N, features and data agree; refused, with its reason, where one does not."""

import csv
from collections.abc import Mapping
from pathlib import Path

import pytest

from meddiff.cli.evaluate import ALIASES, parse
from meddiff.cli.tables import main
from meddiff.common.errors import UserError
from meddiff.common.files import write_json
from meddiff.common.places import locate
from meddiff.reports.paper.benchmark import COLUMNS, CONFIG, FIGURES, FILE, NOT_HERE, read_benchmark
from meddiff.reports.paper.build import build_tables
from meddiff.reports.paper.cells import Table
from meddiff.runs.tables import write_table

WAY = {"sampler": "pndm", "steps": 50, "guidance_scale": 7.5}
VALUES = {"fd": 60.5, "kid": 0.02, "precision": 0.6, "recall": 0.5, "density": 0.7, "coverage": 0.4, "alignment": 0.3}
REAL = {"fd": 3.0, "kid": -0.001, "precision": 0.9, "recall": 0.95, "density": 1.0, "coverage": 0.96, "alignment": 0.8}


def measured(
    run: Path,
    n: int = 5000,
    extractor: str = "raddino_299",
    cohort: str = "llava-test",
    way: Mapping[str, object] | None = WAY,
    seed: int = 0,
    name: str = "trial",
    cosine: bool = True,
) -> Path:
    """An evaluation with fidelity, coverage and alignment, and their controls; features of one extractor."""
    out = run / "evaluation/000016000"
    about = {"model": name, "images": 16000, "seed": seed, "freeze_text_encoder": True, "prompt": "impression"}
    parts = {part: {"sampling": way} for part in ("fidelity", "coverage", "alignment")}
    write_json(out / "evaluation.json", {**about, "cohort": cohort, "parts": parts})
    rows = [
        {"metric": f"{kind}_{extractor}", "value": values[kind] + (0 if control else seed), "n": n, "control": control}
        for kind in ("fd", "kid")
        for control, values in (("", VALUES), ("real_vs_real", REAL))
    ]
    write_table(out / "fidelity.csv", rows, ("metric", "value", "n", "control"))
    covered = [
        {"extractor": extractor, "control": control, "n": n, **{one: values[one] for one in list(VALUES)[2:-1]}}
        for control, values in (("", VALUES), ("held_out", REAL))
    ]
    write_table(out / "coverage.csv", covered, ("extractor", "control"))
    if cosine:
        aligned = [
            {"control": control, "n": n, "cosine": values["alignment"]}
            for control, values in (("", VALUES), ("real", REAL), ("shuffled", {"alignment": 0.2}))
        ]
        write_table(out / "alignment.csv", aligned, ("control",))
    return run


def rows_file(path: Path, n: str = "5000", data: str = "llava-test") -> Path:
    """The published rows, with the N and the name of the data that somebody was told."""
    with FILE.open(encoding="utf-8", newline="") as stream:
        rows = [{**row, "n": n, "data": data} for row in csv.DictReader(stream)]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def tables(rows: Path, *runs: Path) -> dict[str, Table]:
    return {table.name: table for table in build_tables(runs, (), benchmark=rows)}


def axis(figure: str) -> int:
    """Its place among the axes."""
    return [name for name in read_benchmark() if name in FIGURES].index(figure)


def cells(table: Table, row: str) -> list[float | str | None]:
    return next([cell.value for cell in line[1:]] for line in table.rows if line[0].value == row)


def test_rows_that_agree_stand_beside_each_other_with_their_control(tmp_path: Path) -> None:
    found = tables(rows_file(tmp_path / "rows.csv"), measured(tmp_path / "a"), measured(tmp_path / "b", seed=1))
    table, axes = found["benchmark"], [name for name in read_benchmark() if name in FIGURES]
    assert table.columns[:3] == [
        "model",
        "Frechet distance, raddino_299, N = 5000",
        "kernel distance, raddino_299, N = 5000",
    ]
    assert cells(table, "frozen")[:3] == [pytest.approx(61.0), pytest.approx(0.52), pytest.approx(0.3)], (
        "mean of two seeds"
    )
    assert cells(table, "control: real images of frozen") == [pytest.approx(REAL[name]) for name in axes]
    # the row of Sana as the benchmark prints it
    assert cells(table, "CheXGenBench: Sana") == [54.225, 0.016, 0.695, 0.674, 0.614, 0.520, 0.548]
    assert sum(str(line[0].value).startswith("CheXGenBench: ") for line in table.rows) == 11
    assert {str(line[0].value) for line in found["benchmark_refused"].rows} == {what for what, _ in NOT_HERE.values()}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n": 1000}, "its N is 1000, and the published one is 5000."),
        ({"extractor": "raddino", "cosine": False}, "on features of raddino, and published on those of raddino_299"),
        ({"cohort": "phantom"}, "its data are phantom, and the published ones llava-test."),
        ({"way": {**WAY, "steps": 75, "guidance_scale": 4.0}}, "in 75 steps at guidance 4.0, as none of the published ones."),
        ({"way": None}, "with the model's own settings, which its record does not name"),
    ],
)  # fmt: skip
def test_one_that_differs_is_refused_with_the_reason(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    rows = rows_file(tmp_path / "rows.csv")
    found = tables(rows, measured(tmp_path / "other", **change))
    assert list(found) == ["benchmark_refused"]
    notes = [note for note in found["benchmark_refused"].notes if " of frozen, because" in note]
    assert len(notes) == len(FIGURES)
    if not change.get("cosine", True):
        needed = "lightning evaluate alignment -c configs/evaluation/chexgenbench.yaml --alignment.biovil_t FOLDER"
        assert needed in notes.pop(axis("alignment"))
    assert all(reason in note and note.count(". ") == 0 for note in notes), "one sentence an axis"
    both = tables(rows, measured(tmp_path / "same", name="same"), tmp_path / "other")
    labels = [
        str(line[0].value) for line in both["benchmark"].rows if not str(line[0].value).startswith(("Che", "con"))
    ]
    assert len(labels) == 1, "the control: the one that agrees is shown, and it alone"
    assert reason in " ".join(both["benchmark_refused"].notes)


def test_only_the_axis_that_differs_is_refused(tmp_path: Path) -> None:
    run = measured(tmp_path / "a")
    few = [{"extractor": "raddino_299", "control": "", "n": 100, "precision": 0.6}]
    write_table(run / "evaluation/000016000/coverage.csv", few, ("extractor", "control"))
    found = tables(rows_file(tmp_path / "rows.csv"), run)
    assert len(found["benchmark"].columns) == 4
    notes = " ".join(found["benchmark_refused"].notes)
    assert "precision, k = 5 of frozen, because its N is 100, and the published one is 5000." in notes
    assert "recall, k = 5 of frozen, because it was not measured (`lightning evaluate coverage -c" in notes


def test_the_benchmark_states_no_n_so_that_nothing_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = read_benchmark()
    assert {one.n for one in published.values()} == {""}
    assert [len(one.rows) for name, one in published.items() if name in FIGURES] == [11] * 7
    assert published["fd"].rows["RadEdit"]["value"] == "69.695"
    assert published["recall"].rows["LLM-CXR"]["value"] == "0.041"
    assert published["pixel_distance"].rows["Sana"]["value"] == "162.901"
    (data,) = {one.data for one in published.values()}
    run = measured(tmp_path / "a", cohort=data)  # all else agrees
    assert main([str(run), "--benchmark"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "its N is 5000, and the published one is not known." in out
    assert "54.225" not in out
    assert "Table 1" not in out
    assert main([str(run), "--benchmark_rows", str(rows_file(tmp_path / "rows.csv", data=data)), "--tables", "2"]) == 0
    out = capsys.readouterr().out
    assert "54.225" in out
    assert "Table 2 needs MS-COCO" in out


def test_rows_of_a_user_are_checked(tmp_path: Path) -> None:
    good = rows_file(tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()
    for lines, words in (
        (["figure,value", "fd,1"], "has no column 'class'"),
        ([good[0], good[1].replace("fd,", "fad,")], "row 2 has the figure 'fad'; there are fd, kid"),
        ([good[0], good[1].replace("125.186", "low")], "row 2, column 'value' is 'low' and no number"),
        ([good[0], good[1], good[2].replace(",5000,", ",1000,")], "rows of 'fd' differ in 'n' ('1000' and '5000')"),
        ([], "has no column 'figure'"),
    ):
        path = tmp_path / "bad.csv"
        path.write_text("\n".join(lines), encoding="utf-8")
        with pytest.raises(UserError) as caught:
            read_benchmark(path)
        assert words in str(caught.value)
    with pytest.raises(UserError, match="cannot read"):
        read_benchmark(tmp_path / "none.csv")


def test_the_config_measures_what_the_benchmark_does() -> None:
    options = parse("all", ALIASES["all"], ["-c", str(locate(CONFIG)), "--run", "x"])
    published = read_benchmark()
    for part in ("fidelity", "coverage"):
        one = options[part]
        assert list(one.weights) == [published["fd"].extractor] == ["raddino_299"]
        assert (one.samples, one.sampling.sampler) == (5000, "pndm")
        assert (one.sampling.steps, one.sampling.guidance_scale) in published["fd"].ways
    text = locate(CONFIG).read_text(encoding="utf-8")
    assert "N           not found" in text
    assert "k = 5" in text
