"""The slider over timesteps in headless Chromium: pictures change, a slow map shows its nearest timestep, nothing is loaded."""

from pathlib import Path

import pytest

from meddiff.reports.page.report import write_report
from tests.builders.browser import BROWSERS, browser, find_browser
from tests.builders.run_folders import make_run
from tests.builders.saliency_tables import STEPS, write_saliency

COMMAND = find_browser()
pytestmark = pytest.mark.skipif(COMMAND is None, reason=f"no browser on PATH ({', '.join(BROWSERS)})")
NOTES = "[...document.querySelectorAll('#saliency .tile:first-child .note')].map((note) => note.textContent)"


def test_the_slider_goes_over_timesteps(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "t", "frozen", frozen=True, overlays=0, samples=0)
    write_saliency(run, 1.0, slow={"df_cam": STEPS[1:2]})
    target = write_report([run], tmp_path / "report.html")
    with browser(str(COMMAND), tmp_path / "profile") as page:
        page.open(target)
        page.run("report.ready(true).then(() => 1)")
        assert page.problems == []
        assert page.requests == [target.resolve().as_uri()]
        charts = page.run("document.querySelectorAll('#saliency .chart').length")
        assert page.run("document.querySelectorAll('#saliency .plot svg.marks').length") == charts
        slide = "((s, i) => { s.value = i; s.dispatchEvent(new Event('input')); })"
        slider = "document.querySelector('#saliency [data-stop]')"
        seen = []
        for place, step in enumerate(STEPS):
            page.run(f"{slide}({slider}, {place}); 1")
            assert page.run("document.querySelector('#saliency output').textContent") == f"timestep {step}"
            seen.append(page.run(NOTES))
        assert [
            any(f"CNR {step / 100:.2f}" in note for note in notes) for step, notes in zip(STEPS, seen, strict=True)
        ] == [True] * 3
        assert all(any("DF-CAM" in note and f"CNR {STEPS[1] / 100:.2f}" in note for note in notes) for notes in seen)
        assert [any(f"at {STEPS[1]}" in note for note in notes) for notes in seen] == [True, False, True]
