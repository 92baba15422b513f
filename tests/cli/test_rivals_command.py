"""``lightning evaluate rivals`` as it is typed and printed."""

import pytest

from meddiff.cli.evaluate import ALIASES, BESIDE, TOLD, parse
from meddiff.cli.rivals import rivals_text
from meddiff.evaluation.measurement import Result, Row, Table


def test_it_is_asked_for_by_name_alone_and_says_its_price() -> None:
    assert "rivals" not in ALIASES["all"]
    assert "rivals" in BESIDE
    assert "rivals" in TOLD
    options = parse(
        "rivals", ("rivals",), ["--run", "x", "--rivals.presets", '["words", "bbm"]', "--rivals.bbm_steps", "9"]
    )
    assert options.rivals.presets == ["words", "bbm"]
    assert (options.rivals.bbm_steps, options.rivals.inversion_steps, options.rivals.bbm_guidance) == (9, 300, 16.0)


def test_a_preset_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from meddiff.cli.main import main

    with pytest.raises(SystemExit) as end:
        main(["evaluate", "rivals", "--run", "x", "--rivals.presets", '["wordz"]'])
    assert end.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "presets are wordz; name one or several of words, layers" in error


def test_the_table_shows_intervals_gains_and_prices() -> None:
    row: dict[str, float | str | None] = {"preset": "bbm", "n": 12.0, "evaluations": 150.0, "seconds": 0.25}
    row |= {"cnr": 0.5, "cnr_low": 0.25, "cnr_high": 0.75, "gain_absent": 0.125, "gain_absent_low": None, "gain": None}
    layers: list[Row] = [
        {"half": half, "part": part, "pixels": 256, "chosen": float(part == "up"), "held_out_cnr": 0.5}
        for half in (0, 1)
        for part in ("down", "up")
    ]
    text = rivals_text(Result({}, {"rivals": Table([row]), "rival_layers": Table(layers)}))
    assert "| bbm | 0.50 [0.25, 0.75] | 0.12 |  |  |  |  |  | 12 | 150 | 0.250 |" in text
    assert "layers for half 1, chosen by the other: up of 256 pixels; CNR there 0.50" in text
    assert "layers for half" not in rivals_text(Result({}, {"rivals": Table([row])}))
