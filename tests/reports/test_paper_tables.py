"""Tables 1, 3 and 7 from hand-made evaluation folders: every number against its own computation."""

from collections import Counter, defaultdict
from pathlib import Path
from statistics import mean, stdev

import pytest
from scipy import stats

from meddiff.common.findings import FINDINGS
from meddiff.reports.paper import published as paper
from meddiff.reports.paper.build import build_tables
from meddiff.reports.paper.cells import MACRO, MICRO, PRINTED, Table
from meddiff.reports.paper.render import plain
from meddiff.runs.tables import read_table, write_table
from tests.builders.evaluation_folders import by_class, column, effect, make_evaluation, phrases

ROOT = Path(__file__).parent.parent.parent


# The paper's own values.


@pytest.mark.parametrize(
    ("method", "kind", "value"),
    [
        ("frozen", MICRO, 0.920),
        ("learnable", MICRO, 0.133),
        ("SDv2", MICRO, 0.321),
        ("GLoRIA", MACRO, 0.930),
        ("BioViL-L", MACRO, 1.142),
    ],
)
def test_printed_averages_follow_from_class_values_and_counts(paper_tables, method, kind, value):
    cells = column(paper_tables["table3"], f"paper: {method}")
    assert cells[PRINTED].value == value
    assert cells[PRINTED].remarks == (("average", "micro" if kind == MICRO else "macro"),)
    assert abs(cells[kind].value - value) <= 0.003
    other = MACRO if kind == MICRO else MICRO
    assert abs(cells[other].value - value) > 0.02  # the other kind does not explain it


@pytest.mark.parametrize(
    ("method", "micro", "macro"),
    [
        ("frozen", 0.921, 1.056), ("learnable", 0.133, 0.066), ("SDv2", 0.323, 0.351),
        ("ConVIRT", 0.741, 0.818), ("GLoRIA", 0.826, 0.931), ("BioViL-L", 1.068, 1.144),
    ],
)  # fmt: skip
def test_like_for_like_averages_stand_beside_them(paper_tables, method, micro, macro):
    cells = column(paper_tables["table3"], f"paper: {method}")
    assert cells[MICRO].value == pytest.approx(micro, abs=6e-4)
    assert cells[MACRO].value == pytest.approx(macro, abs=6e-4)
    if method in ("frozen", "learnable", "SDv2"):
        assert column(paper_tables["table1"], f"paper: {method}", "CNR")[MACRO].value == pytest.approx(macro, abs=6e-4)


@pytest.mark.parametrize(
    ("model", "auroc", "top1"),
    [
        ("frozen", (79.2, 82.4), (44.9, 52.6)),
        ("learnable", (54.5, 52.5), (10.1, 10.9)),
        ("SDv2", (60.6, 62.1), (5.7, 4.9)),
    ],
)
def test_averages_of_table_1(paper_tables, model, auroc, top1):
    for metric, (micro, macro) in (("AUROC %", auroc), ("Top-1 (pointing game) %", top1)):
        cells = column(paper_tables["table1"], f"paper: {model}", metric)
        assert (cells[MICRO].value, cells[MACRO].value) == pytest.approx((micro, macro), abs=0.051)
        assert abs(cells[MICRO].value - cells[PRINTED].value) <= 0.55  # printed without decimals
    assert plain(column(paper_tables["table1"], "paper: learnable", "AUROC %")["Edema"]) == "54 ± 1.6"


def test_published_values_are_complete():
    assert paper.counts() == dict(zip(FINDINGS, (61, 333, 117, 46, 82, 96, 182, 245), strict=True))
    assert sum(paper.counts().values()) == 1162
    assert [len(paper.published(number)) for number in range(1, 8)] == [27, 5, 6, 6, 3, 72, 3]
    assert all(set(FINDINGS) <= set(row) for number in (3, 5) for row in paper.published(number))


# Measured ones.


@pytest.mark.parametrize(
    ("metric", "head", "scale"),
    [("cnr", "CNR", 1), ("auroc", "AUROC %", 100), ("top1", "Top-1 (pointing game) %", 100)],
)
@pytest.mark.parametrize("side", ["frozen", "learnable"])
def test_seeds_are_pooled_to_mean_and_deviation(paper_tables, evaluated_runs, metric, head, scale, side):
    cells = column(paper_tables["table1"], side, head)
    seeds = [phrases(evaluated_runs[f"{side}{seed}"]) for seed in range(3)]
    micro = [scale * mean(float(row[metric]) for row in rows) for rows in seeds]
    classes = [by_class(rows, metric) for rows in seeds]
    macro = [scale * mean(found.values()) for found in classes]
    for cell, values in ((cells[MICRO], micro), (cells[MACRO], macro)):
        assert cell.value == pytest.approx(mean(values))
        assert cell.std == pytest.approx(stdev(values))
        assert cell.low < cell.value < cell.high
    for name in FINDINGS:
        values = [scale * found[name] for found in classes]
        assert cells[name].value == pytest.approx(mean(values))
        assert cells[name].std == pytest.approx(stdev(values), abs=1e-9)


def test_counts_leave_out_undefined_maps_and_say_so(paper_tables, evaluated_runs):
    n = column(paper_tables["table1"], "n phrases", "CNR")
    expected = Counter(row["class"] for row in phrases(evaluated_runs["frozen0"]))
    assert {name: int(n[name].value) for name in FINDINGS} == expected
    assert int(n[MICRO].value) == sum(expected.values()) == 93
    assert column(paper_tables["table1"], "n phrases, paper", "CNR")["Edema"].value == 46
    assert "frozen: samples without a defined CNR, in no column: 1." in paper_tables["table1"].notes


def test_known_effects_are_recovered(paper_tables):
    """Class means are within 4 standard errors of the effects the folders were made with."""
    for side in ("frozen", "learnable"):
        cells = column(paper_tables["table3"], side)
        for name in FINDINGS:
            assert cells[name].value == pytest.approx(effect(side, name), abs=0.45)
        truth = mean(effect(side, name) for name in FINDINGS)
        assert cells[MACRO].value == pytest.approx(truth, abs=0.2)


def test_one_seed_has_no_deviation(evaluated_runs):
    cells = column(build_tables([evaluated_runs["frozen0"]], [3])[0], "frozen")
    assert all(cells[name].std is None for name in (*FINDINGS, MICRO, MACRO))
    assert cells[MACRO].low is not None
    without = column(build_tables([evaluated_runs["frozen0"]], [3], intervals=False)[0], "frozen")
    assert without[MACRO].low is None
    assert without[MACRO].value == cells[MACRO].value


def test_paired_tests_by_class(paper_tables, evaluated_runs):
    tests = paper_tables["table3"].below[0]
    sides: list[dict[tuple[str, str, str], list[float]]] = [
        {(row["key"], row["class"], row["phrase"]): [] for row in phrases(evaluated_runs[f"{side}0"])}
        for side in ("frozen", "learnable")
    ]
    for side, found in zip(("frozen", "learnable"), sides, strict=True):
        for seed in range(3):
            for row in phrases(evaluated_runs[f"{side}{seed}"]):
                found[row["key"], row["class"], row["phrase"]].append(float(row["cnr"]))
    names = ("p", "p Holm", "p BH", "p Wilcoxon", "difference", "n phrases", "images")
    cells = {head: column(tests, head, "CNR", "frozen - learnable") for head in names}
    raw, ranks = [], []
    for name in FINDINGS:
        images: dict[str, list[float]] = defaultdict(list)
        for sample in sides[0]:
            if sample[1] == name:
                images[sample[0]].append(mean(sides[0][sample]) - mean(sides[1][sample]))
        everything = [value for values in images.values() for value in values]
        assert cells["n phrases"][name].value == len(everything)
        assert cells["images"][name].value == len(images)
        assert cells["difference"][name].value == pytest.approx(mean(everything))
        exact = stats.permutation_test(
            ([sum(values) for values in images.values()], [0.0] * len(images)),
            lambda a, b, axis: (a - b).sum(axis=axis), permutation_type="samples", vectorized=True, n_resamples=10**6,
        )  # fmt: skip
        raw.append(exact.pvalue)
        ranks.append(stats.wilcoxon([mean(values) for values in images.values()]).pvalue)
        assert cells["p"][name].value == pytest.approx(exact.pvalue)  # 12 images: exact
        assert cells["p Wilcoxon"][name].value == pytest.approx(ranks[-1])
    assert [cells["p BH"][name].value for name in FINDINGS] == pytest.approx(
        stats.false_discovery_control(raw).tolist()
    )
    assert cells["p Holm"]["Edema"].value >= cells["p"]["Edema"].value
    assert cells["difference"]["Pneumothorax"].value < 0 < cells["difference"]["Edema"].value
    micro = cells["difference"][MICRO]
    assert micro.value == pytest.approx(tables_difference(paper_tables, MICRO), abs=1e-9)
    assert 0 < micro.low < micro.value < micro.high
    assert cells["difference"][MACRO].value == pytest.approx(tables_difference(paper_tables, MACRO), abs=1e-9)


def tables_difference(tables: dict[str, Table], kind: str) -> float:
    cells = [column(tables["table3"], side)[kind].value for side in ("frozen", "learnable")]
    return cells[0] - cells[1]


def test_a_shuffled_pairing_shows_nothing(tmp_path):
    """Which model has which score is tossed by image and phrase: no class may stand out."""
    runs = [tmp_path / name / "t" for name in ("a", "b")]
    for seed, run in enumerate(runs):
        make_evaluation(run, "frozen", seed, name=run.parent.name)
    first, second = (read_table(run / "evaluation/000016000/grounding.csv") for run in runs)
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        if (i * 7919) % 13 % 2:
            a["cnr"], b["cnr"] = b["cnr"], a["cnr"]
    for run, rows in zip(runs, (first, second), strict=True):
        write_table(run / "evaluation/000016000/grounding.csv", rows)
    tests = build_tables(runs, [3])[0].below[0]
    assert min(column(tests, "p Holm")[name].value for name in FINDINGS) > 0.05
    micro = column(tests, "difference")[MICRO]
    assert micro.low < 0 < micro.high


def test_models_on_other_samples_are_not_tested(tmp_path, evaluated_runs):
    out = make_evaluation(tmp_path / "t", "learnable")
    rows = read_table(out / "grounding.csv")
    write_table(out / "grounding.csv", [{**row, "key": f"other{row['key']}"} for row in rows])
    table = build_tables([evaluated_runs["frozen0"], tmp_path / "t"], [3], intervals=False)[0]
    assert table.below == []
    assert column(table, "learnable")[MICRO].value is not None


def test_prompt_variability_has_a_row_for_each_text(evaluated_runs, six_runs):
    others = [evaluated_runs[f"{side}-{text}"] for side in ("frozen", "learnable") for text in ("synthetic", "label")]
    table = build_tables([*six_runs, *others], [7])[0]
    assert table.columns[3:] == ["n phrases", "learnable", "frozen", "paper: learnable", "paper: frozen"]
    for text, published in (("impression", (0.15, 0.95)), ("synthetic", (0.22, 0.42)), ("label", (0.29, 0.80))):
        for side, value in zip(("learnable", "frozen"), published, strict=True):
            names = [f"{side}{seed}" for seed in range(3)] if text == "impression" else [f"{side}-{text}"]
            folders = [evaluated_runs[name] for name in names]
            micro = [mean(float(row["cnr"]) for row in phrases(folder, "impressions")) for folder in folders]
            macro = [mean(by_class(phrases(folder, "impressions"), "cnr").values()) for folder in folders]
            cells = column(table, side, text)
            assert cells[MICRO].value == pytest.approx(mean(micro))
            assert cells[MACRO].value == pytest.approx(mean(macro))
            printed = column(table, f"paper: {side}", text)
            assert (printed[MICRO].value, printed[MACRO].value) == (value, None)
    compared = {str(row[1].value) for row in table.below[0].rows}
    assert "frozen label - learnable label" in compared
    assert "frozen impression - frozen synthetic" in compared
    assert "frozen impression - learnable label" not in compared


def test_prompt_variability_says_which_texts_are_missing(paper_tables):
    assert (
        "No run trained on synthetic or label texts (`lightning fit --data.prompt`) was given."
        in paper_tables["table7"].notes
    )
    assert column(paper_tables["table7"], "frozen", "label")[MICRO].value is None
