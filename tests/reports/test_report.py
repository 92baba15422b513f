"""The page from synthetic run folders: what stands in it, what may be missing, and that it stays by itself."""

import base64
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from meddiff.common.errors import UserError
from meddiff.reports.page import media
from meddiff.reports.page.report import write_report
from tests.builders.run_folders import CLASSES, make_run

ROOT = Path(__file__).parent.parent.parent
EVIL = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">'


class Page(HTMLParser):
    """Elements, addresses and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = tag
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "action", "srcset", "data")]
        self.addresses += re.findall(r"url\(([^)]*)\)", " ".join(v or "" for _, v in attrs))
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside == "style":
            self.addresses += re.findall(r"url\(([^)]*)\)|@import", data)
        else:
            self.text += data + "\n"


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "quickstart" / "20261121-085035")


def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "quickstart" / "copy"))


def test_numbers_with_change_control_and_n(run):
    page = read(write_report([run]))
    rows = (run / "tradeoff.csv").read_text().splitlines()
    columns = rows[0].split(",")
    first, last = (dict(zip(columns, line.split(","), strict=True)) for line in (rows[1], rows[-1]))
    for key in ("grounding/macro_cnr", "grounding/macro_auroc", "grounding/macro_top1"):
        assert f"{float(last[key]):.3f}"[:4] in page.text
    assert f"{float(last['fidelity/fid_domain']):.2f}" in page.text
    fall = float(first["fidelity/fid_domain"]) - float(last["fidelity/fid_domain"])
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
    far, near, now = 176.0, 3.1, float(last["fidelity/fid_domain"])
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


def test_what_files_say_is_escaped(tmp_path):
    run = make_run(tmp_path / "a" / "t", name=EVIL, evaluations=2, overlays=2, samples=2, command=EVIL, phrase=EVIL)
    samples = run / "media/samples/000016000.json"
    entries = json.loads(samples.read_text())
    entries[0] |= {"prompt": EVIL, "sampler": EVIL, "key": EVIL}
    samples.write_text(json.dumps(entries))
    table = run / "grounding" / "000016000.csv"
    table.write_text(table.read_text() + '"k","' + EVIL.replace('"', '""') + '","p",1.0,1.0,0.5,1,0.2\n')
    (run / "grounding/excluded.csv").write_text('key,class,phrase,reason\nk,c,p,"' + EVIL.replace('"', '""') + '"\n')
    text = write_report([run]).read_text()
    page = Page(text)
    assert "<script>window" not in text
    assert "img" not in page.tags
    assert page.text.count("window.hacked = 1") >= 6  # shown as text
    assert len(page.scripts) == 3  # two data blocks and the page's own
    assert all(json.loads(script) for script in page.scripts[:2])


def test_nothing_is_loaded_and_no_other_script_may_run(run, tmp_path):
    for path in (
        write_report([run]),
        write_report([run, make_run(tmp_path / "b" / "t", frozen=False)], tmp_path / "x.html"),
    ):
        text = path.read_text()
        page = Page(text)
        assert page.addresses
        assert all(a.startswith(("data:", "#")) for a in page.addresses), [a[:40] for a in page.addresses]
        assert "http://" not in text
        assert "https://" not in text
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
        assert policy is not None
        digest = base64.b64encode(hashlib.sha256(page.scripts[-1].encode()).digest()).decode()
        assert "default-src 'none'" in policy[1]
        assert f"script-src 'sha256-{digest}'" in policy[1]
        assert not re.search(r"<[^>]+\son\w+=", text)


def test_light_and_dark(run):
    text = write_report([run]).read_text()
    assert "prefers-color-scheme:dark" in text
    assert "[data-theme=dark]" in text
    assert 'id="theme"' in text


@pytest.mark.parametrize(
    "missing",
    ["tradeoff.csv", "metrics.jsonl", "config.yaml", "controls.json", "grounding", "media", "media/attention", "media/samples",
     "grounding/excluded.csv", "media/attention/x0.png", "media/attention/000016000-0.png", "media/attention/m0.png"],
)  # fmt: skip
def test_any_part_may_be_missing(run, tmp_path, missing):
    folder = copy(run, tmp_path)
    target = folder / missing
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    page = read(write_report([folder]))
    assert "Where it stands" in page.text
    assert all(a.startswith(("data:", "#")) for a in page.addresses)


def test_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "config.yaml").write_text("name: fresh\n")
    text = write_report([tmp_path]).read_text()
    assert "not evaluated yet" in text
    assert "No loss has been logged yet." in text
    assert "<svg class=" not in text


def test_step_zero_alone(tmp_path):
    run = make_run(tmp_path / "a" / "t", evaluations=1, overlays=1, samples=1)
    page = read(write_report([run]))
    assert "first evaluation" in page.text
    assert "step 0" in page.text
    assert "better by" not in page.text


@pytest.mark.parametrize("left_out", ["fidelity", "grounding"])
def test_one_side_alone(tmp_path, left_out):
    (tmp_path / "tradeoff.csv").write_text(
        "step,images,grounding/macro_cnr,fidelity/fid_domain\n"
        + ("0,0,0.1,\n100,1600,0.4,\n" if left_out == "fidelity" else "0,0,,90\n100,1600,,40\n")
    )
    page = read(write_report([tmp_path]))
    assert "No evaluation has both" in page.text
    assert ("0.400" if left_out == "fidelity" else "40.00") in page.text
    assert page.text.count("not evaluated yet") == 3


def test_evaluations_without_both_are_counted(tmp_path):
    table = "step,images,grounding/macro_cnr,fidelity/fid_domain\n0,0,0.1,90\n50,800,0.2,\n100,1600,0.4,nan\n200,3200,0.5,20\n"
    (tmp_path / "tradeoff.csv").write_text(table)
    page = read(write_report([tmp_path]))
    assert "2 evaluations without both measurements are not drawn." in page.text


def test_metrics_serve_where_there_is_no_table(tmp_path):
    rows = [
        {"step": 0, "images": 0, "grounding/macro_cnr": 0.1, "fidelity/fid_inception": 80.0},
        {"step": 9, "train/loss": 0.5},
        {"step": 100, "images": 1600, "grounding/macro_cnr": None, "fidelity/fid_inception": 60.0},
        {"step": 100, "images": 1600, "grounding/macro_cnr": 0.75},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 200, "gro')
    page = read(write_report([tmp_path]))
    assert "0.750" in page.text
    assert "60.00" in page.text
    assert "Fréchet distance, Inception features" in page.text


def test_spoilt_files_are_named_and_do_not_stop_it(run, tmp_path):
    folder = copy(run, tmp_path)
    (folder / "controls.json").write_text("{")
    (folder / "config.yaml").write_text("a: [")
    (folder / "tradeoff.csv").write_bytes(b"step,images\n\xff\xfe,\x00\n")
    (folder / "media/attention/000016000.json").write_text(
        '[{"boxes": [[1, 2], "x", [1, 2, 3, 1e400]], "size": "big"}, 3]'
    )
    (folder / "grounding/000016000.csv").write_text("key,class,phrase,cnr\na,b\n,,,,,,,\n")
    page = read(write_report([folder]))
    assert "controls.json is not valid JSON." in page.text
    assert "config.yaml is not valid YAML." in page.text


def test_nothing_outside_the_media_folder_is_read(run, tmp_path):
    folder = copy(run, tmp_path)
    secret = folder / "secret.png"
    shutil.copy(folder / "media/attention/x1.png", secret)
    secret.write_bytes(secret.read_bytes() + b"the secret")
    index = folder / "media/attention/000016000.json"
    entries = json.loads(index.read_text())
    entries[0] |= {"image": "../../secret.png", "map": str(secret), "mask": "../../config.yaml"}
    index.write_text(json.dumps(entries))
    text = write_report([folder]).read_text()
    assert base64.b64encode(secret.read_bytes()).decode() not in text


def test_the_way_to_real_images_starts_at_the_first_evaluation_where_no_untrained_model_was_measured(run, tmp_path):
    folder = copy(run, tmp_path)
    controls = {"fidelity": {"n": 500, "fid_domain": {"real_vs_real": 0.0}}}
    (folder / "controls.json").write_text(json.dumps(controls))
    (folder / "tradeoff.csv").write_text("step,images,fidelity/fid_domain\n0,0,80\n9,144,20\n")
    page = read(write_report([folder]))
    assert "share of the way from the first evaluation to real against real" in page.text
    assert "75 %" in page.text


def test_what_else_the_maps_say(run):
    page = read(write_report([run]))
    for text in ("macro CNR on exact masks", "CNR of the end token", "CNR on confounders", "own finding beats other"):
        assert text in page.text
    assert "own finding beats other, N = 24 pairs" in page.text
    assert "macro CNR on exact masks, N = 80 phrases" in page.text


def test_several_runs_lie_over_each_other(run, tmp_path):
    other = make_run(tmp_path / "learnable" / "20261122-010101", name="learnable", frozen=False, seed=1, evaluations=3)
    same = copy(run, tmp_path)
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


def test_the_old_page_stays_when_writing_fails(run, tmp_path, monkeypatch):
    folder = copy(run, tmp_path)
    target = write_report([folder])
    target.write_text("old")
    before = sorted(folder.iterdir())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match=r"cannot be written to .*report.html \(No space left on device\)"):
        write_report([folder])
    assert target.read_text() == "old"
    assert sorted(folder.iterdir()) == before


def test_bad_input_is_one_sentence(run, tmp_path):
    with pytest.raises(UserError, match=r"^No run folder at .*nowhere\.$"):
        write_report([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"is not a run folder .*a run folder is RUNS/NAME/TIME\.$"):
        write_report([tmp_path])
    with pytest.raises(UserError, match=r"name one of the runs in it, such as .*20261121-085035\.$"):
        write_report([run.parent])
    with pytest.raises(UserError, match=r"is a folder: name a file"):
        write_report([run], tmp_path)
    with pytest.raises(UserError, match="No run"):
        write_report([])


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
