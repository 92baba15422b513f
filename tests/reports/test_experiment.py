"""The experiment's rows, claims and answer on runs whose truth is planted; what must not be claimed is the control."""

import json
import math
import re
from pathlib import Path

import pytest

from meddiff.common.errors import UserError
from meddiff.evaluation.mechanism import FIRST
from meddiff.reports.experiment import rows
from meddiff.reports.experiment.answer import NOTHING, answer
from meddiff.reports.experiment.between import between
from meddiff.reports.experiment.between import markdown as table_between
from meddiff.reports.experiment.claims import AT_EQUAL, CNR, DISTANCE, Claim, claims
from meddiff.reports.experiment.picture import draw, points
from meddiff.reports.experiment.tables import FIGURES, ClaimTable, Design, markdown, tables, trust_controls
from meddiff.runs import names
from meddiff.runs.folder import read_run
from meddiff.runs.tables import write_table
from tests.builders.experiments import EACH, STOPS, Truth, make_run, make_sweep

DESIGN = Design()


def collected(*sweeps: Path) -> rows.Collected:
    """All runs of sweeps."""
    return rows.merged(
        rows.collect(read_run(run.parent)) for sweep in sweeps for run in sorted(sweep.glob("*/config.yaml"))
    )


def made(*sweeps: Path) -> list[ClaimTable]:
    return tables(claims(collected(*sweeps), FIGURES), DESIGN)


def one(found: list[ClaimTable], figure: str, table: str = "main") -> Claim:
    (claim,) = [c for t in found if t.name == table for c in t.claims if c.figure == figure]
    return claim


@pytest.fixture(scope="module")
def costly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Learnable: 2 better in distance, 0.5 worse in CNR, which the end token gains."""
    return make_sweep(
        tmp_path_factory.mktemp("runs") / "costly", Truth(), Truth(cnr=0.7, distance=13.0, eos=1.0, first=0.52)
    )


def test_a_planted_cost_is_found_with_its_size_and_its_gain(costly: Path) -> None:
    found = made(costly)
    cnr, distance = one(found, CNR), one(found, DISTANCE)
    assert cnr.difference.mean == pytest.approx(-0.5, abs=0.12)
    assert cnr.difference.low < -0.5 < cnr.difference.high < 0
    assert cnr.holds
    assert (cnr.difference.seeds, cnr.difference.alike, cnr.samples) == (5, 5, 8 * EACH)
    assert distance.difference.mean == pytest.approx(-2, abs=0.9)
    assert one(found, "grounding/eos_macro_cnr", "beside").difference.mean == pytest.approx(0.5, abs=0.12)
    assert one(found, "controls/gain", "beside").difference.mean == pytest.approx(-0.25, abs=0.06)
    lines = answer(found, DESIGN).split("\n\n")
    assert len(lines) == 5
    assert "In 1 of 1 setting macro CNR falls: −0." in lines[0]
    assert lines[1].endswith("It does in every setting that was tried.")
    assert "Frechet distance (less is better) −" in lines[2]
    assert "grounding gain −0." in lines[3]
    assert "macro CNR of the end token +0." in lines[3]
    assert "over 5 seeds" in lines[4]
    page = markdown(found[0], DESIGN)
    assert page.count("**−0.") == 2  # CNR at the end, and at equal distance


def test_the_mean_of_the_phrases_is_the_logged_figure(costly: Path) -> None:
    """Each side of a claim is the mean of what its runs logged."""
    found, claim = collected(costly), one(made(costly), CNR)
    for side, part in (("frozen", claim.frozen), ("learnable", claim.learnable)):
        last = [row for (_, images), row in found.runs.items() if row["encoder"] == side and images == 32000]
        assert part.mean == pytest.approx(sum(float(row[CNR]) for row in last) / len(last), abs=0.002)


def test_nothing_is_claimed_where_nothing_differs(tmp_path: Path) -> None:
    found = made(make_sweep(tmp_path / "null", Truth(), Truth(), scatter=0.1))
    assert not any(claim.holds for table in found for claim in table.claims)
    lines = answer(found, DESIGN).split("\n\n")
    assert "In 0 of 1 setting" in lines[0]
    assert "falls" not in lines[0]
    assert "No difference is told from chance" in lines[1]
    assert lines[4].endswith("Nothing here is a result yet.")
    assert "**" not in markdown(found[0], DESIGN).partition("|---|")[2]


def test_seeds_that_disagree_by_more_than_the_effect_are_no_result(tmp_path: Path) -> None:
    """Half a CNR on average, which one seed more or less would make or unmake."""
    found = made(make_sweep(tmp_path / "noise", Truth(), Truth(cnr=0.8), scatter=0.8))
    assert not one(found, CNR).holds


def test_two_seeds_have_no_interval_and_claim_nothing(tmp_path: Path) -> None:
    found = made(make_sweep(tmp_path / "two", Truth(), Truth(cnr=0.2), seeds=(0, 1)))
    claim = one(found, CNR)
    assert math.isnan(claim.difference.low)
    assert not claim.holds
    said = answer(found, DESIGN)
    assert said.startswith("Nothing is claimed yet: no setting has 5 seeds of both encoders.")
    assert "(32,000 images; 2 seeds)" in said
    assert "[" not in said


def test_a_setting_on_few_seeds_stands_beside_the_claims_and_changes_none(costly: Path, tmp_path: Path) -> None:
    """Four seeds of a cost twice as large have an interval and the smallest p; still only five make a claim."""
    few = make_sweep(tmp_path / "few", Truth(), Truth(cnr=0.2), seeds=(0, 1, 2, 3), gamma=None)
    alone, found = made(costly), made(costly, few)
    (claim,) = [c for t in found if t.name == "main" for c in t.claims if c.figure == CNR and not c.counts]
    assert claim.difference.p < 0.001
    assert math.isnan(claim.p_holm)
    assert not claim.holds
    kept = [c for t in found for c in t.claims if c.counts]
    assert kept == [c for t in alone for c in t.claims]
    assert between(found[0].claims) == []
    lines = answer(found, DESIGN).split("\n\n")
    assert lines[0].startswith("**Does making the text encoder learnable cost grounding?** In 1 of 1 setting ")
    assert "On too few seeds for a claim macro CNR differs by −1.0" in lines[1]
    assert "(uniform weights; 4 seeds)" in lines[1]
    assert "over 5 seeds" in lines[4]
    (row,) = [line for line in markdown(found[0], DESIGN).splitlines() if "| uniform weights | macro CNR |" in line]
    assert "**" not in row


def test_an_encoder_that_is_only_further_on_the_same_path_costs_nothing_at_equal_distance(tmp_path: Path) -> None:
    """CNR rises to 1.2 on the way down to 20 and falls behind it: the end says cost, the same distance says none."""

    def path(end: float) -> Truth:
        def along(share: float) -> tuple[float, float]:
            distance = 40 + share * (end - 40)
            pointing = (40 - distance) / 20 if distance > 20 else 1 - (20 - distance) / 10
            return share, pointing

        return Truth(cnr=1.2, distance=end, path=along)

    found = made(make_sweep(tmp_path / "further", path(20.0), path(14.0), scatter=0.01))
    assert one(found, CNR).difference.mean == pytest.approx(-0.72, abs=0.1)
    assert one(found, CNR).holds
    equal = one(found, AT_EQUAL)
    assert equal.distance == pytest.approx(20, abs=0.3)
    assert equal.difference.mean == pytest.approx(0, abs=0.13)  # on straight lines between evaluations
    assert abs(equal.difference.mean) < 0.2 * abs(one(found, CNR).difference.mean)


def test_ranges_without_a_common_distance_are_said(tmp_path: Path) -> None:
    """The frozen runs end before the learnable ones have begun."""
    frozen = make_sweep(tmp_path / "apart", Truth(distance=39.9), Truth(), scatter=0.0, start=40.0)
    for seed in range(5):
        shared = next(frozen.glob(f"{seed + 6:04d}-*"))
        table = (shared / names.TRADEOFF).read_text().replace("\n40,", "\n39.5,")
        (shared / names.TRADEOFF).write_text(table)
    found = made(frozen)
    assert one(found, AT_EQUAL).note
    assert "No common distance: 32,000 images." in answer(found, DESIGN)
    assert "have no value in common" in markdown(found[0], DESIGN)


def test_runs_that_began_elsewhere_are_refused(tmp_path: Path) -> None:
    """The same settings on weights that have changed since."""
    old = make_sweep(tmp_path / "old", Truth(), Truth(), seeds=(0, 1))
    new = make_sweep(tmp_path / "new", Truth(), Truth(), seeds=(2, 3), start=44.0)
    with pytest.raises(UserError, match=r"old/\w+ and new/\w+ have the same settings and began with different weights"):
        made(old, new)


def test_other_settings_and_other_protocols_are_never_compared(tmp_path: Path) -> None:
    runs = tmp_path / "mixed"
    make_run(runs / "0001-aaaaaaaa", Truth(), 0, frozen=True)
    make_run(runs / "0002-bbbbbbbb", Truth(), 0, frozen=False, timesteps=40)
    make_run(runs / "0003-cccccccc", Truth(), 1, frozen=False)
    make_run(runs / "0004-dddddddd", Truth(), 0, frozen=False, gamma=None)
    assert claims(collected(runs), FIGURES) == []
    make_run(runs / "0005-eeeeeeee", Truth(), 0, frozen=False)
    assert {claim.arm.of("weights") for claim in claims(collected(runs), FIGURES)} == {"min-SNR 5"}


def test_one_factor_at_a_time_has_tables_of_its_own(tmp_path: Path) -> None:
    reference = make_sweep(tmp_path / "a", Truth(), Truth(cnr=0.8), seeds=(0, 1, 2))
    slow = make_sweep(tmp_path / "b", Truth(), Truth(cnr=1.1), seeds=(0, 1, 2), rate=1e-4)
    strong = make_sweep(tmp_path / "c", Truth(), Truth(cnr=0.5), seeds=(0, 1, 2), confounders=0.9)
    long = make_sweep(tmp_path / "d", Truth(), Truth(), seeds=(0, 1, 2), images=120000)
    found = {table.name: table.claims for table in made(reference, slow, strong, long)}
    assert set(found) == {"main", "beside", "rate", "confounders"}
    assert [c.arm.rate for c in found["rate"] if c.figure == CNR] == [1e-4, 2e-3]
    assert [c.arm.of("confounders") for c in found["confounders"] if c.figure == CNR] == ["0.7", "0.9"]
    assert [c.arm.of("train_images") for c in found["main"] if c.figure == CNR] == ["32000", "120000"]
    page = markdown(next(t for t in made(reference, slow) if t.name == "rate"), DESIGN)
    assert "rate 0.0001 |" in page
    assert "rate 0.002 (the U-Net's) |" in page


def test_a_base_between_the_ends_is_compared_alone_and_changes_no_claim_of_the_main_table(tmp_path: Path) -> None:
    ends = [make_sweep(tmp_path / base, Truth(), Truth(cnr=0.8), base=base) for base in DESIGN.bases]
    between_them = make_sweep(tmp_path / "m", Truth(), Truth(cnr=1.0), base="phantom_base_30")
    before, found = made(*ends)[0], {table.name: table for table in made(*ends, between_them)}
    assert found["main"] == before
    page = markdown(found["base"], DESIGN)
    rows_of_cnr = [line.split(" | ")[0] for line in page.splitlines() if " | macro CNR | " in line]
    assert rows_of_cnr == [
        "| tower knows the language",
        "| tower has read 30 impressions of chests",
        "| tower does not",
    ]


def test_a_cost_that_depends_on_the_weights_is_told_and_one_that_does_not_is_not(tmp_path: Path) -> None:
    """Half a CNR with both weights, though it may be told from none with one of them only; then four times as much."""
    frozen, learnable = Truth(), Truth(cnr=0.9)
    alike = [make_sweep(tmp_path / str(gamma), frozen, learnable, gamma=gamma) for gamma in (None, 5.0)]
    (cost,) = [one for one in between(made(*alike)[0].claims) if one.figure == CNR]
    assert (cost.factor, cost.difference.seeds) == ("weights", 5)
    assert cost.difference.mean == pytest.approx(0, abs=0.1)
    assert not cost.holds
    worse = make_sweep(tmp_path / "worse", frozen, Truth(cnr=0.0), gamma=None)
    found = made(alike[1], worse)
    (cost,) = [one for one in between(found[0].claims) if one.figure == CNR]
    assert {cost.first.of("weights"), cost.second.of("weights")} == {"uniform", "min-SNR 5"}
    assert abs(cost.difference.mean) == pytest.approx(0.9, abs=0.15)
    assert cost.holds
    assert "The difference changes by −0." in answer(found, DESIGN)
    assert "| min-SNR 5 weights | uniform weights | 32,000 images, tower knows the language |" in table_between(
        between(found[0].claims), DESIGN
    )


def test_costs_along_one_factor_are_compared_with_the_reference_alone(tmp_path: Path) -> None:
    """Half a CNR less is paid at the slow rate and nothing less at the middle one; slow and middle are not compared."""
    reference = make_sweep(tmp_path / "r", Truth(), Truth(cnr=0.6))
    slow, middle = (
        make_sweep(tmp_path / name, Truth(), Truth(cnr=cnr), rate=rate)
        for name, cnr, rate in (("slow", 1.1, 1e-4), ("middle", 0.6, 1e-3))
    )
    (rates,) = [table for table in made(reference, slow, middle) if table.name == "rate"]
    found = [one for one in between(rates.claims, reference=DESIGN) if one.figure == CNR]
    assert [(one.first.rate, one.second.rate, one.holds) for one in found] == [
        (1e-4, 2e-3, True),
        (1e-3, 2e-3, False),
    ]
    assert {one.factor for one in found} == {"rate"}
    assert found[0].difference.mean == pytest.approx(-0.5, abs=0.12)
    assert "| rate 0.0001 | rate 0.002 | 32,000 images," in table_between(found, DESIGN)
    assert len(between(rates.claims, figures=(CNR,))) == 3


def test_settings_that_differ_in_two_things_are_not_compared(tmp_path: Path) -> None:
    one_way = make_sweep(tmp_path / "a", Truth(), Truth(), gamma=None)
    both = make_sweep(tmp_path / "b", Truth(), Truth(), images=120000)
    assert between(made(one_way, both)[0].claims) == []


def test_holm_counts_the_rows_of_a_table(costly: Path) -> None:
    found = made(costly)
    ps = [claim.difference.p for claim in found[0].claims]
    assert min(claim.p_holm for claim in found[0].claims) == pytest.approx(len(ps) * min(ps))


# ---- rows -----------------------------------------------------------------------------------------------------------


def test_tables_come_back_as_they_were_and_two_machines_add_up(costly: Path, tmp_path: Path) -> None:
    everything = collected(costly)
    runs = sorted(path.parent for path in costly.glob("*/config.yaml"))
    for machine, some in (("here", runs[:6]), ("there", runs[5:])):  # one run on both
        (tmp_path / machine).mkdir()
        rows.write(tmp_path / machine, rows.merged(rows.collect(read_run(run)) for run in some))
    merged = rows.merged(rows.read(tmp_path / machine) for machine in ("here", "there"))
    assert merged.runs == everything.runs
    assert merged.phrases == everything.phrases
    assert tables(claims(merged, FIGURES), DESIGN) == made(costly)
    written = (tmp_path / "here" / rows.RUNS).read_bytes()
    rows.write(tmp_path / "here", rows.read(tmp_path / "here"))
    assert (tmp_path / "here" / rows.RUNS).read_bytes() == written


def test_a_run_is_called_alike_whatever_its_number(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a" / "0001-12345678", Truth(), 0, True)
    later = make_run(tmp_path / "b" / "a" / "0007-12345678", Truth(), 0, True)
    assert rows.collect(read_run(first)).finished == rows.collect(read_run(later)).finished == {"a/12345678"}


def test_what_is_not_finished_or_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "x" / "0001-12345678", Truth(), 0, True)
    (run / names.FINISHED).write_text(json.dumps({"images": 99999, "step": 1}))
    with pytest.raises(UserError, match=r"was not evaluated after its last image \(99,999\)"):
        rows.collect(read_run(run))
    (run / names.FINISHED).unlink()
    with pytest.raises(UserError, match="has not finished"):
        rows.collect(read_run(run))
    (tmp_path / rows.RUNS).write_text("something,else\n1,2\n")
    with pytest.raises(UserError, match="not one of the experiment's"):
        rows.read(tmp_path)


def test_controls_of_another_moment_do_not_count(tmp_path: Path) -> None:
    run = make_run(tmp_path / "x" / "0001-12345678", Truth(), 0, True)
    about = run / names.EVALUATIONS / names.by_images(32000) / names.ABOUT
    found = rows.collect(read_run(run)).runs["x/12345678", 32000]
    assert (found["controls/gain"], found["controls/pairs/moved"], found["controls/absent_finding/macro_cnr"]) == (
        "0.6", "0.7", "0.5",
    )  # fmt: skip
    about.write_text(json.dumps({"images": 16000, "parts": {"controls": {}}}))
    assert "controls/gain" not in rows.collect(read_run(run)).runs["x/12345678", 32000]


def test_what_a_group_asks_is_paired_and_stands_beside_its_controls(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", Truth(), Truth())
    for run in sorted(path.parent for path in sweep.glob("*/config.yaml")):
        folder = run / names.EVALUATIONS / names.by_images(32000)
        seed, learnable = read_run(run).facts.seed, read_run(run).facts.encoder == "learnable"
        aligned = {"alignment_classifier_auroc": 0.7 + 0.01 * int(seed or 0) + 0.1 * learnable}
        aligned |= {"real/alignment_classifier_auroc": 0.97, "shuffled/alignment_classifier_auroc": 0.51}
        about, summary = folder / names.ABOUT, folder / names.SUMMARY
        values = json.loads(about.read_text())
        about.write_text(json.dumps({**values, "parts": {**values["parts"], "alignment": {}}}))
        summary.write_text(json.dumps({**json.loads(summary.read_text()), "alignment": aligned}))
    found = made(sweep)
    claim = one(found, "alignment/alignment_classifier_auroc", "trust")
    assert claim.difference.mean == pytest.approx(0.1)
    assert (claim.difference.seeds, claim.holds) == (5, True)
    (table,) = [table for table in found if table.name == "trust"]
    assert [c.figure for c in table.claims] == ["alignment/alignment_classifier_auroc"], "what was measured, no more"
    beside = trust_controls(table, collected(sweep), DESIGN)
    assert "| finding asked for is in the image, AUROC | real images | 0.97 | 10 |" in beside
    assert "| finding asked for is in the image, AUROC | prompts shuffled | 0.51 | 10 |" in beside
    assert not [table for table in made(make_sweep(tmp_path / "t", Truth(), Truth())) if table.name == "trust"]


def test_texts_of_a_config_make_no_cells_and_no_control_characters(tmp_path: Path) -> None:
    hostile = "a|b\x1b[2J<script>"
    sweep = make_sweep(tmp_path / "s", Truth(), Truth(), seeds=(0, 1, 2), prompt=hostile)
    reference = make_sweep(tmp_path / "r", Truth(), Truth(), seeds=(0, 1, 2))
    page = markdown(next(table for table in made(sweep, reference) if table.name == "prompt"), DESIGN)
    assert "\x1b" not in page
    assert "<script>" not in page
    width = {line.replace("\\|", "").count("|") for line in page.splitlines() if line.startswith("|")}
    assert width == {10}


# ---- picture --------------------------------------------------------------------------------------------------------


def test_the_picture_has_a_path_an_encoder_with_the_intervals_of_its_seeds(costly: Path, tmp_path: Path) -> None:
    found = points(collected(costly), DESIGN)
    assert len(found) == 2 * 5
    last = {str(point["encoder"]): point for point in found if point["images"] == 32000}
    for point in last.values():
        assert point["seeds"] == 5
        assert float(point["cnr_low"] or 0) < float(point["cnr"] or 0) < float(point["cnr_high"] or 0)
    pytest.importorskip("vl_convert")
    target = draw(collected(costly), DESIGN, tmp_path / "x.svg")
    assert target is not None
    text = target.read_text()
    assert "32,000 images, min-SNR 5 weights tower knows the language" in text
    assert text.count("mark-line") >= 1
    assert draw(rows.Collected(), DESIGN, tmp_path / "none.svg") is None
    assert not (tmp_path / "none.svg").exists()


def test_every_panel_of_the_drawn_picture_has_its_own_setting_s_points(tmp_path: Path) -> None:
    """Of two lengths and two weights only two go together: a grid with empty cells would put panels below wrong names."""
    pytest.importorskip("vl_convert")
    short = make_sweep(tmp_path / "s", Truth(), Truth(cnr=0.6), gamma=None)
    long = make_sweep(tmp_path / "l", Truth(cnr=2.0), Truth(cnr=1.4), images=120000)
    unread = make_sweep(tmp_path / "u", Truth(cnr=3.0), Truth(cnr=2.6), base="phantom_base_unread")
    found = collected(short, long, unread)
    target = draw(found, DESIGN, tmp_path / "x.svg")
    assert target is not None
    before, *named = re.split("Title text '([^']*)'", target.read_text(encoding="utf-8"))
    drawn = {}
    for name, after in zip(named[::2], named[1::2], strict=True):  # a panel's name stands behind its marks
        labels = re.findall('"Frechet distance[^"]*macro CNR; better grounding →: ([0-9.]+)[^"]*"', before)
        drawn[name], before = {round(float(value), 3) for value in labels}, after
    wanted: dict[str, set[float]] = {}
    for point in points(found, DESIGN):
        wanted.setdefault(str(point["panel"]).replace("; ", " "), set()).add(round(float(point["cnr"] or 0), 3))
    assert len(wanted) == 3
    assert list(drawn) == sorted(wanted, key=lambda name: (name.startswith("120"), "not" in name))
    for name, values in wanted.items():
        assert values <= drawn[name], name
        others = set.union(*(other for key, other in wanted.items() if key != name)) - values
        assert not drawn[name] & others, name


def test_without_rows_nothing_is_claimed() -> None:
    assert answer([], DESIGN) == NOTHING
    assert not any(character.isdigit() for character in NOTHING)


def test_where_meaning_went_is_a_table_of_its_own_and_names_the_way(tmp_path: Path) -> None:
    """The word's CNR falls by 0.4 and what it knows stays, in every learnable run; a frozen tower's never moves."""
    sweep = make_sweep(tmp_path / "costly", Truth(), Truth(cnr=0.7, distance=13.0))
    for number, path in enumerate(sorted(sweep.glob("*/config.yaml"))):
        run = read_run(path.parent)
        learnable, scatter = run.facts.encoder == "learnable", 0.01 * (number % 3)
        lines = [
            {"images": images, "step": images // 16, "figure": figure, "value": start + share * fall * learnable + scatter}
            for share in STOPS for images in [round(32000 * share)]
            for figure, start, fall in [("cnr/finding/finding", 1.6, -0.4), ("probe/denied/finding", 0.97, 0.0)]
        ]  # fmt: skip
        out = run.path / names.EVALUATIONS / "000032000"
        write_table(out / "mechanism.csv", lines, FIRST["mechanism"])
    found = made(sweep)
    word, knows = (
        one(found, f"mechanism/{key}", "mechanism") for key in ("cnr/finding/finding", "probe/denied/finding")
    )
    assert word.difference.mean == pytest.approx(-0.4, abs=0.02)
    assert word.holds
    assert not knows.holds
    assert not [c for t in found if t.name != "mechanism" for c in t.claims if c.figure.startswith("mechanism/")]
    through = answer(found, DESIGN).split("\n\n")[3]
    assert "CNR of the finding's word on the finding −0.4" in through
    assert "Denied or not read off the finding's word" in through.partition("Not told from chance")[2]
    start = collected(sweep).runs[next(iter(collected(sweep).finished)), 0]
    assert float(start["mechanism/cnr/finding/finding"]) == pytest.approx(1.61, abs=0.02)
