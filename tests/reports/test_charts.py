"""Scales, labels, statistics and number texts."""

import math
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from meddiff.reports.page import charts
from meddiff.reports.page.derived import class_interval, class_rows, exclusions, median
from meddiff.reports.page.gallery import marked
from meddiff.reports.page.svg import BOLD, Plot, Scale, limits, text_width, tick_text
from meddiff.reports.page.wording import compact, direction, fidelity_keys, label, meaning, value_text
from meddiff.runs.folder import Evaluation, Run, read_run


def run_with(name: str = "r", **parts: object) -> Run:
    """A run of which these parts are known, without files."""
    run = Run(Path(name))
    run.name = name
    for part, value in parts.items():
        setattr(run, part, value)
    return run


def run_of(points: list[tuple[int, float, float]], name: str = "a") -> Run:
    rows = [Evaluation(n // 16, n, {"fidelity/fd_domain": x, "grounding/macro_cnr": y}) for n, x, y in points]
    return run_with(name, evaluations=rows)


def test_scale_ends_and_ticks():
    scale = Scale(0.0, 10.0, 100.0, 300.0)
    assert (scale(0), scale(5), scale(10)) == (100, 200, 300)
    assert scale.ticks(5) == [0, 2, 4, 6, 8, 10]
    reverse = Scale(1.0, 100.0, 300.0, 100.0, log=True)
    assert reverse(1.0) == 300
    assert reverse(10.0) == pytest.approx(200)
    assert all(1 <= tick <= 100 for tick in reverse.ticks())
    assert len(Scale(11.0, 13.0, 0.0, 1.0, log=True).ticks()) >= 2


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[1.0], [5.0, 5.0], [1e-6, 2e-6], [1.0, 1e6]])
def test_any_values_have_an_axis(values, log):
    low, high = limits(values, log=log)
    assert low < min(values) <= max(values) < high
    assert Scale(low, high, 0.0, 100.0, log=log).ticks()


def test_tick_text_is_exact():
    assert [tick_text(v) for v in (0.0, 0.25, -0.5, 1000.0, 0.003)] == ["0", "0.25", "−0.5", "1,000", "0.003"]


def test_better_images_lie_to_the_right_and_better_grounding_above():
    svg = charts.tradeoff(
        [run_of([(0, 100.0, 0.1), (1600, 10.0, 0.9)])], "fidelity/fd_domain", "grounding/macro_cnr", "", ""
    )
    assert svg is not None
    places = re.findall(r'<circle class="mark (\w*) r0" cx="([\d.]+)" cy="([\d.]+)"', svg)
    (first, x0, y0), (last, x1, y1) = places
    assert (first, last) == ("start", "end")
    assert float(x1) > float(x0)
    assert float(y1) < float(y0)
    assert ">step 0</text>" in svg
    assert ">1.6k images</text>" in svg


def labels_of(svg: str) -> list[tuple[float, float, float, float]]:
    found = []
    for kind, x, y, text in re.findall(r'<text class="(label[^"]*)" x="([\d.-]+)" y="([\d.-]+)">([^<]*)</text>', svg):
        w = text_width(text) * (BOLD if "strong" in kind else 1.0)
        found.append((float(x), float(y) - 11, float(x) + w, float(y) + 3))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_labels_do_not_overlap_and_stay_inside(seed):
    rng = np.random.default_rng(seed)
    runs = []
    for name in ("frozen", "learnable", "a-third-run"):
        fids = np.sort(rng.uniform(5, 150, 12))[::-1]
        runs.append(run_of([(1600 * i, float(f), float(rng.uniform(0, 1.2))) for i, f in enumerate(fids)], name))
        runs[-1].controls = {
            "grounding": {"prior": {"macro_cnr": 0.4 + 0.01 * len(runs)}},
            "fidelity": {"fd_domain": {"real_vs_real": 3.0}},
        }
    svg = charts.tradeoff(runs, "fidelity/fd_domain", "grounding/macro_cnr", "", "")
    assert svg is not None
    boxes = labels_of(svg)
    assert len(boxes) > 8
    for a, b in combinations(boxes, 2):
        assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1]), (a, b)
    assert all(box[0] >= 0 and box[2] <= 860 for box in boxes)


def test_curve_ends_are_named_in_the_margin():
    plot = Plot(400, 200, (0, 1), (0, 1), "x", "y", "z", right=100)
    for value in (0.5, 0.51, 0.52):
        plot.beside((1, value), "train 0.5")
    boxes = labels_of(plot.svg())
    assert len(boxes) == 3
    assert all(box[0] > plot.frame[2] for box in boxes)


def test_loss_is_averaged_and_its_images_follow_the_batch_size(tmp_path):
    rows = "".join(f'{{"step": {i}, "train/loss": {1 + i % 2}}}\n' for i in range(1000))
    (tmp_path / "metrics.jsonl").write_text(rows)
    (tmp_path / "config.yaml").write_text("data: {init_args: {batch_size: 16}}\n")
    run = read_run(tmp_path)
    assert run.logged("train/loss")[10] == (160.0, 1.0)
    drawn = charts.loss([run])
    assert drawn is not None
    svg, size = drawn
    assert size == 5
    assert ">training images</text>" in svg


def test_interval_is_over_images_and_none_below_five():
    values = [0.1, 0.5, 0.9, 0.4, 0.7]
    rows = [{"key": f"k{i}", "class": "Edema", "cnr": str(v)} for i, v in enumerate(values)]
    half = stats.t.ppf(0.975, 4) * np.std(values, ddof=1) / math.sqrt(5)
    expected = (np.mean(values), np.mean(values) - half, np.mean(values) + half)
    assert class_interval(run_with(phrases=rows), "Edema") == pytest.approx(expected)
    assert class_interval(run_with(phrases=rows[:4]), "Edema") is None
    assert class_interval(run_with(phrases=[{**row, "key": "k"} for row in rows]), "Edema") is None
    assert class_interval(run_with(phrases=rows), "Mass") is None


def test_median():
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([]) is None


def test_class_means_never_borrow_the_interval_of_another_evaluation():
    table = [{"key": f"k{i}", "class": "Edema", "cnr": str(v)} for i, v in enumerate((0.2, 0.4, 0.2, 0.4, 0.3))]
    evaluations = [Evaluation(0, 0, {}), Evaluation(1, 16, {"grounding/Edema/cnr": 0.3})]
    run = run_with(phrases=table, evaluations=evaluations)
    assert class_rows(run)["Edema"].low is not None
    run.evaluations.append(Evaluation(2, 32, {"grounding/Edema/cnr": 0.9}))
    row = class_rows(run)["Edema"]
    assert (row.value, row.low, row.start) == (0.9, None, 0.3)
    run.evaluations.clear()
    assert class_rows(run)["Edema"].value == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("phrase", "word", "html"),
    [
        ("Small effusions, no edema.", "effusion", "Small <mark>effusion</mark>s, no edema."),
        ("Pleural effusion.", "pleural effusion.", "<mark>Pleural</mark> <mark>effusion.</mark>"),
        ("a < b & c", "", "a &lt; b &amp; c"),
        ("No acute (x) finding", "(all words)", "No acute (x) finding"),
        ("No pneumothorax", "thorax", "No pneumothorax"),
    ],
)
def test_the_word_is_marked_in_its_phrase(phrase, word, html):
    assert marked(phrase, word) == html


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
