"""A run folder read part by part: lazily, whatever may be missing or spoilt."""

import json
from pathlib import Path

import pytest

from meddiff.common.errors import UserError
from meddiff.runs import names
from meddiff.runs.distinct_names import distinct_names
from meddiff.runs.folder import read_run
from meddiff.runs.values import number
from tests.builders.run_folders import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "quick" / "t", evaluations=3, overlays=2, samples=2)


def test_every_part_is_there(run):
    found = read_run(run)
    assert found.name == "quickstart"
    assert found.setting("trainer", "max_steps") == 1000
    assert [e.images for e in found.evaluations] == [0, 8000, 16000]
    assert len(found.rows) == 104
    assert found.control("grounding", "prior", "macro_cnr") == 0.41
    assert (found.phrases_images, len(found.phrases), len(found.excluded)) == (16000, 160, 2)
    assert [len(entries) for entries in found.attention.values()] == [2, 2, 2]
    assert sorted(found.samples) == [0, 8000, 16000]
    assert found.problems == []


def test_files_are_read_when_they_are_asked_for_and_once(tmp_path):
    make_run(tmp_path, evaluations=1, overlays=0, samples=0)
    run = read_run(tmp_path)
    (tmp_path / names.CONTROLS).write_text('{"grounding": {"prior": {"cnr": 7}}}')
    assert run.control("grounding", "prior", "cnr") == 7
    (tmp_path / names.CONTROLS).unlink()
    assert run.control("grounding", "prior", "cnr") == 7


def test_a_mark_is_all_there_need_be(tmp_path):
    (tmp_path / "t").mkdir()
    with pytest.raises(UserError, match=r"no config.yaml, metrics.jsonl or tradeoff.csv in it"):
        read_run(tmp_path / "t")
    (tmp_path / "t" / names.METRICS).write_text("")
    run = read_run(tmp_path / "t")
    assert run.name == tmp_path.name
    assert (run.evaluations, run.controls, run.phrases, run.phrases_images) == ([], {}, [], None)
    assert (run.attention, run.samples, run.updated, run.problems) == ({}, {}, "", [])


def test_problems_are_told_in_the_order_of_the_files_whatever_was_read_first(tmp_path):
    make_run(tmp_path, evaluations=1, overlays=1, samples=1)
    for name in (names.CONFIG, names.CONTROLS, "media/attention/000000000.json", "media/samples/000000000.json"):
        (tmp_path / name).write_text("[")
    run = read_run(tmp_path)
    assert run.samples == {0: []}
    assert run.controls == {}
    expected = [
        "config.yaml is not valid YAML.",
        "controls.json is not valid JSON.",
        "media/attention/000000000.json is not valid JSON.",
        "media/samples/000000000.json is not valid JSON.",
    ]
    assert run.problems == expected
    assert run.problems == expected, "asking twice tells nothing twice"


def test_rows_of_a_run_that_went_on_count_once(tmp_path):
    table = "step,images,grounding/macro_cnr,fidelity/fd_domain\n0,0,0.1,9\n10,160,0.2,8\n10,160,0.3,\n5,80,0.15,8.5\n,,1,1\n"
    (tmp_path / "tradeoff.csv").write_text(table)
    run = read_run(tmp_path)
    assert [e.images for e in run.evaluations] == [0, 80, 160]
    assert run.evaluations[-1].values == {"grounding/macro_cnr": 0.3, "fidelity/fd_domain": 8.0}


def test_equal_names_are_told_apart(run, tmp_path):
    runs = [read_run(folder) for folder in (run, run, make_run(tmp_path / "u", evaluations=1, overlays=0, samples=0))]
    distinct_names(runs)
    assert [one.name for one in runs] == ["quickstart t (1)", "quickstart t (2)", "quickstart u"]


def test_runs_of_a_sweep_are_called_by_what_it_varies(tmp_path):
    settings = [(frozen, seed) for frozen in (True, False) for seed in (0, 3)]
    folders = [
        make_run(tmp_path / f"{i:04d}", evaluations=1, overlays=0, samples=0, frozen=frozen, seed=seed)
        for i, (frozen, seed) in enumerate(settings)
    ]
    runs = [read_run(folder) for folder in folders]
    distinct_names(runs)
    assert [run.name for run in runs] == ["frozen, seed 0", "frozen, seed 3", "learnable, seed 0", "learnable, seed 3"]
    other = make_run(tmp_path / "other", name="other", evaluations=1, overlays=0, samples=0)
    runs = [read_run(folder) for folder in (*folders[:2], other)]
    distinct_names(runs)
    assert [run.name for run in runs] == ["quickstart: seed 0", "quickstart: seed 3", "other"]
    runs = [read_run(folder) for folder in (folders[0], other, folders[0])]
    distinct_names(runs)
    assert len({run.name for run in runs}) == 3, "what it varies does not tell them apart"


def test_the_builder_writes_under_the_names_of_the_room(run):
    for name in (*names.MARKS, names.CONTROLS, names.GROUNDING, f"{names.GROUNDING}/{names.EXCLUDED}"):
        assert (run / name).exists(), name
    for kind in (names.ATTENTION, names.SAMPLES):
        index = run / names.MEDIA / kind / f"{names.by_images(16000)}.json"
        assert len(json.loads(index.read_text())) == 2


@pytest.mark.parametrize("value", [None, "", "nan", "inf", True, [], {}, "x", 10**400])
def test_not_a_number(value):
    assert number(value) is None
