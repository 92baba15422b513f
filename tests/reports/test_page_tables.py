"""The tables behind the page: columns, seeds pooled, intervals, names; and the sentence that the page begins with."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from meddiff.reports.page.claim import claim, paired
from meddiff.reports.page.derived import class_rows, columns, exclusions, mean_of, over_runs, rows_of
from meddiff.reports.page.sections import median
from meddiff.reports.page.tables import Tables
from meddiff.reports.page.wording import compact, direction, fidelity_keys, glossary, label, meaning, term, value_text
from meddiff.runs.distinct_names import distinct_names
from meddiff.runs.folder import Evaluation, Run, read_run

DISTANCE, CNR = "fidelity/fd_domain", "grounding/macro_cnr"


def run_with(name: str = "r", **parts: object) -> Run:
    """A run of which these parts are known, without files."""
    run = Run(Path(name))
    run.name = name
    for part, value in parts.items():
        setattr(run, part, value)
    return run


def run_of(
    points: list[tuple[int, float, float]], frozen: bool, seed: int = 0, prompt: str = "label", **more: object
) -> Run:
    """A run with (images, distance, CNR) at each evaluation."""
    rows = [Evaluation(n // 16, n, {DISTANCE: x, CNR: y}) for n, x, y in points]
    config = {
        "seed_everything": seed,
        "model": {"init_args": {"freeze_text_encoder": frozen, **more}},
        "data": {"init_args": {"prompt": prompt}},
    }
    return run_with(
        f"{'frozen' if frozen else 'learnable'}-{prompt}-{seed}{more or ''}", evaluations=rows, config=config
    )


def test_a_table_is_plain_columns_that_travel_as_json():
    table = columns([{"a": 1, "b": float("nan")}, {"a": "x\x1b[2J", "c": math.inf}])
    assert table == {"a": [1, "x\\x1b[2J"], "b": [None, None], "c": [None, None]}
    assert rows_of(json.loads(json.dumps(table, allow_nan=False))) == rows_of(table)
    assert columns([]) == {}


def test_evaluations_have_who_where_and_every_measured_name():
    tables = Tables([run_of([(0, 90.0, 0.1), (1600, 10.0, 0.9)], True), run_of([(0, 90.0, 0.1)], False, 3)])
    rows = rows_of(tables.evaluations)
    assert [(r["run"], r["encoder"], r["prompt"], r["seed"], r["images"]) for r in rows] == [
        ("frozen-label-0", "frozen", "label", 0, 0),
        ("frozen-label-0", "frozen", "label", 0, 1600),
        ("learnable-label-3", "learnable", "label", 3, 0),
    ]
    assert [(r["distance"], r["cnr"]) for r in rows] == [(r[DISTANCE], r[CNR]) for r in rows]


def test_seeds_are_pooled_where_all_of_them_are_and_nothing_else_is():
    runs = [run_of([(0, 90.0, 0.1), (1600, 10.0 + seed, 0.9)], True, seed) for seed in range(2)]
    runs.append(run_of([(0, 50.0, 0.7)], True, 5, learning_rate=0.1))  # another kind
    runs[1].evaluations.append(Evaluation(200, 3200, {DISTANCE: 1.0, CNR: 2.0}))  # the other has not got there
    means = rows_of(Tables(runs).means)
    assert [(row["images"], row["n"]) for row in means] == [(0, 2), (1600, 2)]
    assert (means[1][DISTANCE], means[1][f"{DISTANCE} low"], means[1][f"{DISTANCE} high"]) == (10.5, 10.0, 11.0)


def test_ends_over_seeds_are_an_interval_from_five_on():
    values = [1.0, 2.0, 3.0, 4.0]
    assert over_runs(values) == (2.5, 1.0, 4.0)
    values.append(5.0)
    half = stats.t.ppf(0.975, 4) * np.std(values, ddof=1) / math.sqrt(5)
    assert over_runs(values) == pytest.approx((3.0, 3 - half, 3 + half))
    assert over_runs([2.0] * 6) == (2.0, 2.0, 2.0)


def test_best_values_of_a_run():
    run = run_of([(0, 90.0, 0.1), (800, 20.0, 0.8), (1600, 30.0, 0.6)], True)
    run.controls = {"grounding": {"prior": {"macro_cnr": 0.3}}}
    row = rows_of(Tables([run]).runs)[0]
    assert (row["distance"], row["least_distance"], row["cnr"], row["best_cnr"]) == (30.0, 20.0, 0.6, 0.8)
    assert (row["gain"], row["above_prior"]) == pytest.approx((0.7, 0.5))


def test_words_are_those_that_the_phrases_ask_by():
    phrases = [
        {"key": f"k{i}", "class": "Edema", "words": w, "cnr": str(i)}
        for i, w in enumerate(["edema.", "Edema", "(x) edema"])
    ]
    words = {
        row["word"]: (row["n"], row["cnr"])
        for row in rows_of(Tables([run_with(phrases=phrases, evaluations=[], config={})]).words)
    }
    assert words["edema"] == (3, 1.0)


def test_interval_is_over_images_and_none_below_five():
    values = [0.1, 0.5, 0.9, 0.4, 0.7]
    cells = [(f"k{i}", v) for i, v in enumerate(values)]
    half = stats.t.ppf(0.975, 4) * np.std(values, ddof=1) / math.sqrt(5)
    found = mean_of(cells)
    assert (found["cnr"], found["low"], found["high"]) == pytest.approx(
        (np.mean(values), np.mean(values) - half, np.mean(values) + half)
    )
    assert math.isnan(mean_of(cells[:4])["low"])
    assert math.isnan(mean_of([("k", v) for v in values])["low"])


def test_class_means_never_borrow_the_interval_of_another_evaluation():
    table = [{"key": f"k{i}", "class": "Edema", "cnr": str(v)} for i, v in enumerate((0.2, 0.4, 0.2, 0.4, 0.3))]
    evaluations = [Evaluation(0, 0, {}), Evaluation(1, 16, {"grounding/Edema/cnr": 0.3})]
    run = run_with(phrases=table, evaluations=evaluations)
    assert class_rows(run)[0]["low"] is not None
    run.evaluations.append(Evaluation(2, 32, {"grounding/Edema/cnr": 0.9}))
    row = class_rows(run)[0]
    assert (row["cnr"], row["low"], row["start"]) == (0.9, None, 0.3)
    run.evaluations.clear()
    assert class_rows(run)[0]["cnr"] == pytest.approx(0.3)


def test_loss_is_averaged_and_its_images_follow_the_batch_size(tmp_path):
    rows = "".join(f'{{"step": {i}, "train/loss": {1 + i % 2}}}\n' for i in range(1000))
    (tmp_path / "metrics.jsonl").write_text(rows)
    (tmp_path / "config.yaml").write_text("data: {init_args: {batch_size: 16}}\n")
    run = read_run(tmp_path)
    assert run.logged("train/loss")[10] == (160.0, 1.0)
    table = Tables([run]).loss
    assert len(table["loss"]) == 200
    assert table["images"][0] == 32
    assert table["loss"][0] == pytest.approx(1.4)


def test_published_points_stand_only_under_figures_measured_alike():
    table = Tables([run_of([(0, 1.0, 1.0)], True)]).published
    assert set(table) == {
        "run",
        "encoder",
        "grounding/cnr",
        "grounding/macro_cnr",
        "fidelity/fid_xrv224",
        "fidelity/fid_inception_paper",
    }
    assert table["grounding/cnr"][1:] == pytest.approx([0.133, 0.92], abs=0.02)  # as printed: learnable, frozen
    assert DISTANCE not in table


def test_a_run_knows_its_sweep(tmp_path):
    folder = tmp_path / "freezing" / "runs" / "3"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("name: x\n")
    assert read_run(folder).sweep == ""
    (tmp_path / "freezing" / "runs.jsonl").write_text("")
    assert read_run(folder).sweep == "freezing"


# ---- the sentence


def pair(seed: int, distance: float, cnr: float, prompt: str = "label") -> list[Run]:
    """A frozen and a learnable run; the learnable one is so much better and worse."""
    return [run_of([(0, 90.0, 0.1), (1600, 20.0, 0.9)], True, seed, prompt),
            run_of([(0, 90.0, 0.1), (1600, 20.0 - distance, 0.9 - cnr)], False, seed, prompt)]  # fmt: skip


def said(runs: list[Run]) -> tuple[str, str]:
    distinct_names(runs)
    found = claim(Tables(runs))
    return found.text, found.basis


def test_the_sentence_says_by_how_much_with_its_interval():
    text, basis = said([run for seed in range(6) for run in pair(seed, 5 + 0.1 * seed, 0.4 + 0.01 * seed)])
    assert text.startswith("Learnable against frozen: better images by 5.25 [")
    assert "words point worse by 0.425 [" in text
    assert "6 pairs" in basis
    assert "95 % interval" in basis


def test_the_sentence_claims_nothing_that_pairs_do_not_agree_on():
    text, basis = said([run for seed in range(4) for run in pair(seed, -5.0 if seed % 2 else 6.0, 0.4)])
    assert "no clear difference in images: 0.500 [−5.00, 6.00]" in text
    assert "words point worse by 0.400 [0.400, 0.400]" in text
    assert "least and the greatest" in basis


def test_one_pair_is_said_to_be_one_pair():
    text, basis = said(pair(0, 5.0, -0.2))
    assert "better images by 5.00" in text
    assert "words point better by 0.200" in text
    assert "another seed may differ" in basis


def test_of_one_pair_the_interval_is_over_the_images_both_were_asked_about():
    runs = pair(0, 5.0, 0.5)
    for run, shift in zip(runs, (0.5, 0.0), strict=True):
        run.phrases_images = 1600
        run.phrases = [
            {"key": f"k{i}", "class": "Edema", "phrase": "p", "cnr": str(0.01 * (i % 3) * (shift + 1) + shift)}
            for i in range(12)
        ]
    assert "words point worse by 0.505 [0.50" in said(runs)[0]


def test_before_training_there_is_nothing_to_compare():
    runs = pair(0, 5.0, 0.5)
    begun = [*pair(1, 5.0, 0.5)]
    begun[1].evaluations = begun[1].evaluations[:1]
    assert said([*runs, *begun])[0].replace("[", "").startswith("Learnable against frozen: better images by 5.00")
    assert "not been measured at the same number" in said(begun)[0]


def test_runs_that_differ_by_more_are_no_pair():
    assert paired(Tables(pair(0, 1.0, 1.0))) != []
    other = [pair(0, 1.0, 1.0)[0], pair(1, 1.0, 1.0)[1]]
    assert paired(Tables(other)) == []
    text, basis = said([run_of([(0, 90.0, 0.1), (1600, 20.0, 0.9)], True)])
    assert text == "Frozen: words point better, macro CNR 0.900 from 0.100; images are better, " \
        "Fréchet distance, domain-classifier features 20.00 from 90.00."  # fmt: skip
    assert "beside a run that differs by it alone" in basis


# ---- words and numbers


def test_median():
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([]) is None


def test_exclusions_are_counted_by_reason():
    run = run_with(excluded=[{"reason": "a"}, {"reason": "b"}, {"reason": "b"}, {}])
    assert exclusions(run) == [("b", 2), ("a", 1), ("no reason given", 1)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9344, "0.934"), (1.05, "1.05"), (12.34, "12.34"), (183.04, "183.0"), (-0.02, "−0.020"), (0.0034, "0.0034"),
     (0.0, "0.00"), (None, "–"), (12345.6, "12,346"), (-1e-9, "0.000000")],
)  # fmt: skip
def test_value_text(value, text):
    assert value_text(value) == text


def test_signs_and_digits():
    assert value_text(0.5, sign=True) == "+0.500"
    assert value_text(-0.5, sign=True, digits=1) == "−0.5"
    assert value_text(-0.001, digits=2) == "0.00"
    assert [compact(v) for v in (0, 999, 16000, 999_999, 7_680_000)] == ["0", "999", "16k", "1M", "7.68M"]


def test_names():
    assert label("grounding/macro_cnr") == "macro CNR"
    assert label("grounding/Pleural Effusion/cnr") == "CNR, Pleural Effusion"
    assert label("fidelity/fid_xrv224") == "Fréchet distance, XRV features at 224 px"
    assert label("fidelity/fid_new") == "Fréchet distance, new features"
    assert label("grounding/unheard_of") == "unheard_of"
    assert label("grounding/mask_macro_cnr") == "macro CNR on exact masks"
    assert label("grounding/eos_cnr") == "CNR of the end token"
    assert label("fidelity/pndm/fd_domain") == "Fréchet distance, domain-classifier features, drawn by pndm"
    assert [direction(f"grounding/{name}") for name in ("mask_auroc", "eos_cnr", "own_beats_other", "n")] == [
        1,
        0,
        1,
        0,
    ]
    assert direction("fidelity/pndm/fd_domain") == -1
    assert (direction("grounding/top1"), direction("fidelity/kid_domain"), direction("fidelity/n")) == (1, -1, 0)
    assert "class means" in meaning("grounding/macro_auroc")
    keys = ["fidelity/kid_domain", "fidelity/fid_inception", "fidelity/n", "fidelity/fd_domain", "grounding/cnr"]
    assert fidelity_keys(keys) == ["fidelity/fd_domain", "fidelity/fid_inception", "fidelity/kid_domain"]


def test_every_figure_has_one_place_where_it_is_explained():
    keys = [
        "grounding/cnr",
        "grounding/Edema/cnr",
        "fidelity/pndm/fd_domain",
        "fidelity/fd_domain",
        "grounding/unheard_of",
    ]
    assert term(keys[0]) == term(keys[1]) == "term-grounding-cnr"
    anchors = [anchor for anchor, *_ in glossary(keys)]
    assert len(set(anchors)) == len(anchors)
    assert {term(key) for key in keys[:4]} <= set(anchors)
