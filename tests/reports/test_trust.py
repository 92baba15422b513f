"""The panel that a layman reads: five sentences from what was evaluated, and no distance without the share of copies."""

import json
import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

from meddiff.reports.page.report import open_runs, write_report
from meddiff.reports.page.trust import ASKED, FEW, answers, copies_beside, copies_of
from meddiff.runs.evaluations import EvaluationWriter
from tests.builders.report_page import read
from tests.builders.run_folders import make_run

FIGURES = {
    "copies": {
        "copy_share_pixels": 0.03,
        "held_out/copy_share_pixels": 0.012,
        "exact/copy_share_pixels": 1.0,
        "n": 100.0,
    },
    "coverage": {
        "coverage_k5_domain": 0.57,
        "held_out/coverage_k5_domain": 0.98,
        "one_image/coverage_k5_domain": 0.02,
        "coverage_ceiling_k5_domain": 0.971,
    },
    "utility": {
        "utility_real_auroc": 0.731,
        "utility_synthetic_auroc": 0.612,
        "utility_shuffled_auroc": 0.497,
        "utility_gain": -0.013,
        "utility_gain_low": -0.04,
        "utility_gain_high": 0.014,
    },
    "alignment": {
        "alignment_classifier_auroc": 0.66,
        "real/alignment_classifier_auroc": 0.955,
        "shuffled/alignment_classifier_auroc": 0.501,
    },
    "absent": {"absent_auroc": 0.52, "absent_auroc_shuffled": 0.49, "no_target_accuracy": 0.06},
}


def evaluated(folder: Path, parts: dict[str, dict[str, float]], images: str = "000016000") -> None:
    writer = EvaluationWriter(folder / "evaluation" / images, {"model": "m", "images": int(images), "seed": 0})
    for part, figures in parts.items():
        writer.part(part, {}, figures)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    return make_run(tmp_path / "quickstart" / "t", evaluations=2, overlays=0, samples=0, size=16)


def sections_of(page: str) -> dict[str, str]:
    return dict(re.findall(r'<section id="(\w+)"[^>]*>(.*?)</section>', page, re.S))


def test_each_question_has_its_figure_and_its_control_in_one_sentence(fresh: Path) -> None:
    evaluated(fresh, {part: dict.fromkeys(figures, 0.111) for part, figures in FIGURES.items()}, "000008000")
    evaluated(fresh, FIGURES)
    found = {one.title: one for one in answers(open_runs([fresh])[0])}
    assert list(found) == ["Copies", "Coverage", "Useful for training", "Says what it was asked", "Silent when absent"]
    for title, words in {
        "Copies": ("3 % of 100 drawn images", "held-out images themselves 1.2 %", "copies 100 %"),
        "Coverage": ("57 % of held-out", "98 %", "97 %", "repeated 2 %"),
        "Useful for training": ("0.612", "0.731", "0.497", "by −0.013 [−0.040, 0.014]"),
        "Says what it was asked": ("0.660", "0.955", "0.501"),
        "Silent when absent": ("52 %", "49 %", "6 % of absent"),
    }.items():
        assert not found[title].command
        assert all(word in found[title].sentence for word in words), found[title].sentence
        assert "0.111" not in found[title].sentence, "the newest evaluation counts"
    page = read(write_report([fresh]))
    assert all(one.sentence in page.text for one in found.values())


def test_what_is_absent_says_which_command_makes_it(fresh: Path) -> None:
    evaluated(fresh, {"copies": FIGURES["copies"], "utility": {"utility_real_auroc": 0.7}})
    found = answers(open_runs([fresh])[0])
    commands = {part: one.command for part, one in zip(ASKED, found, strict=True)}
    assert not commands.pop("copies")
    assert commands == {part: f"lightning evaluate {part} --run {fresh}" for part in commands}
    text = sections_of(write_report([fresh]).read_text())["trust"]
    assert all(f"<code>{one}</code>" in text for one in commands.values())


@pytest.mark.parametrize(("tower", "reads"), [(None, False), ("assets/phantom_tower", True)])
def test_a_model_without_text_is_not_asked_about_texts(fresh: Path, tower: str | None, reads: bool) -> None:
    config = yaml.safe_load((fresh / "config.yaml").read_text())
    config["model"]["class_path"] = "lightning_modules.patronus.PatronusModule"
    config["model"]["init_args"]["text_encoder"] = tower
    (fresh / "config.yaml").write_text(yaml.safe_dump(config))
    commands = {part: one.command for part, one in zip(ASKED, answers(open_runs([fresh])[0]), strict=True)}
    assert {part for part, command in commands.items() if not command} == (
        set() if reads else {"utility", "alignment", "absent"}
    )


def test_no_distance_is_shown_without_the_share_of_copies(fresh: Path, tmp_path: Path) -> None:
    shown = re.compile("Fréchet|Frechet|fd_domain", re.I)
    for said in ("not measured (lightning evaluate copies)", "3 % (held-out images 1.2 %)"):
        assert copies_of(open_runs([fresh])[0]) == said
        for name, text in sections_of(write_report([fresh]).read_text()).items():
            if shown.search(text) and name not in ("glossary", "configuration", "trust"):
                assert said in text, f"{name} has a distance and no copies"
        evaluated(fresh, {"copies": FIGURES["copies"]})
    other = make_run(
        tmp_path / "other" / "t", name="other", evaluations=2, overlays=0, samples=0, size=16, frozen=False
    )
    both = sections_of(write_report([fresh, other], tmp_path / "both.html").read_text())
    for name in ("tradeoff", "runs", "controls", "time"):
        assert "3 % (held-out images 1.2 %)" in both[name]
        assert "not measured (lightning evaluate copies)" in both[name]
    many = open_runs([fresh, other]) * FEW
    assert copies_beside(many) == f"Copies among drawn images: 3 % to 3 %, measured of {FEW} of {2 * FEW} runs."
    assert "of any run" in copies_beside(open_runs([other]) * (FEW + 1))


def test_a_summary_that_is_damaged_leaves_the_page_and_is_named(fresh: Path) -> None:
    folder = fresh / "evaluation" / "000016000"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text('{"copies": [1], "coverage": {"coverage_k5_domain": "x"}, "absent": nul')
    page = read(write_report([fresh]))
    assert "summary.json is not valid JSON" in page.text
    (folder / "summary.json").write_text('{"copies": [1], "coverage": {"coverage_k5_domain": "x"}}')
    assert [one.figure for one in answers(open_runs([fresh])[0])] == ["–"] * 5


@pytest.mark.parametrize(("cohort", "shown"), [("phantom", True), ("mimic-cxr", False), (None, False)])
def test_the_nearest_pairs_are_shown_of_cohorts_for_everybody_and_named_of_others(
    fresh: Path, cohort: str | None, shown: bool
) -> None:
    evaluated(fresh, {"copies": FIGURES["copies"]})
    folder = fresh / "evaluation" / "000016000"
    about = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps(about | ({} if cohort is None else {"cohort": cohort})))
    (folder / "copies").mkdir()
    Image.new("L", (16, 64), 90).save(folder / "copies" / "training_captions.png")
    text = sections_of(write_report([fresh]).read_text())["trust"]
    assert ("<img" in text) == shown
    assert "evaluation/000016000/copies/training_captions.png" in text
    assert ("its cohort is not for everybody" in text) != shown
    (folder / "copies" / "training_captions.png").unlink()
    assert "training_captions" not in sections_of(write_report([fresh]).read_text())["trust"]
