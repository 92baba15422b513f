"""The page from synthetic run folders: what stands in it, and that the same files give the same page."""

import base64
import json
import re
import time
from collections.abc import Callable

from meddiff.reports.page import media
from meddiff.reports.page.report import write_report
from tests.builders.report_page import Page, read
from tests.builders.run_folders import CLASSES, copy_run, make_run


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
    sections = re.findall(r'<section id="(\w+)"><h2>[^<]+</h2><p class="how">([^<]+)</p>', page)
    assert [name for name, _ in sections] == [
        "headline", "tradeoff", "time", "loss", "classes", "attention", "samples", "controls", "numbers", "configuration",
    ]  # fmt: skip
    assert all(text.strip().endswith(".") for _, text in sections)


def test_pictures_boxes_masks_and_evaluations_are_inside(run):
    text = write_report([run]).read_text()
    page = Page(text)
    blocks = [json.loads(script) for script in page.scripts if script.startswith("[")]
    attention, samples = blocks
    assert len(attention) == 8
    assert len(samples) == 6
    assert all(len(cell["at"]) == 5 and cell["uris"].count(None) == 1 for cell in attention)
    assert text.count('class="roi"') == 16  # on the X-ray and on the overlay
    assert text.count('class="mask"') == 12
    newest = json.loads((run / "media/attention/000016000.json").read_text())
    shown = base64.b64encode((run / "media/attention" / newest[0]["map"]).read_bytes()).decode()
    assert f"data:image/png;base64,{shown}" in page.addresses
    assert f"CNR {newest[0]['cnr']:.2f}" in page.text
    assert "no real" in page.text  # the sixth sample has none


def test_command_of_the_run(tmp_path):
    run = make_run(
        tmp_path / "a" / "t", evaluations=1, overlays=0, samples=0, command="lightning fit -c x.yaml --name <b>"
    )
    text = write_report([run]).read_text()
    assert "Made by" in text
    assert "lightning fit -c x.yaml --name &lt;b&gt;" in text


def test_light_and_dark(run):
    text = write_report([run]).read_text()
    assert "prefers-color-scheme:dark" in text
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
    assert "own finding first, N = 24 pairs" in page.text
    assert "macro CNR on exact masks, N = 80 phrases" in page.text


def test_several_runs_lie_over_each_other(run, tmp_path):
    other = make_run(tmp_path / "learnable" / "20261122-010101", name="learnable", frozen=False, seed=1, evaluations=3)
    same = copy_run(run, tmp_path)
    target = write_report([run, other, same, run], tmp_path / "all.html")
    assert target == tmp_path / "all.html"
    text = target.read_text()
    page = Page(text)
    assert "quickstart 20261121-085035" in page.text
    assert "quickstart copy" in page.text
    assert "learnable" in page.text
    assert text.count("data-run=") == 3  # the run given twice is shown once
    assert "model.init_args.freeze_text_encoder" in page.text  # what differs
    tradeoff = text[text.index('<section id="tradeoff"') : text.index('<section id="time"')]
    assert [f"line r{i}" in tradeoff for i in range(4)] == [True, True, True, False]
    assert tradeoff.count("location prior 0.410</text>") == 2  # equal controls once, for both distances
    assert write_report([run, other]) == run / "report.html"


def test_same_files_same_page(run, tmp_path):
    first = write_report([run]).read_bytes()
    assert write_report([run]).read_bytes() == first


def test_pictures_keep_to_a_budget(run, monkeypatch):
    monkeypatch.setattr("meddiff.reports.page.gallery.PAGE_BYTES", 1)
    text = write_report([run]).read_text()
    page = Page(text)
    assert "4 more evaluations are in attention of its media folder" in page.text
    assert '<input type="range"' not in text
    assert media.affordable(media.Media(run), {}, ("map",), 1) == []


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
