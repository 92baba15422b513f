"""Training learns, and it learns from the words: beside zero, an unconditional twin, and the captions of other images.

Eight phantoms, so that a caption says which picture is meant: a model that reads it knows the answer at any noise, one
that does not can only guess. v-prediction, because its loss does not fade where the noise hides the picture.
`benchmarks/learning.py` asks the same of the quickstart, where a caption says far less about a picture.
"""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.common.draws import generator
from meddiff.shards.batches import LatentBatch
from tests.builders.tiny import UNET, make_shards, model_config, quiet_trainer

VAE = Path(__file__).parents[2] / "meddiff" / "assets" / "phantom_vae"
UNET_HERE = {**UNET, "block_out_channels": [16, 32], "norm_num_groups": 8, "cross_attention_dim": 32}
STEPS, REPEATS = 250, 16


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with eight training phantoms at 64 px, encoded by the shipped autoencoder."""
    return make_shards(
        tmp_path_factory.mktemp("eight") / "shards", VAE, n=12, resolution=64, val=2, grounding=1, fidelity=1
    )


def train(shards: Path, tmp_path: Path, **overrides: object) -> LatentDiffusionModule:
    L.seed_everything(0)
    text = {"width": 32, "heads": 2, "layers": 2}
    config = model_config(
        VAE,
        unet=UNET_HERE,
        text_encoder=text,
        learning_rate=3e-3,
        ema_decay=None,
        prediction_type="v_prediction",
        **overrides,
    )
    module = LatentDiffusionModule(**config)
    trainer = quiet_trainer(tmp_path, STEPS, limit_val_batches=0)
    trainer.fit(module, datamodule=LatentShardsDataModule(str(shards), batch_size=8, mean_only=True))
    return module.eval()


def loss(module: LatentDiffusionModule, shards: Path, captions: str) -> float:
    """Mean loss over all timesteps of the eight images, with fixed noise.

    ``captions``: "own", "shifted" (each image gets its neighbour's) or "none".
    """
    data = LatentShardsDataModule(str(shards))
    stored = data.dataset("train")
    latents = np.stack([stored.latent(i)[:4].astype(np.float32) for i in range(8)]) * data.manifest.scaling_factor
    own = [stored.metadata(i)["impression"] for i in range(8)]
    texts = {"own": own, "shifted": own[1:] + own[:1], "none": [""] * 8}[captions]
    total = 0.0
    for repeat in range(REPEATS):
        draws = [generator("test", repeat, i) for i in range(8)]
        batch: LatentBatch = {
            "key": [f"{repeat}-{i}" for i in range(8)],
            "epoch": [0] * 8,
            "labels": [[]] * 8,
            "weight": torch.ones(8),
            "dropout_uniform": torch.ones(8, dtype=torch.float64),
            "latents": torch.from_numpy(latents),
            "noise": torch.from_numpy(np.stack([g.standard_normal(latents.shape[1:], np.float32) for g in draws])),
            "timestep_uniform": torch.tensor([g.random() for g in draws], dtype=torch.float64),
            "caption": texts,
        }
        with torch.no_grad():
            total += float(module.denoising_loss(module.with_tokens(batch, training=False)).mean())
    return total / REPEATS


@pytest.mark.slow  # half a minute of one core; test_tower_kinds and test_text_tower train in every run of the tests
def test_loss_falls_below_zero_prediction_and_below_an_unconditional_model(eight: Path, tmp_path: Path) -> None:
    conditional = train(eight, tmp_path, caption_dropout=0.0)
    unconditional = train(eight, tmp_path, caption_dropout=1.0, caption_dropout_on="all")
    found = {
        "conditional": loss(conditional, eight, "own"),
        "unconditional twin": loss(unconditional, eight, "none"),
        "captions of other images": loss(conditional, eight, "shifted"),
    }
    conditional.model.forward = lambda noisy, timesteps, tokens: torch.zeros_like(noisy)  # type: ignore[method-assign]
    found["predicting zero"] = loss(conditional, eight, "own")
    print("\n" + ", ".join(f"{name} {value:.4f}" for name, value in found.items()))
    assert found["conditional"] < 0.3 * found["predicting zero"]
    assert found["conditional"] < 0.5 * found["unconditional twin"]
    assert found["captions of other images"] > 2.0 * found["conditional"]
