"""Tables 2, 4, 5 and 6 from hand-made evaluation folders: every number against its own computation."""

from pathlib import Path
from statistics import mean, stdev

import pytest
from sklearn.metrics import roc_auc_score

from meddiff.common.findings import FINDINGS
from meddiff.evaluation.coco import coco_summary
from meddiff.metrics.summary import SCORES
from meddiff.reports.paper.build import build_tables
from meddiff.reports.paper.cells import MACRO, PRINTED
from meddiff.reports.paper.render import plain
from meddiff.runs.tables import read_table, write_table
from meddiff.runs.values import number
from tests.builders.evaluation_folders import by_class, column, effect, make_evaluation, phrases

ROOT = Path(__file__).parent.parent.parent


def test_published_averages_of_table_5_follow_from_its_classes(paper_tables):
    for source in ("real p19 test", "learnable", "frozen"):
        cells = column(paper_tables["table5"], f"paper: {source}")
        assert abs(cells[MACRO].value - cells[PRINTED].value) <= 0.1


def test_table_5_says_of_how_many_images_each_class_speaks(paper_tables, evaluated_runs):
    rows = read_table(evaluated_runs["frozen0"] / "evaluation/000016000/classifier.csv")
    table = paper_tables["table5"]
    place = table.columns.index
    for row in table.rows:
        of_class = [one for one in rows if one["class"] == row[0].value and one["source"] == "drawn"]
        if of_class:
            positives = sum(float(one["label"]) > 0 for one in of_class)
            assert row[place("n images +")].value == str(positives)
            assert row[place("n images -")].value == str(len(of_class) - positives)


def test_fidelity_stands_beside_the_row_of_its_protocol(paper_tables):
    table = paper_tables["table4"]
    rows = {str(row[0].value): row for row in table.rows}
    paper_row = next(row for name, row in rows.items() if "normalised twice" in name and "MS-CXR" not in name)
    place = table.columns.index
    assert paper_row[place("frozen")].value == pytest.approx(mean([75.5, 76.5, 77.5]))
    assert paper_row[place("frozen")].std == pytest.approx(1.0)
    assert [paper_row[place(f"paper: {name}")].value for name in ("SDv2", "learnable", "frozen")] == [237.6, 61.9, 75.5]
    assert paper_row[place("control: real images")].value == 3.0
    assert paper_row[place("control: noise")].value == 400.0
    assert "control: untrained" not in table.columns
    standard = rows["FID (Inception), standard"]
    assert standard[place("paper: frozen")].value is None
    assert rows["FID_XRV, 224 px"][place("paper: learnable")].value == 7.7
    assert rows["FD, domain classifier"][place("learnable")].value == pytest.approx(0.2 * 62.9)
    assert rows["FID (Inception), standard"][place("n images (MS-SSIM: n pairs)")].value == "200"


def test_similarity_is_the_mean_over_pairs_in_percent(paper_tables, evaluated_runs):
    row = next(row for row in paper_tables["table4"].rows if row[0].value == "MS-SSIM %, within a prompt")
    cell = row[paper_tables["table4"].columns.index("frozen")]
    values = []
    for seed in range(3):
        found = read_table(evaluated_runs[f"frozen{seed}"] / "evaluation/000016000/diversity.csv")
        values.append(100 * mean(float(r["value"]) for r in found if r["protocol"] == "standard" and r["value"]))
    assert cell.value == pytest.approx(mean(values))
    assert cell.std == pytest.approx(stdev(values))
    assert cell.low < cell.value < cell.high


def test_classifier_auroc_is_scikit_learns(paper_tables, evaluated_runs):
    for head, source, seeds in (("frozen", "drawn", range(3)), ("real images", "real", range(1))):
        cells = column(paper_tables["table5"], head)
        runs_areas = []
        for seed in seeds:
            found = read_table(evaluated_runs[f"frozen{seed}"] / "evaluation/000016000/classifier.csv")
            areas = {}
            for name in FINDINGS:
                rows = [row for row in found if row["source"] == source and row["class"] == name]
                areas[name] = 100 * roc_auc_score([int(r["label"]) for r in rows], [float(r["score"]) for r in rows])
            runs_areas.append(areas)
        for name in FINDINGS:
            assert cells[name].value == pytest.approx(mean(areas[name] for areas in runs_areas))
        average = [mean(areas.values()) for areas in runs_areas]
        assert cells[MACRO].value == pytest.approx(mean(average))
        assert cells[MACRO].low < cells[MACRO].value < cells[MACRO].high
        assert cells[MACRO].std == (None if len(average) < 2 else pytest.approx(stdev(average)))


def test_best_words_are_those_with_the_highest_mean(paper_tables, six_runs):
    table = paper_tables["table6"]

    def words(label: str, pieces: str) -> list[tuple[str, ...]]:
        place = table.columns.index("frozen")
        rows = [row for row in table.rows if [c.value for c in row[:2]] == [pieces, label]]
        return [(str(row[2].value), *(text for _, text in row[place].remarks)) for row in rows]

    # "small" occurs 20 times, not more than 25
    expected = [
        ("1", "EOS", "30"),
        ("2", "apical", "30"),
        ("3", "pneumothorax", "30"),
        ("SOS", "SOS", "30"),
        ("EOS", "EOS", "30"),
    ]
    assert words("Pneumothorax", "first") == expected
    cell = column(table, "frozen", "first", "Edema")["1"]
    true = [effect("frozen", "Edema") + 0.01 * seed + 0.001 * 14.5 for seed in range(3)]
    assert cell.value == pytest.approx(mean(true), abs=1e-5)
    assert cell.std == pytest.approx(0.01, abs=1e-5)
    assert column(table, "frozen", "all", "Edema")["1"].value == pytest.approx(mean(true) + 0.1, abs=1e-5)
    assert plain(column(table, "paper: frozen", "first", "Edema")["1"]) == "1.25 (pulmonary, 39)"
    assert plain(column(table, "paper: frozen", "first", "Edema")["EOS"]) == "0.96 (EOS, 46)"
    assert any("lower --min_occurrences" in note and "Atelectasis" in note for note in table.notes)
    table = build_tables(six_runs, [6], min_occurrences=19)[0]
    assert words("Pneumothorax", "first")[:2] == [("1", "small", "20"), ("2", "EOS", "30")]


def test_table_2_is_the_evaluations_own_average_however_often_an_image_is_described(tmp_path):
    out = make_evaluation(tmp_path / "t", cohort="mscoco")
    rows = read_table(out / "coco.csv")
    label, key = rows[0]["class"], rows[0]["key"]
    more = [{**rows[0], "phrase": f"caption {i}", "auroc": "0.01"} for i in range(7)]
    unknown = [{**rows[0], "key": "nowhere", "phrase": "x", "cnr": "", "auroc": ""}]
    write_table(out / "coco.csv", [*rows, *more, *unknown])
    table = next(table for table in build_tables([tmp_path / "t"], [2]))
    cells = {name: table.rows[0][place].value for place, name in enumerate(table.columns)}
    numbers = [{**row, **{name: number(row.get(name)) for name in SCORES}} for row in [*rows, *more, *unknown]]
    summary = coco_summary(numbers)
    assert cells["AUROC %, macro"] == pytest.approx(100 * summary["macro_auroc"])
    assert cells["AUROC %, micro"] == pytest.approx(100 * summary["auroc"])
    by_caption = mean(float(row["auroc"]) for row in [*rows, *more] if row["auroc"])
    assert cells["AUROC %, micro"] != pytest.approx(100 * by_caption), (label, key)


def test_mscoco_has_table_2_and_no_other(tmp_path):
    make_evaluation(tmp_path / "t", cohort="mscoco")
    found = {table.name: table for table in build_tables([tmp_path / "t"])}
    assert "MS-COCO" in found["table1"].missing
    assert [name for name, table in found.items() if not table.missing] == ["table2"]
    table = found["table2"]
    mine, *published = table.rows
    place = table.columns.index
    rows = phrases(tmp_path / "t", "coco")
    images: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        images.setdefault((row["class"], row["key"]), []).append(float(row["auroc"]))
    means = [{"class": label, "auroc": mean(values)} for (label, _), values in images.items()]
    assert mine[place("AUROC %, macro")].value == pytest.approx(100 * mean(by_class(means, "auroc").values()))
    assert mine[place("AUROC %, micro")].value == pytest.approx(100 * mean(row["auroc"] for row in means))
    assert (mine[place("n samples")].value, mine[place("classes")].value) == (
        len(images),
        len({label for label, _ in images}),
    )
    assert len(images) < len(rows), "the control: an average over captions would be another one"
    assert mine[place("FID, as in the paper")].value == 75.5
    assert [row[place("FID, as in the paper")].value for row in published] == [26.1, 29.5, 25.0, 25.8, 19.4]
    assert [row[place("AUROC %, macro")].value for row in published] == [91.8, 79.0, 90.1, 91.3, 91.5]
