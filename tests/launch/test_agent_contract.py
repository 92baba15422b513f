"""Words, parameter file and environment of a run, against W&B's agent (golden/agent_contract_wandb_0_31_0.json)."""

import json
from pathlib import Path

import pytest
import yaml

from meddiff.launch.command import argv, environment_of, parameter_file

GOLDEN = json.loads((Path(__file__).parent / "golden" / "agent_contract_wandb_0_31_0.json").read_text())
VALUES = {name: given["value"] for name, given in GOLDEN["args"].items()}
JSON_FILE = "$WANDB_DIR/wandb/sweep-sw123/config-abc12345.json"


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: " ".join(map(str, case["command"] or ["default"])))
def test_the_words_are_those_of_the_agent(case):
    assert argv(case["command"], "train.py", VALUES, JSON_FILE, {"MY_VAR": "mine"}) == case["argv"]


def test_the_parameter_file_is_that_of_the_agent():
    assert parameter_file(VALUES) == GOLDEN["param_file"]
    assert yaml.safe_load(parameter_file(VALUES)).pop("wandb_version") == 1


def test_the_environment_has_what_the_agent_gives_but_the_sweep_s_id():
    """An id that no server has made would be refused when the run is uploaded."""
    folder, file = Path("/s/0002-aa"), Path("/s/jobs/0002-aa.yaml")
    base = {"PATH": "/bin", "WANDB_SWEEP_ID": "other", "MEDDIFF_RESTART_COUNT": "7", "OMP_NUM_THREADS": "8"}
    found = environment_of(base, "a/b \x1b", "beef", 2, (folder, file), 0, 3)
    assert set(GOLDEN["cases"][0]["env"]) - set(found) == {"WANDB_DIR", "WANDB_SWEEP_ID"}
    assert found["WANDB_RUN_ID"] == "beef-0002"
    assert found["WANDB_SWEEP_PARAM_PATH"] == str(file)
    assert found["WANDB_RUN_GROUP"].startswith("sweep-a_b-")
    assert found["WANDB_JOB_TYPE"] == "sweep"
    assert found["MEDDIFF_RUN_DIR"] == str(folder)
    assert found["OMP_NUM_THREADS"] == "3"
    assert "MEDDIFF_RESTART_COUNT" not in found
    again = environment_of({"OMP_NUM_THREADS": "1"}, "n", "beef", 2, (folder, file), 2, 3)
    assert (again["MEDDIFF_RESTART_COUNT"], again["OMP_NUM_THREADS"]) == ("2", "1")
