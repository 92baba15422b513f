"""The page in headless Chromium: no console error, no request, and its controls work."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from meddiff.reports.page.report import write_report
from tests.builders.browser import BROWSERS, Browser, browser, find_browser
from tests.builders.run_folders import make_run

COMMAND = find_browser()
pytestmark = pytest.mark.skipif(COMMAND is None, reason=f"no browser on PATH ({', '.join(BROWSERS)})")
EVIL = '</script><script>window.hacked = 1</script><img src="x" onerror="window.hacked = 2">'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(str(COMMAND), tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _clean(page: Browser) -> None:
    page.problems.clear()
    page.requests.clear()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    one = make_run(folder / "frozen" / "t", name="frozen", phrase="Left effusion. " + EVIL)
    two = make_run(folder / "learnable" / "t", name="learnable", frozen=False, evaluations=3)
    (folder / "fresh").mkdir()
    (folder / "fresh" / "config.yaml").write_text("name: fresh\n")
    return [one, two, folder / "fresh"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", [[0], [0, 1], [2]])
def test_no_error_and_no_request(page, runs, tmp_path, which, scheme):
    target = write_report([runs[i] for i in which], tmp_path / "report.html")
    page.open(target, scheme=scheme)
    assert page.requests == [target.resolve().as_uri()]
    assert page.problems == []
    assert page.run("window.hacked") is None
    colour = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"
    luminance = page.run(f"{colour}.reduce((a, b) => a + Number(b), 0)")
    assert luminance < 150 if scheme == "dark" else luminance > 600


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_runs_over_the_edge(page, runs, tmp_path, width):
    page.open(write_report(runs, tmp_path / "report.html"), width=width)
    assert page.run("document.documentElement.scrollWidth") <= width


def test_chart_labels_do_not_touch(page, runs, tmp_path):
    page.open(write_report(runs[:2], tmp_path / "report.html"))
    overlaps = page.run("""
      [...document.querySelectorAll('.chart')].flatMap(chart => {
        const boxes = [...chart.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
        return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) => p.width && q.width &&
          Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1 &&
          Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 3.5
        ).map(([b]) => a + ' | ' + b));
      })""")
    assert overlaps == []


def slide(page: Browser, to: str) -> None:
    slider = "document.querySelector('#attention input[type=range]')"
    page.run(f"(s => {{ s.value = {to}; s.dispatchEvent(new Event('input')); }})({slider})")


def test_slider_theme_tabs_boxes_and_runs(page, runs, tmp_path):
    page.open(write_report(runs[:2], tmp_path / "report.html"))
    frame = "document.querySelector('#attention [data-cell=\"0\"] .frame').getAttribute('href')"
    newest = page.run(frame)
    slide(page, "0")
    assert page.run(frame) != newest
    assert page.run(frame).startswith("data:image/png;base64,")
    assert page.run("document.querySelector('#attention .at').textContent") == "0 images"
    slide(page, "s.max")
    assert page.run(frame) == newest

    shown = "[...document.querySelectorAll('#tradeoff [role=tabpanel]')].map(p => p.offsetHeight > 0)"
    assert page.run(shown) == [True, False]
    page.run("document.querySelectorAll('#tradeoff [role=tab]')[1].click()")
    assert page.run(shown) == [False, True]

    box = "getComputedStyle(document.querySelector('.roi')).display"
    assert page.run(box) != "none"
    page.run("document.querySelector('[data-hides=boxes]').click()")
    assert page.run(box) == "none"

    line = "getComputedStyle(document.querySelector('#tradeoff path.line.r1')).display"
    assert page.run(line) != "none"
    page.run("document.querySelector('.legend [data-run=r1]').click()")
    assert page.run(line) == "none"

    theme = "getComputedStyle(document.documentElement).colorScheme"
    assert page.run(theme) == "light"
    page.run("document.getElementById('theme').click(); document.getElementById('theme').click()")
    assert page.run(theme) == "dark"
    page.run("document.getElementById('theme').click()")
    assert page.run("document.documentElement.hasAttribute('data-theme')") is False
    assert page.problems == []


def test_tooltip(page, runs, tmp_path):
    page.open(write_report(runs[:1], tmp_path / "report.html"), height=1400)
    point = "document.querySelectorAll('#tradeoff .mark')[2].getBoundingClientRect()"
    x, y = page.run(f"(b => [b.left + b.width / 2, b.top + b.height / 2])({point})")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    text = page.run("document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent")
    assert text.startswith("frozen: 8,000 images, step 500")
    assert "macro CNR: " in text
    assert page.run("document.querySelectorAll('.chart title').length") == 0
