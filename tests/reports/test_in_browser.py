"""The page in headless Chromium under its own policy: no message, no request, and everything on it works."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from meddiff.reports.page.report import write_report
from tests.builders.browser import BROWSERS, Browser, browser, find_browser
from tests.builders.run_folders import make_run

COMMAND = find_browser()
pytestmark = pytest.mark.skipif(COMMAND is None, reason=f"no browser on PATH ({', '.join(BROWSERS)})")
EVIL = '</script><script>window.hacked = 1</script><img src="x" onerror="window.hacked = 2">'
ALL = "report.ready(true).then(() => 1)"
Opener = Callable[..., Path]


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
    seeds = [make_run(folder / f"s{seed}" / "t", "learnable", 5, 1, 1, False, seed) for seed in range(2)]
    return [one, two, folder / "fresh", *seeds]


@pytest.fixture
def opened(page: Browser, runs: list[Path], tmp_path: Path) -> Opener:
    def open_(*which: int, **how: object) -> Path:
        target = write_report([runs[i] for i in which], tmp_path / "report.html")
        page.open(target, **how)  # type: ignore[arg-type]
        page.run(ALL)
        return target

    return open_


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", [(0,), (0, 1), (2,), (0, 1, 2, 3, 4)])
def test_every_chart_is_drawn_without_a_message_or_a_request(page, opened, which, scheme):
    target = opened(*which, scheme=scheme)
    assert page.requests == [target.resolve().as_uri()]
    assert page.problems == []
    assert page.run("window.hacked") is None
    charts = page.run("document.querySelectorAll('.chart').length")
    assert (charts > 8) == (which != (2,))
    assert page.run("document.querySelectorAll('.plot svg.marks').length") == charts
    assert (
        page.run("[...document.querySelectorAll('.plot')].filter(p => p.textContent.includes('could not')).length") == 0
    )
    colour = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"
    luminance = page.run(f"{colour}.reduce((a, b) => a + Number(b), 0)")
    assert luminance < 150 if scheme == "dark" else luminance > 600


def test_a_ban_on_eval_holds_here(page, opened):
    """Control: what drew the charts cannot have been eval."""
    opened(0)
    with pytest.raises(RuntimeError, match=r"unsafe-eval|EvalError"):
        page.run("eval('1')")
    page.problems.clear()


@pytest.mark.parametrize("width", [1280, 390, 375])
@pytest.mark.parametrize("which", [(0,), (0, 1, 2, 3, 4)])
def test_nothing_runs_over_the_edge_and_no_chart_is_cut(page, opened, which, width):
    opened(*which, width=width)
    assert page.run("document.documentElement.scrollWidth") <= width
    cut = """[...document.querySelectorAll('.plot')].filter(plot => {
      const box = plot.getBoundingClientRect();
      return [...plot.querySelectorAll('text')].some(t => {
        const place = t.getBoundingClientRect();
        return place.width && (place.left < box.left - 2 || place.right > box.right + 2);
      });
    }).map(plot => plot.closest('figure').id)"""
    assert page.run(cut) == []
    assert page.run("Math.min(...[...document.querySelectorAll('.plot svg')].map(s => s.clientWidth))") > 250


def signal(page: Browser, name: str, chart: str = "tradeoff") -> object:
    return page.run(f"report.charts.get(document.querySelector('[data-chart={chart}]')).view.signal('{name}')")


def paths(page: Browser) -> str:
    """What the trade-off looks like now."""
    marks = "[...document.querySelectorAll('[data-chart=tradeoff] .plot svg :is(path, text, line)')]"
    return str(page.run(f'{marks}.map(m => m.outerHTML.replace(/aria-[^=]*="[^"]*"/g, \'\')).join()'))


def slide(page: Browser, selector: str, to: str) -> None:
    slider = f"document.querySelector('{selector}')"
    page.run(f"(s => {{ s.value = {to}; s.dispatchEvent(new Event('input')); }})({slider})")
    page.run("Promise.all([...report.charts.values()].map(c => c.view.runAsync())).then(() => 1)")


def test_slider_over_training_images_reaches_every_chart_and_the_address(page, opened):
    target = opened(0, 1)
    before = paths(page)
    slide(page, "#until", "2")
    assert signal(page, "until") == signal(page, "until", "curve") == 8000
    assert paths(page) != before
    assert page.run("document.querySelector('#until').nextElementSibling.textContent") == "8,000 images"
    assert page.run("location.hash") == "#?until=8000"
    at_once = paths(page)
    page.call("Page.navigate", url="about:blank")
    page.open(Path(f"{target}"), fragment="#?until=8000")
    page.run(ALL)
    assert paths(page) == at_once, "the address brings it back"
    slide(page, "#until", "s.max")
    assert signal(page, "until") is None
    assert page.run("location.hash") in ("", "#")


def change(page: Browser, selector: str, value: str, event: str) -> None:
    set_it = f"s.value = {json.dumps(value)}; s.dispatchEvent(new Event('{event}'));"
    page.run(f"(s => {{ {set_it} }})(document.querySelector('{selector}'))")


def settle(page: Browser) -> None:
    page.run("new Promise(done => setTimeout(done, 500)).then(() => 1)")


def place(page: Browser, selector: str, number: int = 0) -> list[float]:
    """left, top, width and height of an element."""
    box = f"document.querySelectorAll('{selector}')[{number}].getBoundingClientRect()"
    return page.run(f"(b => [b.left, b.top, b.width, b.height])({box})")


def press(page: Browser, key: str, code: int) -> None:
    for kind in ("keyDown", "keyUp"):
        more = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
        page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)


def test_runs_are_hidden_by_keyboard(page, opened):
    opened(0, 1)
    before = paths(page)
    button = "document.querySelector('[data-run=learnable]')"
    page.run(f"{button}.focus()")
    press(page, "Enter", 13)
    settle(page)
    assert page.run(f"{button}.getAttribute('aria-pressed')") == "false"
    assert signal(page, "shown") == ["frozen"]
    assert paths(page) != before
    page.run("document.querySelector('[data-group=learnable]').click()")
    settle(page)
    assert signal(page, "shown") is None
    page.run("document.querySelector('#until').focus()")
    press(page, "ArrowLeft", 37)
    assert page.run("document.querySelector('#until').nextElementSibling.textContent") == "12,000 images"
    assert page.problems == []


def test_axes_can_be_chosen(page, opened):
    opened(0, 1)
    change(page, "[data-axis=y]", "grounding/macro_auroc", "change")
    settle(page)
    assert "macro AUROC; better grounding" in paths(page)
    assert "grounding%2Fmacro_auroc" in str(page.run("location.hash"))
    assert page.problems == []


def test_a_stretch_of_training_is_marked_in_the_other_charts(page, opened):
    opened(0, 1)
    plot = "[data-chart=curve] .plot svg"
    page.run(f"document.querySelector('{plot}').scrollIntoView({{ block: 'center', behavior: 'instant' }})")
    box = place(page, plot)
    top = box[1]
    x, y = box[0] + box[2] * 0.3, top + box[3] * 0.5
    page.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", buttons=1, clickCount=1)
    for part in (0.4, 0.5, 0.6):
        page.call(
            "Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + box[2] * part, y=y, button="left", buttons=1
        )
    page.call(
        "Input.dispatchMouseEvent", type="mouseReleased", x=box[0] + box[2] * 0.6, y=y, button="left", clickCount=1
    )
    settle(page)
    low, high = signal(page, "lo"), signal(page, "hi")
    assert 0 < low < high < 16000
    assert page.problems == []


def test_the_wheel_scrolls_and_with_ctrl_it_zooms(page, opened):
    opened(0)
    left, top, width, height = place(page, "[data-chart=tradeoff] .plot svg")
    x, y = left + width / 2, top + height / 2
    before = paths(page)
    page.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=120)
    settle(page)
    assert page.run("scrollY") > 0
    assert paths(page) == before
    page.run("scrollTo({ top: 0, behavior: 'instant' })")
    page.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-120, modifiers=2)
    settle(page)
    assert paths(page) != before


def test_three_downloads(page, opened, tmp_path):
    opened(0, 1)
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "got"))
    for kind in ("svg", "png", "csv"):
        page.run(f"document.querySelector('[data-chart=tradeoff] [data-save={kind}]').click()")
    for _ in range(100):
        found = {file.suffix: file for file in (tmp_path / "got").glob("*.*") if (tmp_path / "got").is_dir()}
        if {".svg", ".png", ".csv"} <= set(found):
            break
        time.sleep(0.1)
    svg, table = found[".svg"].read_text(), found[".csv"].read_text().splitlines()
    assert svg.startswith("<svg")
    assert "var(--" not in svg
    assert "#0b6fb8" in svg
    picture = np.asarray(Image.open(found[".png"]).convert("RGB"))
    assert picture.shape[1] > 1500
    assert len({tuple(colour) for colour in picture[::5, ::5].reshape(-1, 3)}) > 10
    assert table[0].startswith("run,sweep,encoder,prompt,seed,kind,images,step,distance,cnr")
    assert len(table) == 1 + 5 + 3
    assert page.problems == []


def test_theme_and_print(page, opened):
    opened(0)
    theme = "getComputedStyle(document.documentElement).colorScheme"
    ink = "getComputedStyle(document.querySelector('.plot .role-axis-label text')).fill"
    light = page.run(ink)
    assert page.run(theme) == "light dark"
    page.run("document.getElementById('theme').click(); document.getElementById('theme').click()")
    assert page.run(theme) == "dark"
    assert page.run(ink) != light, "charts follow without being drawn again"
    page.run("document.getElementById('theme').click()")
    assert page.run("document.documentElement.hasAttribute('data-theme')") is False
    assert base64.b64decode(page.call("Page.printToPDF", printBackground=True)["data"]).startswith(b"%PDF")
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    page.call("Emulation.setEmulatedMedia", media="")
    assert page.problems == []


def test_the_phrase_explorer(page, opened, runs):
    opened(0, 1)
    tiles = "document.querySelectorAll('#attention .tile').length"
    count = "document.querySelector('#attention .count').textContent"
    shown = "document.querySelector('#attention .tile .panels > div:nth-child(2) img:last-of-type').src"
    assert page.run(tiles) == 16  # the phrases of one run are not those of the other
    newest = page.run(shown)
    assert str(newest).startswith("data:image/png;base64,")
    slide(page, "#attention [data-stop]", "0")
    assert page.run(shown) != newest
    assert page.run("location.hash") == "#?attention=0"
    slide(page, "#attention [data-stop]", "s.max")

    def choose(name: str, value: str) -> None:
        change(page, f"#attention [data-filter={name}]", value, "input")

    choose("class", "Edema")
    assert page.run(count) == "2 of 16 phrases, 5 evaluations"
    choose("class", "")
    choose("text", "effusion")
    assert page.run(tiles) == 9
    choose("text", "")
    choose("order", "0:1")
    values = page.run(
        "[...document.querySelectorAll('#attention .tile .panels > div:nth-child(2) b')].map(b => b.textContent)"
    )
    numbers = [float(v.removeprefix("CNR ").split(",")[0].replace("−", "-")) for v in values if v != "none"]
    assert numbers == sorted(numbers)
    assert len(numbers) == 8
    box = "getComputedStyle(document.querySelector('.roi')).display"
    assert page.run(box) != "none"
    page.run("document.querySelector('[data-hides=boxes]').click()")
    assert page.run(box) == "none"
    page.run("document.querySelector('#attention .xray').click()")
    assert page.run("document.getElementById('box').open") is True
    first = page.run("document.querySelector('#box figcaption').textContent")
    press(page, "ArrowRight", 39)
    assert page.run("document.querySelector('#box figcaption').textContent") != first
    press(page, "Escape", 27)
    assert page.run("document.getElementById('box').open") is False
    assert page.problems == []


def test_tables_can_be_sorted_and_read_aloud(page, opened):
    opened(0, 1, 3)
    column = "[...document.querySelectorAll('#runs .sortable tbody tr')].map(r => r.cells[4].textContent)"
    page.run("document.querySelectorAll('#runs .sortable thead th')[4].querySelector('button').click()")
    found = [float(v.replace(",", "").replace("−", "-")) for v in page.run(column)]
    assert found == sorted(found, reverse=True)
    assert (
        page.run("document.querySelectorAll('#runs .sortable thead th')[4].getAttribute('aria-sort')") == "descending"
    )
    page.run("document.querySelector('[data-chart=tradeoff] .rows').open = true")
    settle(page)
    assert page.run("document.querySelectorAll('[data-chart=tradeoff] .rows tbody tr').length") == 5 + 3 + 5
    assert "macro CNR" in str(page.run("document.querySelector('[data-chart=tradeoff] .rows thead').textContent"))


def test_tooltip(page, opened):
    opened(0, height=1000)
    point = "document.querySelectorAll('[data-chart=tradeoff] .mark-symbol.role-mark path')[2].getBoundingClientRect()"
    x, y = page.run(f"(b => [b.left + b.width / 2, b.top + b.height / 2])({point})")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    settle(page)
    tip = page.run("document.getElementById('vg-tooltip-element').innerText")
    assert page.run("getComputedStyle(document.getElementById('vg-tooltip-element')).visibility") == "visible"
    for text in ("frozen", "8,000", "macro CNR"):
        assert text in tip
    assert page.problems == []


def test_hostile_names_are_text_everywhere(page, tmp_path):
    runs = [
        make_run(tmp_path / side / "t", name=f"{side} {EVIL}", phrase=EVIL, frozen=side == "a", evaluations=2)
        for side in "ab"
    ]
    target = write_report(runs, tmp_path / "report.html")
    page.open(target)
    page.run(ALL)
    page.run("document.querySelectorAll('.rows').forEach(d => { d.open = true; })")
    page.run("document.querySelector('#attention .xray').click()")
    page.run("document.querySelector('[data-run]').click()")
    settle(page)
    assert page.run("window.hacked") is None
    assert page.run("document.querySelectorAll('img[src=x]').length") == 0
    assert EVIL in str(page.run("document.querySelector('#runs').textContent"))
    assert EVIL in str(page.run("document.querySelector('#attention').textContent"))
    assert page.requests == [target.resolve().as_uri()]
    assert page.problems == []
