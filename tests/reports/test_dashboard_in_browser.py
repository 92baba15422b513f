"""The live pages in headless Chromium: under the strict policy, no message, no request to elsewhere. Needs a browser."""

import base64
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from meddiff.common.errors import UserError
from meddiff.reports.dashboard.app import Answer
from meddiff.reports.dashboard.watched import Watched
from meddiff.runs import names
from tests.builders.browser import Browser, browser, find_browser
from tests.builders.dashboards import SECRET, Client, served
from tests.builders.run_folders import make_run

COMMAND = find_browser()
pytestmark = pytest.mark.skipif(COMMAND is None, reason="no Chromium here")


@pytest.fixture
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(str(COMMAND), tmp_path_factory.mktemp("profile")) as found:
        yield found


def visit(page: Browser, client: Client, path: str) -> None:
    page.call("Page.navigate", url=f"http://127.0.0.1:{client.port}{path}")
    until(lambda: page.run("document.readyState") == "complete")


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not now(condition):
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.1)


def now(condition: Callable[[], object]) -> object:
    """False while the page that is asked gives way to another."""
    try:
        return condition()
    except RuntimeError as error:
        if "navigated or closed" in str(error):
            return False
        raise


def points(page: Browser) -> object:
    """Evaluations that the trade-off draws."""
    return page.run(
        "[...report.charts].find(([figure]) => figure.dataset.chart === 'tradeoff')[1].view.data('evaluations').length"
    )


def append(run: Path, images: int, cnr: str) -> None:
    """One more evaluation, as training writes it."""
    table = run / names.TRADEOFF
    lines = table.read_text().splitlines()
    row = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    row |= {"step": str(images // 16), "images": str(images), "grounding/macro_cnr": cnr}
    table.write_text("\n".join([*lines, ",".join(row.values())]) + "\n")


def test_an_open_page_follows_its_runs(tmp_path: Path, page: Browser) -> None:
    folder = tmp_path / "runs"
    first = make_run(folder / "frozen" / "one", evaluations=3)
    with served(Watched(folder)) as client:
        visit(page, client, f"/?token={SECRET}")
        until(lambda: page.run("location.search === '' && !!window.report && report.ready().then(() => true)"))
        until(lambda: page.run("document.querySelector('.live')?.textContent.includes('follows')"))
        before = points(page)
        page.run("dispatchEvent(new Event('pointerdown')); window.sameDocument = true")  # somebody reads
        page.run("document.querySelector('[data-chart=tradeoff]').dataset.same = 'yes'")
        append(first, 32000, "3.21")
        until(lambda: points(page) == before + 1)
        until(lambda: "3.21" in str(page.run("document.querySelector('.claim').textContent")))
        assert "3.21" in str(page.run("document.querySelector('#runs .big').textContent"))
        assert page.run("document.querySelector('#until').max") == "3"
        assert page.run("document.querySelector('[data-chart=tradeoff]').dataset.same") == "yes", "not loaded anew"
        assert page.run("window.sameDocument") is True, "a reader is not interrupted"
        assert page.run("!document.querySelector('.live button').hidden")
        page.run("document.querySelector('.live button').click()")
        until(lambda: page.run("window.sameDocument === undefined && document.readyState === 'complete'"))
        until(lambda: page.run("!!window.report && report.ready().then(() => true)"))
        make_run(folder / "learnable" / "two", evaluations=3, frozen=False, name="other")
        until(lambda: page.run("document.querySelectorAll('[data-run]').length === 2"))  # nobody reads: shown anew
        assert page.run("document.cookie") == "", "no script can read the token"
        assert page.problems == []
        assert {url.partition("?")[0] for url in page.requests} <= {
            f"http://127.0.0.1:{client.port}/{name}" for name in ("", "events", "favicon.ico")
        }


def test_an_empty_folder_shows_the_first_run(tmp_path: Path, page: Browser) -> None:
    with served(Watched(tmp_path)) as client:
        visit(page, client, f"/?token={SECRET}")
        until(lambda: "no run in" in str(page.run("document.body?.textContent")).lower())
        until(lambda: page.run("document.querySelector('.live')?.textContent.includes('follows')"))
        make_run(tmp_path / "frozen" / "one", evaluations=2)
        until(lambda: page.run("!!window.report"))
        assert page.problems == []


class Painter:
    """Answers with what it was given, and with a hostile name."""

    names: Sequence[str] = ("<img src=x onerror=alert(1)>",)

    def __call__(self, picture: bytes, phrase: str) -> list[Answer]:
        if "nothing" in phrase:
            raise UserError("There is <b>no</b> word.")
        uri = "data:image/png;base64," + base64.b64encode(picture).decode()
        words = [{"word": word, "picture": uri} for word in phrase.split()]
        absent = [
            {"finding": "Edema", "picture": uri, "alike": -0.5},
            {"finding": "Other", "picture": uri, "alike": None},
        ]
        return [{"model": self.names[0], "phrase": uri, "words": words, "absent": absent}]  # type: ignore[typeddict-item]


def test_a_picture_is_asked_about(tmp_path: Path, page: Browser) -> None:
    make_run(tmp_path / "frozen" / "one", evaluations=2)
    picture = next((tmp_path / "frozen" / "one" / "media").rglob("*.png"))
    with served(Watched(tmp_path), Painter()) as client:
        visit(page, client, f"/?token={SECRET}")
        until(lambda: page.run("[...document.querySelectorAll('.live a')].some(link => link.pathname === '/try')"))
        visit(page, client, "/try")
        page.run("document.querySelector('form button').click()")
        assert page.run("document.querySelector('#state').textContent") == "Choose a picture first."
        root = page.call("DOM.getDocument")["root"]["nodeId"]
        node = page.call("DOM.querySelector", nodeId=root, selector="#picture")["nodeId"]
        page.call("DOM.setFileInputFiles", files=[str(picture)], nodeId=node)
        until(lambda: page.run("document.querySelector('#name').textContent") == picture.name)
        page.run("document.querySelector('#phrase').value = 'left <i>effusion</i>'")
        page.run("document.querySelector('form button').click()")
        until(lambda: page.run("document.querySelectorAll('#answers img').length") == 1 + 2 + 2)
        assert page.run("document.querySelector('#answers h2').textContent") == Painter.names[0]
        assert page.run("document.querySelectorAll('#answers i, #answers [onerror]').length") == 0
        text = str(page.run("document.querySelector('#answers').textContent"))
        assert "r = −0.50" in text
        assert page.run("[...document.querySelectorAll('#answers img')].every(i => i.naturalWidth > 0)")
        page.run("document.querySelector('#phrase').value = 'nothing'")
        page.run("document.querySelector('form button').click()")
        until(lambda: page.run("document.querySelector('#state').textContent") == "There is <b>no</b> word.")
        page.call("Emulation.setDeviceMetricsOverride", width=375, height=800, deviceScaleFactor=1, mobile=True)
        assert page.run("document.documentElement.scrollWidth") == 375, "nothing is cut on a phone"
        own = [problem for problem in page.problems if "422" not in problem]  # the browser notes the refusal itself
        assert own == []
