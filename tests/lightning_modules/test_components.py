"""The small components: they train, they are written, they come back, and the shipped one is as good as claimed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.phantom_images import PhantomImagesDataModule
from lightning_modules import AutoencoderModule, DomainClassifierModule
from meddiff.common.findings import FINDINGS
from meddiff.models.backbones import load_vae, vae_identity
from meddiff.models.domain_classifier import domain_features, load_classifier
from meddiff.phantoms import PhantomCohort, PhantomOptions
from tests.builders.tiny import quiet_trainer

ASSETS = Path(__file__).parents[2] / "meddiff" / "assets"
VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [8, 8, 8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def fit(module, tmp_path):
    data = PhantomImagesDataModule(PhantomOptions(n=60, resolution=64, val=12), batch_size=4, num_workers=0)
    trainer = quiet_trainer(tmp_path, 3, val_check_interval=3)
    trainer.fit(module, datamodule=data)
    return trainer


def psnr(vae, images: np.ndarray) -> float:
    """dB of the reconstruction of the posterior mean, pixels in [0, 1]."""
    x = torch.from_numpy(images).float()[:, None].expand(-1, 3, -1, -1) / 127.5 - 1
    with torch.no_grad():
        error = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1) - x
    return float(10 * torch.log10(4 / error.square().mean()))


def test_autoencoder_is_written_with_its_scale(tmp_path):
    trainer = fit(AutoencoderModule(VAE), tmp_path)
    identity = vae_identity(str(tmp_path / "vae"))
    assert identity["downsample"] == 8
    assert identity["scaling_factor"] == pytest.approx(1 / float(trainer.callback_metrics["val/latent_std"]), rel=1e-4)
    again = load_vae(str(tmp_path / "vae"))
    for name, value in trainer.lightning_module.vae.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=2e-3, atol=1e-3)


def test_classifier_is_written_and_comes_back(tmp_path):
    network = {"growth_rate": 4, "block_config": [1, 1], "num_init_features": 8}
    trainer = fit(DomainClassifierModule(network), tmp_path)
    trained = trainer.lightning_module.classifier.eval()
    again = load_classifier(tmp_path / "classifier")
    assert again.pathologies == list(FINDINGS)
    # Three steps of batch norm amplify the rounding to half precision: compare weights, not logits.
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=2e-3, atol=1e-3)
    features = domain_features(again, torch.rand(2, 3, 64, 64) * 2 - 1)
    assert features.shape == (2, again.classifier.in_features)
    assert torch.isfinite(features).all()


def test_shipped_autoencoder_reconstructs_held_out_phantoms():
    """Phantoms of a seed and split it never saw; an untrained twin is the control."""
    cohort = PhantomCohort(PhantomOptions(n=200, seed=4242))
    images = np.stack([cohort[i].image for i in range(200) if cohort.split_of(i) == "grounding"][:16])
    assert psnr(load_vae(str(ASSETS / "phantom_vae")), images) >= 30.0
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    untrained = AutoencoderKL.from_config(AutoencoderKL.load_config(ASSETS / "phantom_vae")).eval()
    assert psnr(untrained, images) < 15.0


def test_shipped_components_are_small():
    assert all(path.stat().st_size <= 4_000_000 for path in ASSETS.rglob("*") if path.is_file())
