"""Results of other settings never pass for these, and a call that failed is in nobody's way."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meddiff.common.errors import UserError
from meddiff.evaluation.drawing import draw_images, drawing_settings, finished_keys
from meddiff.evaluation.fidelity import Fidelity, FidelityOptions
from meddiff.evaluation.grounding import Grounding, GroundingOptions
from meddiff.evaluation.ledger import Ledger
from meddiff.evaluation.provenance import model_digest, weights_digest
from meddiff.evaluation.ranks import Ranks
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule
from meddiff.runs.earlier_results import refuse_other_results
from meddiff.runs.evaluations import EvaluationWriter
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import (
    QUICK,
    CountedPasses,
    make_attentive_model,
    make_classifier,
    make_model,
    make_split,
    one_pixel_darker,
    rewrite_split,
)
from tests.builders.tiny import make_shards

ALONE = Ranks()
SETTINGS: dict[str, object] = {"seed": 0, "steps": 2}


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> LatentShardsDataset:
    folder = tmp_path_factory.mktemp("cohort") / "phantom"
    return LatentShardsDataset(make_shards(folder, vae_folder, n=20, val=2, grounding=8, fidelity=2), "grounding")


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return make_attentive_model(8)


def grounding(timesteps: int) -> Grounding:
    return Grounding(GroundingOptions(timesteps=timesteps))


# ---- models ---------------------------------------------------------------------------------------------------------


def test_one_value_of_any_tensor_changes_the_digest() -> None:
    torch.manual_seed(0)
    network = torch.nn.Linear(1000, 50)
    before = weights_digest(network)
    for place in (1, 777, 31_003):  # beside the values that are looked at as they are
        with torch.no_grad():
            network.weight.view(-1)[place] += 1e-3
        assert weights_digest(network) != before
        before = weights_digest(network)


def test_equal_weights_of_another_prediction_or_size_are_another_model(vae_folder: Path) -> None:
    model, other = make_model(vae_folder), make_model(vae_folder)
    assert model_digest(model) == model_digest(other)
    other.noise_schedule = NoiseSchedule("v_prediction")
    assert model_digest(model) != model_digest(other)
    assert drawing_settings(model, 0, QUICK) != drawing_settings(other, 0, QUICK)
    larger = make_model(vae_folder)
    larger.unet.register_to_config(sample_size=16)
    assert weights_digest(model.unet) == weights_digest(larger.unet)
    assert model_digest(model) != model_digest(larger)


# ---- grounding ------------------------------------------------------------------------------------------------------


def test_a_pass_that_failed_under_wrong_settings_is_in_nobodys_way(
    split: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, left = Ledger.add, iter(range(2))

    def stops(self: Ledger[dict[str, object]], entry: dict[str, object]) -> None:
        add(self, entry)
        if next(left, None) is None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "add", stops)
        with pytest.raises(KeyboardInterrupt):
            grounding(3).run(model, split, tmp_path, ALONE)
    assert not (tmp_path / "grounding.jsonl").exists()
    found = grounding(2).run(model, split, tmp_path, ALONE)
    fresh = grounding(2).run(model, split, None, ALONE)
    assert found.figures == pytest.approx(fresh.figures, rel=1e-6)
    with pytest.raises(UserError, match=r"other settings \(timesteps\)"):  # what is whole is not written over
        grounding(3).run(model, split, tmp_path, ALONE)
    (tmp_path / "grounding.jsonl").unlink()
    with CountedPasses(model) as counted:  # and what had been done of the first is still done
        grounding(3).run(model, split, tmp_path, ALONE)
    assert counted.samples == grounding(3).cost(model, split) - 3 * 3


def test_of_a_cohort_that_changed_only_the_new_is_computed(
    split: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path
) -> None:
    """Shards written anew at the same place, with the same keys and another text in one of them."""
    place, out = tmp_path / "shards", tmp_path / "out"
    shutil.copytree(split.folder, place)
    before = grounding(2).run(model, LatentShardsDataset(place, "grounding"), out, ALONE)
    key = next(split.keys[i] for i in range(len(split)) if split.metadata(i)["phrases"])

    def reworded(name: str, payload: bytes) -> bytes:
        if name != f"{key}.json":
            return payload
        metadata = json.loads(payload)
        for phrase in metadata["phrases"]:
            phrase["boxes"] = [{**box, "w": box["w"] / 2} for box in phrase["boxes"]]
        return json.dumps(metadata).encode()

    shutil.rmtree(place)
    rewrite_split(split, place, reworded)
    changed = LatentShardsDataset(place, "grounding")
    with CountedPasses(model) as counted:
        found = grounding(2).run(model, changed, out, ALONE)
    texts = sum(item.sample.key == key for item in grounding(2).items(model, changed))
    assert counted.samples == 2 * texts > 0
    fresh = grounding(2).run(model, changed, None, ALONE)
    assert found.figures == pytest.approx(fresh.figures, abs=1e-4)  # batches of other sizes round otherwise
    assert found.figures["cnr"] != pytest.approx(before.figures["cnr"], abs=1e-3), "the change is seen"
    shutil.move(place, tmp_path / "moved")
    with CountedPasses(model) as counted:  # where shards lie changes nothing
        grounding(2).run(model, LatentShardsDataset(tmp_path / "moved", "grounding"), out, ALONE)
    assert counted.samples == 0


def test_a_ledger_without_results_holds_nobody_to_its_settings(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": 1}\n')  # as a call of before left it that failed at once
    with Ledger(file, {"a": 2}, dict) as ledger:
        ledger.add({"value": 1})
    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"a": 2}, {"value": 1}]


# ---- images ---------------------------------------------------------------------------------------------------------


def flat(value: int) -> Callable[[list[str], list[str]], np.ndarray]:
    return lambda prompts, keys: np.full((len(keys), 8, 8, 3), value, np.uint8)


def fails(prompts: list[str], keys: list[str]) -> np.ndarray:
    raise RuntimeError("out of memory")


def test_a_drawing_that_failed_leaves_its_settings_to_nobody(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        draw_images(tmp_path, {"a": "wrong text"}, {**SETTINGS, "steps": 75}, fails, 2)
    draw_images(tmp_path, {"a": "text"}, SETTINGS, flat(9), 2)
    draw_images(tmp_path / "fresh", {"a": "text"}, SETTINGS, flat(9), 2)
    for name in ("a.png", "settings.json", "prompts.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_an_image_of_elsewhere_does_not_pass_for_a_drawn_one(tmp_path: Path) -> None:
    draw_images(tmp_path / "other", {"a": "text"}, {**SETTINGS, "seed": 1}, flat(1), 2)
    draw_images(tmp_path / "mine", {"a": "text", "b": "text b"}, SETTINGS, flat(9), 2)
    shutil.copy(tmp_path / "other" / "a.png", tmp_path / "mine" / "a.png")
    assert finished_keys(tmp_path / "mine", SETTINGS) == []
    with pytest.raises(UserError, match=r"a\.png was drawn with other settings \(seed 1 instead of 0\)"):
        draw_images(tmp_path / "mine", {"a": "text"}, SETTINGS, flat(9), 2)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(UserError, match="not drawn by an evaluation"):
        draw_images(tmp_path, {"c": "text"}, SETTINGS, flat(9), 2)
    # one is not borrowed either
    draw_images(tmp_path / "third", {"a": "text"}, SETTINGS, flat(7), 2, borrow=[tmp_path / "mine"])
    assert np.asarray(Image.open(tmp_path / "third" / "a.png"))[0, 0, 0] == 7


def test_images_of_before_that_say_nothing_are_kept(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8, 3), 5, np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "prompts.json").write_text(json.dumps({"a": "text"}))
    draw_images(tmp_path, {"a": "text"}, SETTINGS, fails, 2)
    assert finished_keys(tmp_path, SETTINGS) == ["a"]


def test_a_measurement_that_meets_another_cohort_takes_its_reference(tmp_path: Path, vae_folder: Path) -> None:
    split, model = make_split(tmp_path / "one", vae_folder, 8), make_model(vae_folder)
    rewrite_split(split, tmp_path / "two", lambda name, data: one_pixel_darker(data) if name.endswith(".png") else data)
    other = LatentShardsDataset(tmp_path / "two", "fidelity")
    classifier = str(make_classifier(tmp_path / "classifier"))
    options = FidelityOptions(weights={"domain": classifier}, sampling=QUICK, samples=4, controls=[])
    kept = Fidelity(options)
    kept.run(model, split, None, ALONE)
    found, fresh = kept.run(model, other, None, ALONE), Fidelity(options).run(model, other, None, ALONE)
    assert found.figures == pytest.approx(fresh.figures, rel=1e-5)
    assert not torch.equal(kept._reference["domain"], Fidelity(options)._reference.get("domain", torch.zeros(1)))


# ---- the folder of an evaluation ------------------------------------------------------------------------------------


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A folder in which a part of one model was measured."""
    writer = EvaluationWriter(
        tmp_path, {"model": "a", "checkpoint": "last.ckpt", "images": 8, "seed": 0, "cohort": "nih"}
    )
    writer.part("grounding", {"timesteps": 2}, {"cnr": 1.0}, {"model": "aa", "samples": "s1"})
    return tmp_path


def test_tables_of_two_models_or_cohorts_never_share_a_folder(measured: Path) -> None:
    about = {"checkpoint": "last.ckpt", "images": 8, "seed": 0, "cohort": "nih"}
    refuse_other_results(measured, about, {"grounding": {"model": "aa", "samples": "s1"}})
    refuse_other_results(measured, about, {"fidelity": {"model": "aa", "samples": "of another split"}})
    refuse_other_results(measured / "none", about, {"grounding": {"model": "bb", "samples": "s1"}})
    for part, now, word in (
        ("grounding", {"model": "bb", "samples": "s1"}, "weights"),
        ("grounding", {"model": "aa", "samples": "s2"}, "samples"),
        ("fidelity", {"model": "bb", "samples": "s1"}, "weights"),
    ):
        with pytest.raises(UserError, match=f"holds grounding of another model or other data .{word}.: give another"):
            refuse_other_results(measured, about, {part: now})


def test_a_folder_of_before_is_told_by_its_facts(measured: Path) -> None:
    record = json.loads((measured / "evaluation.json").read_text())
    del record["made"]
    (measured / "evaluation.json").write_text(json.dumps(record))
    about = {"checkpoint": "last.ckpt", "images": 8, "seed": 0, "cohort": "nih"}
    refuse_other_results(measured, about, {"grounding": {"model": "aa", "samples": "s1"}})
    with pytest.raises(UserError, match="cohort"):
        refuse_other_results(measured, {**about, "cohort": "rsna"}, {"grounding": {"model": "aa", "samples": "s1"}})
