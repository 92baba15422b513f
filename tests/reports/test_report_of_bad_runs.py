"""The page from incomplete, spoilt and hostile run folders: what is missing is said, and nothing that a file brings runs."""

import base64
import hashlib
import html
import json
import os
import re
import shutil

import pytest

from meddiff.common.errors import UserError
from meddiff.reports.page.report import write_report
from tests.builders.report_page import Page, read
from tests.builders.run_folders import copy_run, make_run

EVIL = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">'


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
    assert sum(script.count("window.hacked = 1") for script in page.data) >= 6
    assert len(page.data) == 4  # tables, charts, two galleries
    assert len(page.scripts) == 3  # Vega and the page's own


def test_what_acts_on_a_terminal_or_reorders_text_is_spelled_out(tmp_path):
    run = make_run(
        tmp_path / "a" / "t", name="a\x1b]0;x\x07\u202egnp", evaluations=1, overlays=1, samples=0, phrase="b\u202ec"
    )
    text = write_report([run]).read_text()
    assert not set("\x1b\x07\u202e") & set(text)
    data = [json.dumps(json.loads(script), ensure_ascii=False) for script in Page(text).data]
    assert not set("\x1b\x07\u202e") & set("".join(data))
    assert "\\u202e" in Page(text).text


def test_nothing_is_loaded_and_no_other_script_may_run(run, tmp_path):
    for path in (
        write_report([run]),
        write_report([run, make_run(tmp_path / "b" / "t", frozen=False)], tmp_path / "x.html"),
    ):
        text = path.read_text()
        page = Page(text)
        assert page.addresses
        assert all(
            a.startswith(("data:", "#", "../", "report.html")) or a.endswith("report.html") for a in page.addresses
        )
        own = text
        for script in page.scripts:  # Vega names its home
            own = own.replace(script, "")
        assert "http://" not in own
        assert "https://" not in own
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
        assert policy is not None
        digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in page.scripts]
        assert "default-src 'none'" in html.unescape(policy[1])
        allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
        assert f"script-src {allowed}; " in html.unescape(policy[1])
        assert "unsafe" not in policy[1]
        assert "style=" not in own  # the policy forbids it
        assert not re.search(r"<[^>]+\son\w+=", own)


@pytest.mark.parametrize(
    "missing",
    ["tradeoff.csv", "metrics.jsonl", "config.yaml", "controls.json", "grounding", "media", "media/attention", "media/samples",
     "grounding/excluded.csv", "media/attention/x0.png", "media/attention/000016000-0.png", "media/attention/m0.png"],
)  # fmt: skip
def test_any_part_may_be_missing(run, tmp_path, missing):
    folder = copy_run(run, tmp_path)
    target = folder / missing
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    page = read(write_report([folder]))
    assert "Where it stands" in page.text
    assert all(a.startswith(("data:", "#")) for a in page.addresses)
    assert all(json.loads(script) is not None for script in page.data)


def test_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "config.yaml").write_text("name: fresh\n")
    text = write_report([tmp_path]).read_text()
    assert "not evaluated yet" in text
    assert "No loss has been logged yet." in text
    assert 'data-chart="' not in text


def test_step_zero_alone(tmp_path):
    run = make_run(tmp_path / "a" / "t", evaluations=1, overlays=1, samples=1)
    page = read(write_report([run]))
    assert "first evaluation" in page.text
    assert "step 0" in page.text
    assert "better by" not in page.text


@pytest.mark.parametrize("left_out", ["fidelity", "grounding"])
def test_one_side_alone(tmp_path, left_out):
    (tmp_path / "tradeoff.csv").write_text(
        "step,images,grounding/macro_cnr,fidelity/fd_domain\n"
        + ("0,0,0.1,\n100,1600,0.4,\n" if left_out == "fidelity" else "0,0,,90\n100,1600,,40\n")
    )
    page = read(write_report([tmp_path]))
    assert "No evaluation has both" in page.text
    assert ("0.400" if left_out == "fidelity" else "40.00") in page.text
    assert page.text.count("not evaluated yet") == 3


def test_evaluations_without_both_are_counted(tmp_path):
    table = "step,images,grounding/macro_cnr,fidelity/fd_domain\n0,0,0.1,90\n50,800,0.2,\n100,1600,0.4,nan\n200,3200,0.5,20\n"
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
    folder = copy_run(run, tmp_path)
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
    folder = copy_run(run, tmp_path)
    secret = folder / "secret.png"
    shutil.copy(folder / "media/attention/x1.png", secret)
    secret.write_bytes(secret.read_bytes() + b"the secret")
    index = folder / "media/attention/000016000.json"
    entries = json.loads(index.read_text())
    entries[0] |= {"image": "../../secret.png", "map": str(secret), "mask": "../../config.yaml"}
    index.write_text(json.dumps(entries))
    text = write_report([folder]).read_text()
    assert base64.b64encode(secret.read_bytes()).decode() not in text


def test_the_old_page_stays_when_writing_fails(run, tmp_path, monkeypatch):
    folder = copy_run(run, tmp_path)
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
