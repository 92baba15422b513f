"""Prototypes and shortcuts on the page: each value where it belongs, pictures of the run alone, names are no markup."""

import re
from pathlib import Path

import pytest

from meddiff.reports.page import prototypes
from meddiff.reports.page.report import open_runs, write_report
from meddiff.reports.page.tables import Tables
from tests.builders.prototype_tables import STEPS, write_prototypes, write_shortcut
from tests.builders.run_folders import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = make_run(tmp_path_factory.mktemp("prototypes") / "biased" / "t", "biased", overlays=0, samples=0)
    write_prototypes(found)
    write_shortcut(found)
    return found


def test_the_curves_stand_at_their_prototype_and_timestep(run: Path) -> None:
    table = prototypes.table(Tables(open_runs([run])))
    assert table["timestep"] == sorted(STEPS)
    assert table["prototypes/7/paired"] == [2.0, 2.0, 1.0, 0.0, 0.0]
    assert table["prototypes/7/paired low"][0] == pytest.approx(1.9)
    assert not any("clean" in key for key in table)  # what blur alone makes is no result
    named = prototypes.fields("prototypes/7", table)
    assert named == {f"{one}": f"prototypes/7/{two}" for one, two in
                     (("value", "paired"), ("blur", "low_pass"), ("chance", "random"))}  # fmt: skip


def test_cards_tell_what_was_measured_and_no_more(run: Path) -> None:
    found = prototypes.gallery(open_runs([run]))
    assert found is not None
    assert [card.key for card in found.cards] == ["prototypes/4", "prototypes/7", "prototypes/12"]
    first, _, last = found.cards
    assert first.title == "Prototype 4: Edema (label, AUROC 0.800)"
    assert "half there at timestep 450.0 (400.0 to 500.0)" in first.facts
    assert last.title == "Prototype 12: unnamed"
    assert "not raised beyond what images differ by" in last.facts
    assert [text for text, _ in first.pictures] == ["image", "with more of it", "patch", "most of it, 2.25"]
    assert all(uri.startswith("data:image/png;base64,") for card in found.cards for _, uri in card.pictures)


def test_the_index_stands_beside_its_parts(run: Path) -> None:
    rows = {row["what"]: row for row in prototypes.shortcut(open_runs([run])[0])}
    index = rows["shortcut index: leak of the biased model less that of the balanced one"]
    assert index["value"] == "0.375 (0.250 to 0.500)"
    assert rows["leak of the biased model"]["edited"] == "4 (0.81) 9 (0.77)"
    assert "AUROC of the finding's scorer" in rows


def test_the_page_shows_both_and_loads_nothing(run: Path, tmp_path: Path) -> None:
    text = write_report([run], tmp_path / "page.html").read_text()
    assert 'id="prototypes"' in text
    assert 'id="shortcut"' in text
    assert "not <b>Pneumonia" not in text
    assert "not &lt;b&gt;Pneumonia" in text
    assert len(re.findall(r'id="chart-emergence-prototypes-\d+"', text)) == 3
    assert "0.375 (0.250 to 0.500)" in text
    assert "a &lt;tube&gt; with Edema</h3>" in text
    assert not re.search(r'<img src="(?!data:)', text.split("<script")[0])


def test_pictures_outside_of_the_folder_are_not_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "odd" / "t", "odd", overlays=0, samples=0)
    write_prototypes(run)
    (run / "media" / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    file = run / "media" / "prototypes" / "000016000.json"
    file.write_text(file.read_text().replace("000016000-0004-image.png", "../secret.png"))
    found = prototypes.gallery(open_runs([run]))
    assert found is not None
    assert next(text for text, _ in found.cards[0].pictures) == "with more of it"


def test_runs_without_prototypes_have_no_such_section(tmp_path: Path) -> None:
    plain = make_run(tmp_path / "plain" / "t", "plain", overlays=0, samples=0)
    text = write_report([plain]).read_text()
    assert 'id="prototypes"' not in text
    assert 'id="shortcut"' not in text
