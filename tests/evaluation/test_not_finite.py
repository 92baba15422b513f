"""Images, maps and latents that are no numbers: no file, no figure, one sentence."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from PIL import Image

from meddiff.attribution.overlay import overlay
from meddiff.common.errors import UserError
from meddiff.evaluation.alignment import Alignment
from meddiff.evaluation.alignment_options import AlignmentOptions
from meddiff.evaluation.classifier import Classifier, ClassifierOptions
from meddiff.evaluation.diversity import Diversity, DiversityOptions
from meddiff.evaluation.fidelity import Fidelity, FidelityOptions, through_vae
from meddiff.evaluation.grounding import Grounding, GroundingOptions
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import evaluation_latents
from meddiff.evaluation.utility import Utility
from meddiff.evaluation.utility_options import UtilityOptions
from meddiff.models.autoencoder import FrozenAutoencoder, NotFiniteImages, decode, encode, whole_images
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.sampling import SamplingOptions, initial_noise
from meddiff.notebook import LoadedModel
from meddiff.preparation.encode import encode_images
from meddiff.runs.metrics_file import read_metrics
from meddiff.runs.tables import read_table
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.command import call, write_fit
from tests.builders.drawn_parts import (
    QUICK,
    make_attentive_model,
    make_classifier,
    make_model,
    make_split,
    rewrite_split,
    run_part,
    stamps,
)
from tests.builders.tiny import TEXT, UNET

N = 6


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> LatentShardsDataset:
    return make_split(tmp_path_factory.mktemp("cohort") / "phantom", vae_folder, 2 * N)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("classifier") / "one")


class Flaky(LatentDiffusion):
    """Draws noise, and for one key something that is no number."""

    bad: str

    def sample(  # type: ignore[override]  # the rest does not matter here
        self, prompts: Sequence[str], keys: Sequence[str], seed: int, *_: object, **__: object
    ) -> NDArray[np.uint8]:
        latents = initial_noise(seed, keys, self.latent_shape)
        latents[[i for i, key in enumerate(keys) if key == self.bad], 0, 1, 1] = torch.nan
        return decode(self.vae, latents, self.scaling_factor)


@pytest.fixture
def flaky(vae_folder: Path, split: LatentShardsDataset) -> Flaky:
    model = Flaky.build(UNET, TEXT, str(vae_folder)).eval()
    model.bad = split.keys[N + 2]
    return model


def test_decoding_tells_which_images_are_no_numbers(vae_folder: Path) -> None:
    model = make_model(vae_folder)
    latents = initial_noise(0, ["a", "b", "c"], model.latent_shape)
    whole = decode(model.vae, latents, 1.0)
    latents[1, 2, 3, 4] = torch.inf
    with pytest.raises(NotFiniteImages, match=r"1 of 3 images are not finite \(number 1\)") as raised:
        decode(model.vae, latents, 1.0)
    assert raised.value.broken == [1]
    assert not raised.value.images[1].any()
    images, broken = whole_images(lambda *_: decode(model.vae, latents, 1.0), ["", "", ""], ["a", "b", "c"])
    assert (list(images), broken) == (["a", "c"], ["b"])
    assert np.array_equal(images["a"], whole[0])
    assert np.array_equal(images["c"], whole[2])


@pytest.mark.filterwarnings("ignore:.*has no figures")
def test_no_distance_from_a_set_with_a_broken_image(
    split: LatentShardsDataset, classifier: Path, flaky: Flaky, tmp_path: Path
) -> None:
    options = FidelityOptions(samples=N, weights={"domain": str(classifier)}, batch_size=4, controls=["real_vs_real"])
    for out in (tmp_path, None):
        result = Fidelity(options).run(flaky, split, out, Ranks())
        assert math.isnan(result.figures["fd_domain"])
        assert math.isnan(result.figures["kid_domain"])
        assert math.isfinite(result.figures["real_vs_real/fd_domain"])
        assert [split.keys[i] for i in result.images] == (
            [] if out else [key for key in split.keys[N:] if key != flaky.bad]
        )
    run_part(Fidelity(options), flaky, split, tmp_path)
    values = {(row["metric"], row["control"]): row["value"] for row in read_table(tmp_path / "fidelity.csv")}
    assert values["fd_domain", ""] == values["kid_domain", ""] == ""
    assert values["fd_domain", "real_vs_real"] != ""
    kept = sorted(stamps(tmp_path / "images" / "fidelity"))
    assert kept == [f"{key}.png" for key in split.keys[N:] if key != flaky.bad]


def test_nor_any_other_figure(split: LatentShardsDataset, classifier: Path, flaky: Flaky, tmp_path: Path) -> None:
    diverse = Diversity(DiversityOptions(prompts=3, per_prompt=2, paper_sets=2, batch_size=4))
    flaky.bad = "none"
    assert math.isfinite(run_part(diverse, flaky, split, tmp_path / "fine")["ms_ssim"])
    flaky.bad = next(path.stem for path in (tmp_path / "fine" / "images" / "diversity").glob("*.png"))
    with pytest.warns(UserWarning, match="diversity has no figures: 1 of 6 images are not finite"):
        found = run_part(diverse, flaky, split, tmp_path / "broken")
    assert math.isnan(found["ms_ssim"])
    judged = Classifier(ClassifierOptions(classifier=str(classifier), per_class=1))
    run_part(judged, flaky, split, tmp_path / "fine")
    flaky.bad = next(path.stem for path in (tmp_path / "fine" / "images" / "classifier").glob("*.png"))
    with pytest.warns(UserWarning, match="classifier has no figures"):
        found = run_part(judged, flaky, split, tmp_path / "broken")
    assert math.isnan(found["classifier_auc"])


def test_nor_of_what_prompts_asked_for_or_classifiers_learn(
    split: LatentShardsDataset, classifier: Path, flaky: Flaky, tmp_path: Path
) -> None:
    aligned = Alignment(AlignmentOptions(classifier=str(classifier), samples=N, sampling=QUICK))
    with pytest.warns(UserWarning, match="alignment has no figures: 1 of 6 images are not finite"):
        found = run_part(aligned, flaky, split, tmp_path / "alignment")
    assert math.isnan(found["alignment_classifier_pearson"])
    assert math.isfinite(found["real/alignment_classifier_pearson"])
    train, val = (LatentShardsDataset(split.folder, name) for name in ("train", "val"))
    flaky.bad = train.keys[1]
    useful = Utility(UtilityOptions(seeds=1, steps=2, checks=1, fewest=1, side=32, samples=len(train)), train, val)
    with pytest.warns(UserWarning, match=f"utility has no figures: 1 of {len(train)} images are not finite"):
        found = run_part(useful, flaky, split, tmp_path / "utility")
    assert math.isnan(found["utility_synthetic_auroc"])


def test_maps_that_are_no_numbers_are_excluded_with_a_reason(shards: Path, vae_folder: Path) -> None:
    model = make_attentive_model(8, vae=str(vae_folder))
    with torch.no_grad():
        for name, weight in model.unet.named_parameters():
            if "attn2.to_q" in name:
                weight.mul_(torch.inf)
    grounding = LatentShardsDataset(shards, "grounding")
    result = Grounding(GroundingOptions(timesteps=2)).run(model, grounding, None, Ranks())
    rows = result.tables["grounding"].rows
    assert rows
    assert all(row["cnr"] is None and row["auroc"] is None and row["miou"] is None for row in rows)
    assert "cnr" not in result.figures
    assert result.figures["excluded"] == len(rows)
    assert {row["reason"] for row in result.tables["excluded"].rows} >= {"map is constant or not a number"}
    chest = np.full((64, 64), 100, np.uint8)
    with pytest.raises(UserError, match="attention is not finite"):
        LoadedModel(model).ground(chest, "Edema.", timesteps=1)
    plain = overlay(chest, np.full((64, 64), np.nan, np.float32))
    assert np.array_equal(plain, np.repeat(chest[..., None], 3, axis=-1))
    assert np.array_equal(plain, overlay(chest, np.where(np.eye(64) > 0, np.inf, 0.0)))


def test_latents_that_are_no_numbers_are_neither_evaluated_nor_stored(
    split: LatentShardsDataset, vae_folder: Path, tmp_path: Path
) -> None:
    def broken(name: str, payload: bytes) -> bytes:
        if not name.endswith(".latent.npy") or not name.startswith(split.keys[1]):
            return payload
        return payload[:-2] + np.array([np.nan], np.float16).tobytes()

    rewrite_split(split, tmp_path / "cohort", broken)
    copy = LatentShardsDataset(tmp_path / "cohort", split.split)
    evaluation_latents(copy, 0, 0)
    with pytest.raises(UserError, match=f"not finite for '{split.keys[1]}': run prepare again"):
        evaluation_latents(copy, 1, 0)
    vae = FrozenAutoencoder(str(vae_folder)).on(torch.device("cpu"))
    with torch.no_grad():
        vae.quant_conv.weight.fill_(1e6)  # more than half precision holds
    image = np.eye(64, dtype=np.uint8) * 255
    with pytest.raises(UserError, match="not finite in half precision"):
        encode_images(vae, [image])
    with torch.no_grad():
        vae.quant_conv.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="latents that are not finite"):
        encode(vae, [image], 1.0)


@pytest.mark.filterwarnings("ignore:.*has no figures")
def test_the_autoencoder_control_is_undefined_too(split: LatentShardsDataset, vae_folder: Path) -> None:
    model = make_model(vae_folder)
    with torch.no_grad():
        model.vae.post_quant_conv.weight.fill_(torch.inf)
    assert through_vae(model, split, 0)([0, 1]).isnan().all()


@pytest.fixture
def trained(
    tmp_path: Path, shards: Path, vae_folder: Path, classifier: Path
) -> Callable[..., tuple[int, str, dict[str, object]]]:
    """Train by the command with both evaluations after every step: exit code, stderr, rows by images."""

    def run(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str, dict[str, object]]:
        config = write_fit(
            tmp_path / "fit.yaml",
            shards,
            vae_folder,
            fidelity={"every_n_images": 8, "samples": 3, "weights": {"domain": str(classifier)}, "controls": []},
            grounding={"every_n_images": 8, "samples": 2, "timesteps": 1},
            tradeoff={"report": False},
        )
        code, _, err = call(capsys, "fit", "-c", str(config), "--model.sampling.steps=2", *flags)
        (folder,) = (tmp_path / "runs" / "t").iterdir()
        rows = [row for row in read_metrics(folder / "metrics.jsonl") if "fidelity/fd_domain" in row]
        pictures = {path.name[:9] for path in (folder / "media" / "samples").glob("0*.png")}
        return code, err, {"rows": {row["images"]: row for row in rows}, "pictures": pictures, "run": folder}

    return run


@pytest.mark.filterwarnings("ignore:.*has no figures")
def test_a_model_that_broke_has_no_figures_while_it_trains(
    trained: Callable[..., tuple[int, str, dict[str, object]]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, err, found = trained(capsys, "--model.learning_rate", "1e18", "--model.stop_after_skipped_steps", "1")
    assert code == 2
    assert "Training stopped at step 1" in err
    rows = found["rows"]
    assert isinstance(rows, dict)
    assert list(rows) == [0, 8]
    assert isinstance(rows[0]["fidelity/fd_domain"], float)
    assert rows[8]["fidelity/fd_domain"] is rows[8]["fidelity/kid_domain"] is None
    assert found["pictures"] == {"000000000"}  # none that is black


def test_drawing_says_which_prompts_gave_none_and_writes_no_black_image(
    trained: Callable[..., tuple[int, str, dict[str, object]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, found = trained(capsys)
    assert code == 0
    out = tmp_path / "drawn"
    how = ("--ckpt", str(found["run"]), "--out", str(out), "--steps", "2", "--prompts", "Edema.", "Effusion.")
    copy = shutil.copytree(str(found["run"]), tmp_path / "runs" / "t" / "broken")
    broken = next(copy.rglob("step*.ckpt"))  # its weights are finite, what it draws is not
    state = torch.load(broken, weights_only=True)
    for name, weight in state["state_dict"].items():
        if name.endswith("unet.conv_out.weight"):
            weight.mul_(1e30)
    torch.save(state, broken)
    broken.with_name(f"{broken.name}.sha256").unlink()
    code, _, err = call(capsys, "sample", "--ckpt", str(broken), *how[2:], "--ema", "false")
    assert code == 2
    assert "error: 2 of 2 images are not finite and are not written (prompts: Edema., Effusion.): take a smaller" in err
    assert not list(out.glob("*.png"))
    out = tmp_path / "fine"
    code, _, _ = call(capsys, "sample", *how[:3], str(out), *how[4:], "--guidance_scale", "2")
    assert code == 0
    assert all(np.array(Image.open(path)).any() for path in out.glob("*.png"))
    # and `evaluate` of the same model
    quick = json.dumps({"sampler": "dpm++", "steps": 2, "guidance_scale": 2.0})
    flags = ("--ckpt", str(broken), "--fidelity.sampling", quick)
    classifier = ("--fidelity.samples", "3", "--fidelity.controls", "[]", "--out", str(tmp_path / "evaluation"))
    code, _, err = call(capsys, "evaluate", "fidelity", *flags, *classifier)
    assert code == 0, err
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["fidelity"]["fd_domain"] is None


def test_predicting_keeps_what_is_fine_and_ends_with_a_sentence(
    tmp_path: Path, shards: Path, vae_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write_fit(tmp_path / "fit.yaml", shards, vae_folder))
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET)
    unet.conv_out.weight.data.mul_(1e30)  # finite, and what it draws is not
    unet.save_pretrained(tmp_path / "unet")
    code, _, err = call(
        capsys, "predict", "-c", config, "--model.sampling.steps=2", f"--model.unet={tmp_path / 'unet'}"
    )
    assert code == 2
    assert "images were not finite and are not written (phantom-" in err
    assert not list((tmp_path / "runs").rglob("*.png"))


def test_samples_of_a_notebook(vae_folder: Path) -> None:
    loaded = LoadedModel(make_model(vae_folder))
    with pytest.raises(UserError, match="2 of 2 images are not finite"):
        loaded.sample(["Edema.", "Effusion."], sampling=SamplingOptions("dpm++", 2, 1e38))
    assert len(loaded.sample("Edema.", sampling=QUICK)) == 1
