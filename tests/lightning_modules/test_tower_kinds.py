"""Every kind of text tower trains, frozen and learnable, goes on bit for bit, and comes back from its checkpoint alone."""

import shutil
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.attribution.recorder import CrossAttentionRecorder
from meddiff.evaluation.grounding import Grounding, GroundingOptions
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.words import word_result
from meddiff.models.latent_diffusion import LatentDiffusion, model_of
from meddiff.models.sampling import SamplingOptions
from meddiff.runs.open_run import open_run
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.tiny import UNET, make_shards, model_config, quiet_trainer
from tests.builders.towers import KINDS, WIDTH, Kind

#: 16 x 16 latents; the U-Net's own width is another one, so that diffusers' projection stands between.
NETWORK = {**UNET, "sample_size": 16, "cross_attention_dim": 24, "encoder_hid_dim": WIDTH}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    """Shards of 24 phantoms at 128 px."""
    return make_shards(tmp_path_factory.mktemp("shards") / "phantom", vae_folder, 24, 128)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    return KINDS[str(request.param)](tmp_path / "tower")


def train(
    kind: Kind, images: Path, vae: Path, folder: Path, steps: int, frozen: bool, ckpt: Path | None = None
) -> LatentDiffusionModule:
    L.seed_everything(0)
    arguments = model_config(vae, unet=NETWORK, text_encoder=kind.source, freeze_text_encoder=frozen)
    module = LatentDiffusionModule(**arguments)
    trainer = quiet_trainer(folder, steps, use_distributed_sampler=False)
    trainer.fit(module, datamodule=LatentShardsDataModule(str(images), batch_size=4), ckpt_path=ckpt)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return module


def states(module: LatentDiffusionModule) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.model.text_encoder.state_dict().items()}


#: Each kind learnable; freezing is the same for all, so CLIP and one of transformers stand for it.
LEARNABLE, FROZEN = [(name, False) for name in KINDS], [("clip", True), ("t5", True)]
FROZEN_TOO = [pytest.param(name, True, marks=pytest.mark.slow) for name in KINDS if (name, True) not in FROZEN]


@pytest.mark.parametrize(("kind", "frozen"), [*LEARNABLE, *FROZEN, *FROZEN_TOO], indirect=["kind"])
def test_it_trains_and_goes_on_bit_for_bit(
    kind: Kind, frozen: bool, images: Path, vae_folder: Path, tmp_path: Path
) -> None:
    whole = train(kind, images, vae_folder, tmp_path / "whole", 4, frozen)
    half = train(kind, images, vae_folder, tmp_path / "half", 2, frozen)
    ends = train(kind, images, vae_folder, tmp_path / "half", 4, frozen, tmp_path / "half" / "2.ckpt")
    expected, found = whole.state_dict(), ends.state_dict()
    assert [name for name, value in expected.items() if not torch.equal(value, found[name])] == []
    # the controls: the second half changed something, and the tower trained if it was to
    assert any(not torch.equal(value, half.state_dict()[name]) for name, value in expected.items())
    torch.manual_seed(0)
    start = LatentDiffusion.build(NETWORK, kind.source, None, seed=0).text_encoder.state_dict()
    moved = [name for name, value in states(whole).items() if not torch.equal(value, start[name])]
    assert bool(moved) is not frozen
    assert whole.model.ema is not None
    assert {name.split(".")[0] for name in whole.model.ema.names} == {"unet"} | (
        {"text_encoder"} if not frozen else set()
    )
    # the projection between tower and U-Net belongs to the U-Net and trains with it
    assert "unet.encoder_hid_proj.weight" in whole.model.ema.names

    if isinstance(kind.source, str) or "checkpoint" in kind.source:
        shutil.rmtree(tmp_path / "tower")  # the checkpoint needs no source
    again = model_of(open_run(None, tmp_path / "half" / "4.ckpt").module)
    quick = SamplingOptions("ddim", 2, 3.0)
    texts = ["Small left effusion", "Cardiomegaly."]
    drawn = [model.eval().sample(texts, ["a", "b"], 1, quick) for model in (whole.model, again)]
    assert np.array_equal(*drawn)
    assert not np.array_equal(drawn[0], again.sample(texts[::-1], ["a", "b"], 1, quick)), "the text is heard"


def test_it_grounds_words_and_special_tokens(kind: Kind, images: Path, vae_folder: Path) -> None:
    model = LatentDiffusion.build(NETWORK, kind.source, str(vae_folder), seed=0).eval()
    split, grounding = LatentShardsDataset(images, "grounding"), Grounding(GroundingOptions(timesteps=2, full=True))
    entries = grounding.entries(model, split, None, Ranks())
    tokenizer = model.text_encoder.tokenizer
    assert {entry["kind"] for entry in entries} >= {"phrase"}
    for entry in entries:
        if entry["kind"] != "phrase":
            continue
        words = [word for word, variant, _ in entry["words"] if variant == "all"]
        special = [*tokenizer.names[1 - tokenizer.starts :]]
        assert words == [*(word.text for word in tokenizer.words(str(entry["row"]["phrase"]))), *special]
        assert entry["row"]["eos_cnr"] is not None
        assert (entry["row"]["sos_cnr"] is None) is (tokenizer.starts == 0)
    assert word_result(entries).figures["occurrences"] == sum(
        len(tokenizer.words(str(entry["row"]["phrase"]))) for entry in entries if entry["kind"] == "phrase"
    )


def test_recording_changes_nothing_and_padding_gets_no_attention_under_a_mask(kind: Kind, vae_folder: Path) -> None:
    model = LatentDiffusion.build(NETWORK, kind.source, str(vae_folder), seed=0).eval()
    tokenizer, texts = model.text_encoder.tokenizer, ["left effusion", "no edema"]
    noisy, times = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 700])
    length = max(tokenizer.length(text) for text in texts)
    with torch.no_grad():
        text = model.encode_texts(texts)
        plain = model.unet(noisy, times, **text.arguments()).sample
        with CrossAttentionRecorder(model.unet) as recorder:
            padding = torch.zeros(2, 2, tokenizer.max_length)
            padding[:, 0, length:] = 1.0
            padding[:, 1] = 1.0
            recorder.groups = padding
            recorded = model.unet(noisy, times, **text.arguments()).sample
            maps = recorder.take((16, 16))  # (2, 2, 16, 16)
    torch.testing.assert_close(recorded, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps[:, 1], torch.ones(2, 16, 16))
    assert (text.mask is not None) is model.text_encoder.attention_mask
    assert bool(maps[:, 0].max() < 1e-6) is model.text_encoder.attention_mask
