"""The page from synthetic run folders: what stands in it, and that the same files give the same page."""

import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from meddiff.reports.page import media
from meddiff.reports.page.gallery import MAX_RUNS
from meddiff.reports.page.report import context, open_runs, render, write_report
from tests.builders.report_page import Page, read
from tests.builders.run_folders import CLASSES, copy_run, make_run


def galleries(page: Page) -> list[dict]:
    """The data of word maps and samples."""
    return [data for script in page.data if "cards" in (data := json.loads(script))]


def drawn(page: Page) -> dict:
    """The tables that the script draws."""
    return next(data for script in page.data if "evaluations" in (data := json.loads(script)))


def test_numbers_with_change_control_and_n(run):
    page = read(write_report([run]))
    rows = (run / "tradeoff.csv").read_text().splitlines()
    columns = rows[0].split(",")
    first, last = (dict(zip(columns, line.split(","), strict=True)) for line in (rows[1], rows[-1]))
    for key in ("grounding/macro_cnr", "grounding/macro_auroc", "grounding/macro_top1"):
        assert f"{float(last[key]):.3f}"[:4] in page.text
    assert f"{float(last['fidelity/fd_domain']):.2f}" in page.text
    fall = float(first["fidelity/fd_domain"]) - float(last["fidelity/fd_domain"])
    assert f"better by {fall:.1f} since step 0" in page.text
    assert "location prior 0.410" in page.text
    assert "real against real 3.10" in page.text
    assert "N = 160 phrases" in page.text
    assert "N = 500 images" in page.text
    assert "160 phrases of 8 classes in 20 images" in page.text
    assert "2 phrases were left out of grounding or cut: box outside the image (2)." in page.text
    assert "16k images" in page.text
    assert all(name in page.text for name in CLASSES)
    for control in (
        "phrase of another image about the same class",
        "base weights",
        "untrained model",
        "noise",
        "autoencoder",
    ):
        assert control in page.text
    far, near, now = 176.0, 3.1, float(last["fidelity/fd_domain"])
    assert f"{100 * (far - now) / (far - near):.0f} %" in page.text


def test_every_section_says_how_to_read_it(run):
    page = write_report([run]).read_text()
    sections = re.findall(r'<section id="(\w+)"[^>]*>\s*(?:<div[^>]*>\s*)?<h2>[^<]+</h2>(.*?)</section>', page, re.S)
    assert [name for name, _ in sections] == [
        "tradeoff", "runs", "trust", "controls", "time", "classes", "attention", "samples", "loss", "numbers", "configuration",
        "glossary",
    ]  # fmt: skip
    how = [re.search(r'<p class="how">([^<]+)</p>', text) for _, text in sections]
    assert all(one is not None and one[1].strip().endswith(".") for one in how)


def test_controls_stand_before_what_is_read_against_them(run):
    text = write_report([run]).read_text()
    assert text.index('id="controls"') < text.index('id="time"') < text.index('id="classes"')
    table = text[text.index('id="controls"') :]
    assert table.index("location prior: only where") < table.index("this run, newest evaluation")
    card = text[text.index('class="cards"') :]
    assert card.index("location prior 0.410") < card.index('class="big"')


def test_pictures_boxes_masks_and_evaluations_are_inside(run):
    page = read(write_report([run]))
    attention, samples = galleries(page)
    assert (len(attention["cards"]), len(samples["cards"])) == (8, 6)
    assert attention["stops"] == [0, 4000, 8000, 12000, 16000]
    assert all(len(card["cells"][0]) == 5 and None not in card["cells"][0] for card in attention["cards"])
    assert all(len(card["boxes"]) == 1 for card in attention["cards"])
    assert sum(card["mask"] is not None for card in attention["cards"]) == 6
    newest = json.loads((run / "media/attention/000016000.json").read_text())
    shown = base64.b64encode((run / "media/attention" / newest[0]["map"]).read_bytes()).decode()
    cell = attention["cards"][0]["cells"][0][-1]
    assert attention["pictures"][cell["picture"]] == f"data:image/png;base64,{shown}"
    assert cell["cnr"] == newest[0]["cnr"]
    assert [card["base"] is None for card in samples["cards"]] == [False] * 5 + [True]  # the sixth has no real image
    assert len(attention["pictures"]) == len(set(attention["pictures"]))


def test_a_hit_is_what_the_table_of_that_evaluation_says(run, tmp_path):
    folder = copy_run(run, tmp_path)
    entry = json.loads((folder / "media/attention/000016000.json").read_text())[0]
    table = 'key,class,phrase,cnr,top1\n{key},{class},"{phrase}",1.0,{hit}\n'
    (folder / "grounding/000016000.csv").write_text(table.format(**entry, hit=1))
    (folder / "grounding/000008000.csv").write_text(table.format(**entry, hit=0))
    attention = galleries(read(write_report([folder])))[0]
    assert [cell["hit"] for cell in attention["cards"][0]["cells"][0]] == [None, None, 0, None, 1]


def test_command_of_the_run(tmp_path):
    run = make_run(
        tmp_path / "a" / "t", evaluations=1, overlays=0, samples=0, command="lightning fit -c x.yaml --name <b>"
    )
    text = write_report([run]).read_text()
    assert "Made by" in text
    assert "lightning fit -c x.yaml --name &lt;b&gt;" in text


def test_light_and_dark(run):
    text = write_report([run]).read_text()
    assert "color-scheme: light dark" in text
    assert "[data-theme=dark]" in text
    assert 'id="theme"' in text


def test_the_way_to_real_images_starts_at_the_first_evaluation_where_no_untrained_model_was_measured(run, tmp_path):
    folder = copy_run(run, tmp_path)
    controls = {"fidelity": {"n": 500, "fd_domain": {"real_vs_real": 0.0}}}
    (folder / "controls.json").write_text(json.dumps(controls))
    (folder / "tradeoff.csv").write_text("step,images,fidelity/fd_domain\n0,0,80\n9,144,20\n")
    page = read(write_report([folder]))
    assert "share of the way from the first evaluation to real against real" in page.text
    assert "75 %" in page.text


def test_what_else_the_maps_say(run):
    page = read(write_report([run]))
    for text in ("macro CNR on exact masks", "CNR of the end token", "CNR on confounders", "own finding first"):
        assert text in page.text
    assert "24 pairs" in page.text
    assert "80 phrases" in page.text


def test_several_runs_lie_over_each_other(run, tmp_path):
    other = make_run(tmp_path / "learnable" / "20261122-010101", name="learnable", frozen=False, seed=1, evaluations=3)
    same = copy_run(run, tmp_path)
    target = write_report([run, other, same, run], tmp_path / "all.html")
    assert target == tmp_path / "all.html"
    text = target.read_text()
    page = Page(text)
    assert "quickstart 20261121-085035" in page.text
    assert "quickstart copy" in page.text
    assert text.count("data-run=") == 3  # the run given twice is shown once
    assert "model.init_args.freeze_text_encoder" in page.text  # what differs
    assert len(set(drawn(page)["evaluations"]["run"])) == 3
    assert drawn(page)["references"]["label"] == ["location prior", "real against real"]  # equal controls once
    assert "this run" not in page.text
    assert "frozen, 2 runs, newest evaluation" in page.text
    assert write_report([run, other]) == run / "report.html"


def test_seeds_are_pooled_and_prompts_compared(tmp_path):
    runs = []
    for prompt in ("label", "impression"):
        for side, frozen in (("frozen", True), ("learnable", False)):
            for seed in range(2):
                folder = make_run(tmp_path / f"{side}-{prompt}" / f"t{seed}", side, 3, 1, 1, frozen, seed)
                config = (folder / "config.yaml").read_text()
                (folder / "config.yaml").write_text(
                    config.replace("batch_size: 16", f"batch_size: 16\n    prompt: {prompt}")
                )
                runs.append(folder)
    page = read(write_report(runs, tmp_path / "all.html"))
    assert len(drawn(page)["means"]["run"]) == 4 * 3
    assert drawn(page)["prompt_means"]["what"].count("label") == 2
    assert "Prompt variability" in page.text
    assert "Learnable against frozen: " in page.text
    assert "Means over 4 pairs of runs" in page.text
    assert "Prompt variability" not in read(write_report(runs[:4], tmp_path / "one.html")).text


def test_of_many_runs_pictures_are_linked_not_cut_silently(tmp_path):
    runs = [
        make_run(tmp_path / f"n{i:02d}" / "t", f"run {i:02d}", 2, 3, 2, i % 2 == 0, i // 2, size=32) for i in range(12)
    ]
    write_report(runs[5:6])
    page = read(write_report(runs, tmp_path / "all.html"))
    attention = galleries(page)[0]
    assert [one["encoder"] for one in attention["runs"]] == ["frozen", "learnable"] * (MAX_RUNS // 2)
    assert "Word maps of 8 more runs are in their own reports" in re.sub(r"\s+", " ", page.text)
    assert "n05/t/report.html#attention" in page.addresses
    assert str(runs[6]) in page.text  # has no report yet: where it lies
    assert "12 runs are too many for tables" in page.text
    assert "The first 8 of 12 runs" in page.text


def test_a_page_of_a_server_may_ask_that_server_and_nobody_else(run):
    found = context(open_runs([run]), run / "report.html")
    policies = [re.search(r'Policy" content="([^"]*)"', render(found, mode))[1] for mode in ("file", "live")]  # type: ignore[arg-type, index]
    assert "connect-src" not in policies[0]
    assert policies[1] == policies[0] + "; connect-src &#39;self&#39;"


def test_same_files_same_page(run, tmp_path):
    first = write_report([run]).read_bytes()
    assert write_report([run]).read_bytes() == first


def test_pictures_keep_to_a_budget(run, monkeypatch):
    monkeypatch.setattr("meddiff.reports.page.gallery.PAGE_BYTES", 1)
    page = read(write_report([run]))
    assert "4 more evaluations are in attention of its media folder" in page.text
    assert galleries(page)[0]["stops"] == [16000]
    assert len(galleries(page)[0]["cards"]) == 1
    assert "The first 1 of 8 are shown" in page.text
    assert media.affordable(media.Media(run, {}), {}, ("map",), 1) == []


def test_a_hundred_runs_stay_small(tmp_path):
    """Rows as many as of 100 runs of 50 evaluations, pictures of some."""
    one = make_run(tmp_path / "n0" / "t", "n0", 50, 5, 2, size=128)
    runs = [one, *(copied(one, tmp_path / f"n{i}" / "t", i) for i in range(1, 100))]
    page = write_report(runs, tmp_path / "all.html")
    assert page.stat().st_size < 8_000_000
    assert len(drawn(read(page))["evaluations"]["run"]) == 5000


def copied(run: Path, folder: Path, number: int) -> Path:
    """The same run under another name, its pictures shared with it."""
    folder.mkdir(parents=True)
    for name in ("tradeoff.csv", "metrics.jsonl", "controls.json", "grounding", "media"):
        (folder / name).symlink_to(run / name)
    config = (run / "config.yaml").read_text().replace("name: n0", f"name: n{number}")
    config = config.replace("seed_everything: 0", f"seed_everything: {number // 2}")
    (folder / "config.yaml").write_text(
        config.replace("encoder: true", f"encoder: {'true' if number % 2 else 'false'}")
    )
    return folder


def test_what_may_write_a_page_costs_little_to_import():
    code = "import sys, meddiff.reports.page.report; print('altair' in sys.modules, 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False False\n"


def cost(work: Callable[[], object]) -> float:
    """Processor time of the quickest of three runs."""
    spent = []
    for _ in range(3):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def test_it_is_quick(tmp_path):
    """A page costs no more than some ten million additions in Python (a second where this was written)."""
    run = make_run(tmp_path / "a" / "t", evaluations=10, overlays=16, samples=8, size=128)
    assert cost(lambda: write_report([run])) < 10 * cost(lambda: sum(i % 7 for i in range(1_000_000)))
