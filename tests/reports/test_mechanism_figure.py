"""What ``lightning evaluate mechanism`` found, on the page and in one figure: each value where it belongs."""

import json
from pathlib import Path

import pytest

from meddiff.cli.report import main
from meddiff.reports.page.mechanism import FIGURES, KEYS, TIMESTEP_KEYS, TOKENS
from meddiff.reports.page.mechanism_figure import ROWS, TIMESTEP_ROWS, mechanism_figure
from meddiff.reports.page.report import open_runs, write_report
from meddiff.reports.page.tables import Tables
from meddiff.reports.page.wording import label
from meddiff.runs.folder import read_run
from tests.builders.mechanism_tables import IMAGES, value_of, write_mechanism
from tests.builders.run_folders import make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Frozen; learnable with two seeds."""
    folder = tmp_path_factory.mktemp("mechanism")
    found = []
    for side, seed in (("frozen", 0), ("learnable", 0), ("learnable", 1)):
        run = make_run(folder / side / f"t{seed}", side, frozen=side == "frozen", seed=seed, overlays=0, samples=0)
        write_mechanism(run, seed)
        found.append(run)
    return found


@pytest.fixture(scope="module")
def tables(runs: list[Path]) -> Tables:
    return Tables(open_runs(runs))


def test_every_value_stands_at_its_run_and_checkpoint(tables: Tables) -> None:
    key = "mechanism/cnr/end/confounder"
    rows = zip(*(tables.mechanism[name] for name in ("encoder", "seed", "images", key, f"{key} low")), strict=True)
    assert [row[:3] for row in rows] == [
        (side, seed, images) for side, seed in (("frozen", 0), ("learnable", 0), ("learnable", 1)) for images in IMAGES
    ]
    for seed, images, value, low in zip(
        *(tables.mechanism[name] for name in ("seed", "images", key, f"{key} low")), strict=True
    ):
        assert value == pytest.approx(value_of(key, int(images or 0), int(seed or 0)))
        assert low == pytest.approx(float(value or 0) - 0.05)


def test_seeds_are_pooled(tables: Tables) -> None:
    """The same where only one seed has come that far: nothing."""
    key = "mechanism/moved/finding"
    assert tables.mechanism_means["images"] == list(IMAGES)
    assert set(tables.mechanism_means["encoder"]) == {"learnable"}
    wanted = [(value_of(key, images, 0) + value_of(key, images, 1)) / 2 for images in IMAGES]
    assert tables.mechanism_means[key] == pytest.approx(wanted)


def test_timesteps_are_means_over_layers_of_the_newest_checkpoint(tables: Tables) -> None:
    assert tables.mechanism_timesteps["timestep"] == [1, 501] * 3
    shares = tables.mechanism_timesteps["mechanism/attention/end"]
    assert shares[:2] == pytest.approx([16000 / 1e5 + t / 1e4 + 0.5 for t in (1, 501)])
    assert {name for name in tables.mechanism_timesteps if "/" in name} == set(TIMESTEP_KEYS)


def test_lines_to_read_against_are_those_of_their_figure(tables: Tables) -> None:
    found = dict(zip(tables.references["label"], tables.references["mechanism/probe/side/end"], strict=True))
    assert (found["chance"], found["untrained tower"], found["two captions"]) == (0.25, 0.375, None)
    found = dict(zip(tables.references["label"], tables.references["mechanism/moved/end"], strict=True))
    assert (found["chance"], found["untrained tower"], found["two captions"]) == (None, None, 1.25)
    assert "mechanism/attention/end" not in tables.references


def test_the_figure_has_a_column_a_token_and_the_values_in_its_cells(tables: Tables) -> None:
    spec = mechanism_figure(tables)
    assert spec is not None
    rows = spec["vconcat"]
    assert isinstance(rows, list)
    assert len(rows) == len(ROWS) + len(TIMESTEP_ROWS)
    assert all(len(row["hconcat"]) == len(TOKENS) for row in rows)
    assert [cell["title"]["text"] for cell in rows[0]["hconcat"]] == [
        "the finding's word", "function words", "the end token", "padding",
    ]  # fmt: skip
    datasets: dict[str, list[dict[str, float]]] = spec["datasets"]  # type: ignore[assignment]
    for figure, row in zip(FIGURES, rows, strict=False):
        for token, cell in zip(TOKENS, row["hconcat"], strict=True):
            key = figure.format(token)
            if "layer" not in cell:
                assert key in ("mechanism/attention/function", "mechanism/cnr/padding/confounder")
                continue
            (name,) = {
                layer["data"]["name"] for layer in cell["layer"] if layer["data"]["name"].startswith("mechanism_")
                and "means" not in layer["data"]["name"]
            }  # fmt: skip
            assert [one["value"] for one in datasets[name]][:3] == pytest.approx([value_of(key, n) for n in IMAGES])
            assert all("name" not in layer for layer in cell["layer"]), (
                "views of two cells that share a name share rows"
            )


def test_it_is_written_with_the_other_figures_and_not_without_values(runs: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    assert main([*map(str, runs), "--figures", str(tmp_path / "figures")]) == 0
    assert {path.name for path in (tmp_path / "figures").glob("mechanism.*")} == {
        f"mechanism.{k}" for k in ("svg", "png", "pdf")
    }
    svg = (tmp_path / "figures" / "mechanism.svg").read_text()
    assert svg.count(">probe: denied<") == 1
    assert "untrained tower" in svg
    plain = make_run(tmp_path / "plain" / "t", "plain", overlays=0, samples=0)
    assert main([str(plain), "--figures", str(tmp_path / "none")]) == 0
    assert not list((tmp_path / "none").glob("mechanism.*"))
    assert mechanism_figure(Tables(open_runs([plain]))) is None


def test_the_page_has_a_section_where_there_is_something(runs: list[Path], tmp_path: Path) -> None:
    text = write_report(runs, tmp_path / "report.html").read_text()
    assert "Where meaning goes when it leaves the word" in text
    for key in ("mechanism/cnr/end/finding", "mechanism/probe/denied/finding"):
        assert f">{label(key)}<" in text or label(key).replace("'", "&#39;") in text
    plain = make_run(tmp_path / "plain" / "t", "plain", overlays=0, samples=0)
    text = write_report([plain], tmp_path / "plain.html").read_text()
    assert "Where meaning goes" not in text
    assert 'data-chart="mechanism"' not in text


def test_a_table_that_is_damaged_is_no_rows(tmp_path: Path) -> None:
    """Cells that are no numbers, columns that are missing, other figures: nothing of it is drawn, the page is written."""
    run = make_run(tmp_path / "r" / "t", "r", overlays=0, samples=0)
    out = write_mechanism(run)
    (out / "mechanism.csv").write_text("images,figure,value\nx,attention/end,1\n5,attention/end,none\n5,,\n7,<b>,3\n")
    (out / "mechanism_attention.csv").write_text("timestep\n1\n")
    (out / "mechanism_cnr.csv").write_bytes(b"\xff\xfe\x00")
    found = Tables(open_runs([run]))
    assert not any("/" in name for name in found.mechanism)
    assert mechanism_figure(found) is None
    assert "<b>" not in json.dumps(found.mechanism)
    write_report([run], tmp_path / "report.html")


def test_the_newest_evaluation_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r" / "t", "r", overlays=0, samples=0)
    out = write_mechanism(run)
    older = out.with_name("000008000")
    older.mkdir()
    (older / "mechanism.csv").write_text("images,figure,value\n8000,attention/end,99\n")
    assert len(read_run(run).mechanism()) > 50


def test_every_figure_has_words() -> None:
    """The names of columns are not what a reader sees."""
    said = [label(key) for key in KEYS]
    assert len(set(said)) == len(said)
    assert not any("/" in one for one in said)
    assert label("mechanism/cnr/finding/confounder") == "CNR of the finding's word on the confounder"
