"""Does the model learn, and does it learn from the words? Losses beside what could explain them away.

    python benchmarks/learning.py [--steps N]

Trains the quickstart model twice on the same images with the same draws: with its captions, and with every caption
dropped (an unconditional model). Then the denoising loss on the held-out split, the same timesteps and noise for all:
- predicting zero: what a model that has learnt nothing scores (about 1: the variance of noise, or of v);
- Gaussian: the best unconditional linear denoiser, mean and variance of every latent element, no network;
- unconditional: the twin that never saw a caption;
- shuffled: the conditional model with the captions of other images, the control for "it only looks at the picture".
Differences are paired over images; the interval is a bootstrap over images (95 %).
"""

import argparse
import time
from dataclasses import dataclass

import lightning as L
import numpy as np
import torch
import yaml

from callbacks.progress import ImagesProgressBar
from datamodules.phantom import PhantomLatentsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.common.draws import generator
from meddiff.common.places import locate
from meddiff.models.noise_schedule import NoiseSchedule
from meddiff.models.sampling import SamplingOptions
from meddiff.phantoms import PhantomOptions
from meddiff.shards.batches import LatentBatch

CONFIG = locate("configs/quickstart.yaml")
REPEATS = 8


@dataclass
class Config:
    """What is read of a configuration file: arguments of the model and of the data module."""

    seed: int
    steps: int
    model: dict[str, object]
    data: dict[str, object]

    @classmethod
    def read(cls) -> "Config":
        """The quickstart's."""
        content = yaml.safe_load(CONFIG.read_text())
        model, data = content["model"]["init_args"], content["data"]["init_args"]
        return cls(content["seed_everything"], content["trainer"]["max_steps"], model, data)


@dataclass
class Images:
    """Latents (N, C, h, w), posterior means, and captions and keys of the images they are of."""

    latents: torch.Tensor
    captions: list[str]
    keys: list[str]


def data_module(config: Config) -> PhantomLatentsDataModule:
    arguments = {**config.data, "vae": config.model["vae"]}
    return PhantomLatentsDataModule(phantom=PhantomOptions(**arguments.pop("phantom")), **arguments)


def train(config: Config, steps: int, **overrides: object) -> LatentDiffusionModule:
    L.seed_everything(config.seed)
    arguments = {**config.model, **overrides}
    module = LatentDiffusionModule(**{**arguments, "sampling": SamplingOptions(**arguments["sampling"])})
    trainer = L.Trainer(
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        callbacks=[ImagesProgressBar()],
    )
    trainer.fit(module, datamodule=data_module(config))
    return module.eval()


def held_out(data: PhantomLatentsDataModule) -> Images:
    """The images of all held-out splits."""
    latents, captions, keys = [], [], []
    for split in ("val", "grounding", "fidelity"):
        dataset = data.dataset(split)
        for i in range(len(dataset)):
            moments = dataset.latent(i)
            latents.append(moments[: len(moments) // 2].astype(np.float32) * data.manifest.scaling_factor)
            captions.append(dataset.metadata(i)["impression"])
            keys.append(f"{split}-{i}")
    return Images(torch.from_numpy(np.stack(latents)), captions, keys)


def losses(module: LatentDiffusionModule, images: Images, captions: list[str]) -> np.ndarray:
    """Loss of each image, the mean over REPEATS stratified timesteps: (N,)."""
    total = np.zeros(len(captions))
    for repeat in range(REPEATS):
        for start in range(0, len(captions), 50):
            keys = images.keys[start : start + 50]
            latents = images.latents[start : start + 50]
            uniform = [(repeat + generator("bench", "t", repeat, key).random()) / REPEATS for key in keys]
            noise = [
                generator("bench", "noise", repeat, key).standard_normal(latents.shape[1:], np.float32) for key in keys
            ]
            n = len(latents)
            batch: LatentBatch = {
                "key": keys,
                "epoch": [0] * n,
                "labels": [[]] * n,
                "weight": torch.ones(n),
                "dropout_uniform": torch.ones(n, dtype=torch.float64),  # nothing is dropped in evaluation
                "latents": latents,
                "noise": torch.from_numpy(np.stack(noise)),
                "timestep_uniform": torch.tensor(uniform, dtype=torch.float64),
                "caption": captions[start : start + 50],
            }
            with torch.no_grad():
                total[start : start + 50] += module.denoising_loss(module.with_tokens(batch, training=False)).numpy()
    return total / REPEATS


class GaussianDenoiser(torch.nn.Module):
    """E[noise or v | noisy] when every latent element is an independent Gaussian of known mean and variance."""

    def __init__(self, latents: torch.Tensor, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.mean, self.var, self.alphas = latents.mean(0), latents.var(0), schedule.alphas_cumprod
        self.predicts_v = schedule.prediction_type == "v_prediction"

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        a = self.alphas[timesteps].view(-1, 1, 1, 1)
        residual = noisy - a.sqrt() * self.mean
        noise = (1 - a).sqrt() * residual / (a * self.var + 1 - a)
        clean = self.mean + a.sqrt() * self.var * residual / (a * self.var + 1 - a)
        return a.sqrt() * noise - (1 - a).sqrt() * clean if self.predicts_v else noise


def gap(a: np.ndarray, b: np.ndarray) -> str:
    """Mean of a - b with its 95 % bootstrap interval over images."""
    rng = generator("bench", "bootstrap")
    d = a - b
    means = d[rng.integers(0, len(d), (2000, len(d)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{d.mean():+.5f} [{low:+.5f}, {high:+.5f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=None, help="optimiser steps; default: the quickstart's")
    arguments = parser.parse_args()
    config = Config.read()
    steps = arguments.steps or config.steps
    data = data_module(config)
    data.prepare_data()
    images = held_out(data)
    begin = time.monotonic()
    conditional = train(config, steps)
    took = time.monotonic() - begin
    unconditional = train(config, steps, caption_dropout=1.0, caption_dropout_on="all")

    n = len(images.captions)
    order = generator("bench", "shuffle").permutation(n)
    train_split = data.dataset("train")
    stored = np.stack([train_split.latent(i) for i in range(len(train_split))]).astype(np.float32)
    gaussian = LatentDiffusionModule(**{**config.model, "sampling": SamplingOptions()})
    gaussian.configure_model()
    denoiser = GaussianDenoiser(
        torch.from_numpy(stored[:, : stored.shape[1] // 2]) * data.manifest.scaling_factor,
        gaussian.model.noise_schedule,
    )
    gaussian.model.forward = denoiser.forward  # type: ignore[method-assign]
    zero = LatentDiffusionModule(**{**config.model, "sampling": SamplingOptions()})
    zero.configure_model()
    zero.model.forward = lambda noisy, timesteps, tokens: torch.zeros_like(noisy)  # type: ignore[method-assign]

    real = losses(conditional, images, images.captions)
    rows = {
        "predicting zero": losses(zero, images, images.captions),
        "Gaussian (no network)": losses(gaussian, images, images.captions),
        "unconditional twin": losses(unconditional, images, [""] * n),
        "conditional, captions shuffled": losses(conditional, images, [images.captions[i] for i in order]),
        "conditional": real,
    }
    rate = steps * data.batch_size / took
    print(f"\n{steps} steps ({rate:.0f} images/s), {n} held-out phantoms x {REPEATS} timesteps")
    print(f"{'':34}{'loss':>8}   {'minus conditional (95 % interval)'}   ratio")
    for name, loss in rows.items():
        print(f"{name:34}{loss.mean():8.4f}   {gap(loss, real):33}   {loss.mean() / real.mean():.3f}")


if __name__ == "__main__":
    main()
