"""Which runs hyperband stops, against `sweeps` 0.3.0 (golden/sweeps_0_3_0.json)."""

import json
import math
from pathlib import Path

import pytest

from meddiff.common.errors import UserError
from meddiff.launch.hyperband import Course, bands_of, threshold, verdicts
from meddiff.launch.objective import Measured

GOLDEN = json.loads((Path(__file__).parent / "golden" / "sweeps_0_3_0.json").read_text())["hyperband"]
JUDGED = [case for case in GOLDEN if isinstance(case["stop"], list)]


@pytest.mark.parametrize("case", JUDGED, ids=lambda case: case["name"])
def test_hyperband_stops_the_runs_that_w_and_b_stops(case):
    stop, goal, runs = case["early_terminate"], case["goal"], case["runs"]
    courses = [Course(run["state"] == "running", run["history"]) for run in runs]
    found = verdicts(stop, goal, courses)
    assert [runs[one.run]["name"] for one in found] == case["stop"]
    bands = bands_of(stop)
    assert bands[:8] == case["bands"]  # the golden holds the first eight
    sign = -1 if goal == "maximize" else 1
    histories = [[sign * v for v in c.values if v is not None and math.isfinite(v)] for c in courses]
    wanted = [math.inf if one == "inf" else one for one in case["thresholds"]]
    assert [threshold(stop, band, histories) for band in bands[:8]] == wanted


def test_no_band_is_refused():
    (case,) = [case for case in GOLDEN if isinstance(case["stop"], str)]
    with pytest.raises(UserError, match="no band is left"):
        bands_of(case["early_terminate"])


@pytest.mark.parametrize("case", JUDGED, ids=lambda case: case["name"])
def test_the_same_out_of_run_folders(case, tmp_path):
    """The histories as runs log them: rows without the metric, null for what was not finite."""
    courses = []
    for run in case["runs"]:
        folder = tmp_path / run["name"]
        folder.mkdir()
        values = [None if value is None or math.isnan(value) else value for value in run["history"]]
        rows = [row for value in values for row in ({"step": 1, "train/loss": 0.1}, {"step": 1, "x": value})]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 2, "x": 0')
        courses.append(Course(run["state"] == "running", Measured(folder).values("x")))
    found = verdicts(case["early_terminate"], case["goal"], courses)
    assert [case["runs"][one.run]["name"] for one in found] == case["stop"]
