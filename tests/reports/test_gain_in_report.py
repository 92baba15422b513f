"""The grounding gain stands first: cards, leaderboard, sentence, controls; runs that have none look as before."""

import csv
import html
import json
import re
from pathlib import Path

import pytest

from meddiff.reports.page import sections
from meddiff.reports.page.claim import claim
from meddiff.reports.page.derived import rows_of
from meddiff.reports.page.report import write_report
from meddiff.reports.page.tables import Tables
from meddiff.reports.page.wording import GAIN, GAIN_NAMES, GAINS, direction, label, meaning
from meddiff.runs.folder import read_run
from tests.builders.run_folders import copy_run, make_run

#: control -> gain, lower end, upper end, CNR, CNR under the control, askings
MEASURED = {
    "least": (0.11, -0.02, 0.31, 1.05, 0.94, 158.0),
    "absent": (0.11, 0.02, 0.2, 1.05, 0.94, 158.0),
    "other_finding": (0.25, 0.15, 0.35, 1.2, 0.95, 1026.0),
    "twin": (0.3, 0.1, 0.5, 1.1, 0.8, 156.0),
}
PARTS = ("gain", "low", "high", "cnr", "control_cnr", "n")


def with_gain(run: Path, folder: Path, trained: float | None, measured: bool = True) -> Path:
    """A copy whose evaluations have gains, and whose controls have all of them."""
    copied = copy_run(run, folder)
    if trained is not None:
        with (copied / "tradeoff.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        for place, row in enumerate(rows):
            share = place / (len(rows) - 1)
            row |= {GAIN: f"{trained * share:.3f}", f"{GAIN}_absent": f"{trained * share + 0.1:.3f}"}
            row |= {f"{GAIN}_low": f"{trained * share - 0.2:.3f}", f"{GAIN}_high": f"{trained * share + 0.25:.3f}"}
        with (copied / "tradeoff.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    if measured:
        controls = json.loads((copied / "controls.json").read_text(encoding="utf-8"))
        gains = {name: dict(zip(PARTS, cells, strict=True)) for name, cells in MEASURED.items()}
        controls["grounding"] = {"gain": gains, **controls["grounding"]}
        (copied / "controls.json").write_text(json.dumps(controls), encoding="utf-8")
    return copied


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "quickstart" / "plain", overlays=1, samples=1)


def test_of_one_run_it_is_the_first_card_the_first_control_and_in_the_sentence(plain: Path, tmp_path: Path) -> None:
    run = with_gain(plain, tmp_path, 0.42)
    page = html.unescape(write_report([run]).read_text(encoding="utf-8"))
    cards = re.findall(r'<div class="card"><h3><a class="term" href="#([^"]+)"', page)
    assert cards[:2] == ["term-grounding-gain", "term-grounding-macro_cnr"]
    assert cards[1:] == [one for one in cards if one != "term-grounding-gain"]
    controls = page[page.index('<section id="controls"') : page.index('<section id="time"')]
    assert controls.index("grounding gain") < controls.index("location prior")
    rows = re.findall(r'<tr><th scope="row">([^<]+)</th>((?:<td[^>]*>[^<]*</td>)+)</tr>', controls)
    found = {name: re.findall(r"<td[^>]*>([^<]*)", cells) for name, cells in rows}
    assert next(iter(found)) == "grounding gain (the least)"
    assert found["grounding gain (the least)"] == ["0.110", "[−0.020, 0.310]", "1.05", "0.940", "–"]
    assert found[GAINS["other_finding"]][-1] == "1,026"
    assert claim(Tables([read_run(run)])).text.startswith(
        "Frozen: words are grounded better, grounding gain 0.420 from"
    )
    assert 'id="term-grounding-gain"' in page
    said = re.findall(r'<p class="claim">(.*?)</p>', page)
    assert re.sub("<[^>]+>", "", said[0]) == (
        "Grounding gain under all controls: frozen 0.110 [−0.020, 0.310] (without grounding 0)."
    )
    assert "under all controls 0.110 [−0.020, 0.310]</p>" in page[page.index('<div class="cards">') :]


def test_a_run_that_was_trained_without_it_has_it_from_its_controls(plain: Path, tmp_path: Path) -> None:
    page = write_report([with_gain(plain, tmp_path, None)]).read_text(encoding="utf-8")
    card = page[page.index('<div class="card">') :].split("</div>")[0]
    assert "term-grounding-gain" in card
    assert '<span class="big">0.110</span>' in card
    assert "not measured during training" in card


def test_without_controls_of_its_own_the_newest_evaluation_says_it(plain: Path, tmp_path: Path) -> None:
    run = read_run(with_gain(plain, tmp_path, 0.42, measured=False))
    assert sections.gains(run) == [
        ("grounding gain (the least)", ["0.420", "[0.220, 0.670]", "–", "–", "–"]),
        (GAINS["absent"], ["0.520", "–", "–", "–", "–"]),
    ]


def test_of_several_runs_it_is_the_first_figure_of_a_row(plain: Path, tmp_path: Path) -> None:
    more = with_gain(plain, tmp_path / "more", 0.42, measured=False)
    less = with_gain(plain, tmp_path / "less", 0.1, measured=False)
    page = write_report([more, less], tmp_path / "both.html").read_text(encoding="utf-8")
    table = page[page.index('<table class="sortable">') :]
    head = re.findall(r'href="#(term-[^"]+)"', table[: table.index("</thead>")])
    assert head[:2] == ["term-grounding-gain", "term-grounding-macro_cnr"]
    body = table[: table.index("</tbody>")]
    assert re.findall(r'<td class="best" data-value="0.42">', body)
    gains = [row["grounding_gain"] for row in rows_of(Tables([read_run(one) for one in (more, less)]).runs)]
    assert gains == [0.42, 0.1]
    # one run was measured under all controls: that is another, stricter figure, and does not compare
    mixed = with_gain(plain, tmp_path / "mixed", 0.42)
    tables = Tables([read_run(one) for one in (mixed, less)])
    assert [row["grounding_gain"] for row in rows_of(tables.runs)] == [0.42, 0.1]
    assert [row["grounding_gain"] for row in rows_of(Tables([read_run(mixed)]).runs)] == [0.11]
    names, cells = sections.gain_table(tables)
    assert names[0] == "grounding gain (the least)"
    assert cells[0][0] == "0.110 [−0.020, 0.310]"


def test_a_learnable_run_is_compared_by_it_before_the_cnr(plain: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "quickstart" / "learnable", overlays=1, samples=1, frozen=False)
    frozen, learnable = with_gain(plain, tmp_path / "f", 0.5), with_gain(other, tmp_path / "l", 0.2)
    text = claim(Tables([read_run(frozen), read_run(learnable)])).text
    assert "less grounded by 0.300 (grounding gain)" in text
    assert text.index("grounding gain") < text.index("macro CNR")
    tables = Tables([read_run(frozen), read_run(learnable)])
    assert sections.gains_by_encoder(tables) == "frozen 0.110 [−0.020, 0.310], learnable 0.110 [−0.020, 0.310]"
    twice = Tables([read_run(frozen), read_run(with_gain(plain, tmp_path / "again", 0.5)), read_run(learnable)])
    assert sections.gains_by_encoder(twice).startswith("frozen 0.110, learnable"), "of several runs the mean"


def test_a_run_without_gains_has_none_of_it(plain: Path, tmp_path: Path) -> None:
    page = write_report([plain], tmp_path / "plain.html").read_text(encoding="utf-8")
    assert "grounding gain" not in page[: page.index('<section id="glossary"')].split("<script")[0]
    assert claim(Tables([read_run(plain)])).text.startswith("Frozen: words point better, macro CNR")
    assert sections.gains(read_run(plain)) == []


def test_every_name_has_its_words_and_its_direction() -> None:
    for name in GAIN_NAMES:
        key = f"grounding/{name}"
        assert "gain" in label(key)
        assert meaning(key)
        assert direction(key) == (0 if name in ("gain_low", "gain_high") else 1)
