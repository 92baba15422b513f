"""What ``lightning explain`` found, on the page: each value where it belongs, the maps behind a slider over timesteps."""

import json
import re
from pathlib import Path

import pytest

from meddiff.reports.page import gallery
from meddiff.reports.page.report import open_runs, write_report
from meddiff.reports.page.tables import Tables
from tests.builders.run_folders import make_run
from tests.builders.saliency_tables import STEPS, write_saliency


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("saliency")
    found = []
    for side, shift in (("frozen", 1.0), ("learnable", 0.5)):
        run = make_run(folder / side / "t", side, frozen=side == "frozen", overlays=0, samples=0)
        write_saliency(run, shift)
        found.append(run)
    return found


@pytest.fixture(scope="module")
def tables(runs: list[Path]) -> Tables:
    return Tables(open_runs(runs))


def test_every_value_stands_at_its_run_and_timestep(tables: Tables) -> None:
    rows = zip(*(tables.saliency[name] for name in ("encoder", "timestep", "saliency/df_cam/cnr")), strict=True)
    assert list(rows) == [
        (side, step, pytest.approx(shift + 0.1 + step / 1e4))
        for side, shift in (("frozen", 1.0), ("learnable", 0.5))
        for step in sorted(STEPS)
    ]
    assert "saliency/attention/gain_absent/Edema" in tables.saliency
    assert not any("macro" in name or name.startswith("saliency/df_cam/cnr/") for name in tables.saliency)


def test_the_prior_is_a_line(tables: Tables) -> None:
    rows = zip(*(tables.by_timestep["saliency_tools"][name] for name in ("tool", "timestep", "cnr")), strict=True)
    assert [row for row in rows if row[0] == "prior"] == [("prior", step, 0.625) for step in sorted(STEPS)] * 2


def test_the_slider_goes_from_much_noise_to_little(tables: Tables) -> None:
    found = gallery.timestep_maps(tables)
    assert found is not None
    assert found.data["stops"] == list(STEPS)
    assert found.data["unit"] == "timestep"
    cards = found.data["cards"]
    assert [card["phrase"] for card in cards] == ["phrase a <b>", "phrase b <b>"]  # type: ignore[union-attr]
    assert [[cell["cnr"] for cell in line] for line in cards[0]["cells"]] == [[7.41, 3.81, 0.21]] * 4  # type: ignore[index]
    assert not found.elsewhere


def test_frozen_and_learnable_stand_beside_each_other_map_by_map_and_others_are_said(
    tables: Tables, runs: list[Path], tmp_path: Path
) -> None:
    found = gallery.timestep_maps(tables)
    assert found is not None
    lines = [(line["run"].rpartition(", ")[2], line["encoder"]) for line in found.data["runs"]]  # type: ignore[union-attr]
    assert lines == [("frozen", "frozen"), ("learnable", "learnable")] * 2
    third = make_run(tmp_path / "third" / "t", "third", frozen=True, overlays=0, samples=0)
    write_saliency(third, 0.2)
    swapped = gallery.timestep_maps(Tables(open_runs([runs[1], runs[0], third])))
    assert swapped is not None
    assert [line["encoder"] for line in swapped.data["runs"]] == ["frozen", "learnable"] * 2  # type: ignore[union-attr]
    assert swapped.elsewhere == [2]
    alone = gallery.timestep_maps(Tables(open_runs([runs[0], third])))
    assert alone is not None
    assert len(alone.data["runs"]) == 2  # type: ignore[arg-type]
    assert alone.elsewhere == [1]


def test_the_page_shows_it_and_loads_nothing(runs: list[Path], tmp_path: Path) -> None:
    text = write_report(runs, tmp_path / "page.html").read_text()
    assert 'id="saliency"' in text
    assert "phrase a <b>" not in text  # a phrase is no markup
    about = json.loads(re.search(r'id="about">(.*?)</script>', text, re.DOTALL).group(1))  # type: ignore[union-attr]
    assert {"by_timestep", "tools_cnr", "tools_gain"} <= set(about["specs"])
    assert (
        about["keys"]["saliency/attention/gain_absent/Edema"]["label"]
        == "Gain over an absent finding, attention, Edema"
    )
    shown = set(re.findall(r'data-fields="{&#34;value&#34;:&#34;(saliency/[^&]+)&#34;}"', text))
    assert shown >= {"saliency/attention/gain_absent", "saliency/attention/gain_absent/Edema"}
    assert all(key in about["keys"] for key in shown)


def test_runs_that_were_not_explained_have_no_such_section(tmp_path: Path) -> None:
    run = make_run(tmp_path / "plain" / "t", "plain", frozen=True, overlays=0, samples=0)
    assert 'id="saliency"' not in write_report([run]).read_text()
