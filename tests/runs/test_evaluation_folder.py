"""Evaluations as `lightning evaluate` leaves them: which one is taken, what of it is read, what is refused."""

import json

import pytest

from meddiff.common.errors import UserError
from meddiff.runs.evaluation_folder import read_evaluation
from tests.builders.evaluation_folders import make_evaluation


def test_the_newest_evaluation_is_taken_or_the_one_named(tmp_path):
    run = tmp_path / "t"
    for images in (16000, 8000):
        make_evaluation(run, images=images, shift=images / 1000)
    (run / "evaluation" / "000032000").mkdir()  # begun, not finished
    assert read_evaluation(run).path.name == "000016000"
    assert read_evaluation(run, "000008000").about["images"] == 8000
    assert read_evaluation(run / "evaluation" / "000008000").about["images"] == 8000
    with pytest.raises(UserError, match=r"no evaluation 'best' \(there: 000008000, 000016000\)"):
        read_evaluation(run, "best")


def test_tables_are_read_when_they_are_asked_for(tmp_path):
    out = make_evaluation(tmp_path / "t", seed=3)
    evaluation = read_evaluation(tmp_path / "t")
    (out / "words.csv").write_text("key,class\nk,Edema,too much\nonly\n")  # after it was opened
    assert evaluation.table("words") == [{"key": "k", "class": "Edema"}, {"key": "only"}]
    (out / "words.csv").unlink()
    assert len(evaluation.table("words")) == 2
    assert evaluation.table("coco") == []
    assert (evaluation.seed, evaluation.images, evaluation.run) == (3, 16000, (tmp_path / "t").resolve())


def test_settings_are_those_of_the_run(tmp_path):
    make_evaluation(tmp_path / "t", "learnable")
    assert read_evaluation(tmp_path / "t").settings == {
        "model": {"init_args": {"freeze_text_encoder": False}},
        "data": {"init_args": {"prompt": "impression"}},
    }
    (tmp_path / "t" / "config.yaml").write_text("a: [")
    assert read_evaluation(tmp_path / "t").settings == {}


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_what_describes_nothing_is_refused(tmp_path, text):
    out = make_evaluation(tmp_path / "t")
    (out / "evaluation.json").write_text(text)
    with pytest.raises(UserError, match="evaluate again"):
        read_evaluation(tmp_path / "t")
    (out / "evaluation.json").write_text(json.dumps({"images": "many", "seed": None}))
    evaluation = read_evaluation(tmp_path / "t")
    assert (evaluation.seed, evaluation.images) == (0, 0)
